"""`check-data` as a whole: cards, files, waivers, missing parts, exit codes and what is printed."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

import pytest

from trunkline.data.checks.command import check_files, collect_repairs, exit_code
from trunkline.errors import TrunklineError

LINES = [f"{word} boats sail on the wide lake near our town today" for word in ("one", "two", "six", "nine", "ten")]
OTHER = "where can I buy a ticket for the evening train to the coast"


def rows(*lines: str) -> str:
    return "text,label\n" + "".join(f"{line},{'ab'[i % 2]}\n" for i, line in enumerate(lines))


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "train.csv").write_text(rows(*LINES))
    (tmp_path / "test.csv").write_text(rows(OTHER, LINES[0].upper()))
    (tmp_path / "clean.csv").write_text(rows(OTHER, "is there a boat to the island on sunday"))
    return tmp_path


def findings(report: dict[str, Any]) -> dict[str, dict[str, Any]]:
    return {item["check"]: item for item in report["findings"]}


def test_broken_tags_are_counted_and_kept_off_the_log(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    (tmp_path / "a.conll").write_text("Ann I-per\nruns O\n\nBo B-per\nand O\nCy I-per\n")
    report = check_files({"train": str(tmp_path / "a.conll"), "dev": None}, "ner", name="mine")
    found = findings(report)["invalid_transitions"]
    assert (found["count"], found["share"]) == (2, pytest.approx(2 / 5))
    assert "a.conll" in found["message"] and found["severity"] == "warning"
    assert not caplog.records


def test_other_warnings_stay_on_the_log(caplog: pytest.LogCaptureFixture) -> None:
    logger = logging.getLogger("trunkline.data")
    with collect_repairs() as repairs:
        logger.warning("%s: %d tags broke the rules of %s and were repaired", "x.txt", 3, "BIO")
        logger.warning("something else")
    logger.warning("%s: %d tags broke the rules of %s and were repaired", "y.txt", 1, "BIO")
    assert repairs == {"x.txt": (3, "BIO")}
    assert [record.getMessage()[:9] for record in caplog.records] == ["something", "y.txt: 1 "]


def test_files(folder: Path) -> None:
    report = check_files({"train": str(folder / "train.csv"), "test": str(folder / "test.csv")}, "classification")
    assert exit_code([report]) == 1 and report["counts"]["test"] == {"loaded": 2, "expected": None}
    (folder / "pairs.csv").write_text("left,right\nwho is it,me again\n")
    pairs = check_files({"train": str(folder / "pairs.csv"), "dev": str(folder / "pairs.csv")}, "pairs")
    assert exit_code([pairs]) == 0 and findings(pairs)["dev_in_train"]["severity"] == "warning"
    with pytest.raises(TrunklineError, match="no file is named"):
        check_files({"train": None}, "ner")
