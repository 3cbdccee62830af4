"""Checks of cards as a whole: files, waivers, missing parts, exit codes and what is printed."""

from __future__ import annotations

import io
import json
import logging
import os
import re
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from leaky_splits import findings, write_splits
from trunkline.data.checks import exit_code
from trunkline.data.overlap import OverlapIndex
from trunkline.errors import DataError, TrunklineError
from trunkline_lab.data import checks
from trunkline_lab.data.cards import load_card
from trunkline_lab.data.checks import check_data, collect_repairs, held_out_texts
from trunkline_lab.ui.data import print_reports


def write_card(folder: Path, name: str = "mine", **changes: Any) -> str:
    card = {
        "name": name, "title": "Mine", "role": "task", "family": "classification", "kind": "text", "reader": "table",
        "home": "https://example.org", "licence": "CC0", "quirks": ["a quirk"],
        "files": {"train": "./train.csv", "test": "./test.csv"}, **changes,
    }  # fmt: skip
    path = folder / f"{name}.yaml"
    path.write_text(json.dumps(card))
    return str(path)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return write_splits(tmp_path)


def test_a_leak_is_exit_code_1_unless_the_card_waives_it(folder: Path) -> None:
    said: list[str] = []
    reports = check_data([write_card(folder)], say=said.append)
    assert exit_code(reports) == 1 and said == ["mine (1 of 1)"]
    assert findings(reports[0])["test_in_train"]["count"] == 1
    assert reports[0]["counts"] == {"train": {"loaded": 5, "expected": None}, "test": {"loaded": 2, "expected": None}}
    assert json.loads(json.dumps(reports)) == json.loads(json.dumps(reports, sort_keys=True))
    waived = check_data([write_card(folder, waive={"test_in_train": "published like this"})])
    assert exit_code(waived) == 0
    assert findings(waived[0])["test_in_train"]["waived"] == "published like this"


def test_counts_are_those_of_the_card_and_of_the_published_files(folder: Path) -> None:
    resplit = {"dev": {"from": "train", "fraction": 0.4, "seed": 1}}
    report = check_data([write_card(folder, resplit=resplit, counts={"train": 3, "dev": 2, "test": 2})])[0]
    assert {split: count["expected"] for split, count in report["counts"].items()} == {"train": 3, "dev": 2, "test": 2}
    assert report["published"] == {"train": 5, "test": 2}
    found = findings(report)
    # The text is in one of the two parts, and always in the whole.
    assert found["test_in_published"]["details"]["same"] == 1 and found["test_in_published"]["severity"] == "warning"
    assert ("test_in_train" in found) or ("test_in_dev" in found)


def test_wrong_counts_and_missing_files(folder: Path) -> None:
    with pytest.raises(DataError, match="5 examples in train"):
        check_data([write_card(folder, counts={"train": 9})])
    with pytest.raises(DataError, match="is not here"):
        check_data([write_card(folder, files={"train": "./train.csv", "test": "./gone.csv"})])
    with pytest.raises(TrunklineError, match="the names of cards, or --all"):
        check_data([])


@pytest.fixture
def package(folder: Path, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Cards as if they came with the package: a good task, one with wrong counts, two in parts, a source."""
    partly = {"train": "./train.csv", "dev": "./clean.csv", "test": "./gone.csv"}
    cards = {
        "good": write_card(folder, "good", files={"train": "./train.csv", "test": "./clean.csv"}),
        "wrong": write_card(folder, "wrong", counts={"test": 9}),
        "partly": write_card(folder, "partly", files=partly),
        "gone": write_card(folder, "gone", files={"train": "./gone.csv"}),
        "source": write_card(folder, "source", role="source", files={"train": "./test.csv"}),
    }
    load = checks.load_card
    monkeypatch.setattr(checks, "list_cards", lambda: list(cards))
    monkeypatch.setattr(checks, "load_card", lambda name: load(cards.get(name, name)))
    return list(cards)


def test_all_cards_turns_what_cannot_be_read_into_findings(package: list[str]) -> None:
    reports = {report["name"]: report for report in check_data([], all_cards=True)}
    assert list(reports) == ["good", "wrong", "partly", "gone"]
    wrong = findings(reports["wrong"])["files"]
    assert wrong["severity"] == "error" and "2 examples in test" in wrong["message"]
    assert list(reports["partly"]["counts"]) == ["train", "dev"]
    assert (
        "not here and so not checked: test; from https://example.org" in findings(reports["partly"])["files"]["message"]
    )
    assert reports["gone"]["counts"] == {} and findings(reports["gone"])["files"]["severity"] == "warning"
    assert exit_code(list(reports.values())) == 1
    assert exit_code([reports["good"], reports["partly"], reports["gone"]]) == 0


def test_sources_are_compared_with_every_task(package: list[str]) -> None:
    said: list[str] = []
    reports = {report["name"]: report for report in check_data([], all_cards=True, sources=True, say=said.append)}
    touched = findings(reports["source"])["touches_tasks"]
    assert (touched["severity"], touched["count"], touched["share"]) == ("warning", 1, 0.5)
    assert touched["details"] == {"by_kind": {"exact": 1}, "by_owner": {"good@test": 1}}
    assert said[:2] == ["indexing the dev and test texts of 3 task cards", "not here and so not compared with: partly"]
    assert any(line.startswith("wrong is left out of the comparison") for line in said)
    assert "touches_tasks" not in findings(check_data(["source"])[0])


def test_other_warnings_stay_on_the_log(caplog: pytest.LogCaptureFixture) -> None:
    logger = logging.getLogger("trunkline.data")
    with collect_repairs() as repairs:
        logger.warning("%s: %d tags broke the rules of %s and were repaired", "x.txt", 3, "BIO")
        logger.warning("something else")
    logger.warning("%s: %d tags broke the rules of %s and were repaired", "y.txt", 1, "BIO")
    assert repairs == {"x.txt": (3, "BIO")}
    assert [record.getMessage()[:9] for record in caplog.records] == ["something", "y.txt: 1 "]


def printed(reports: list[dict[str, Any]], **options: Any) -> str:
    stream = io.StringIO()
    print_reports(
        [checks.shown(one) for one in reports],
        to=Console(file=stream, width=140, color_system="standard", force_terminal=True),
        **options,
    )
    return stream.getvalue()


def test_printed_report_fits_and_colours_leaks(folder: Path, package: list[str]) -> None:
    reports = check_data([], all_cards=True)
    leak = check_data([write_card(folder, "leaky")])
    waived = check_data([write_card(folder, "accepted", waive={"test_in_train": "published like this"})])
    text = printed([*reports, *leak, *waived])
    plain = re.sub(r"\x1b\[[0-9;]*m", "", text)
    assert max(map(len, plain.splitlines())) <= 100
    assert "1 leak: leaky" in plain and "1 leak and are waived: accepted" in plain
    assert "waived: published like this" in plain and "1 cannot be read as they should be: wrong" in plain
    assert "and 1 note" in plain and "label_balance" not in plain
    assert "\x1b[1;31m" in printed(leak) and "\x1b[1;31m" not in printed(waived) and "\x1b[33m" in printed(waived)
    full = printed(leak, full=True)
    assert "label_balance" in full and "normalised:" in full


LEAKS = {
    "banking77": ("test_in_published", "same", 29),
    "snips_intents": ("test_in_train", "long_share", 0.026),
    "conll2003": ("test_in_train", "long_share", 0.015),
    "finer_ord": ("test_in_train", "long_share", 0.05),
    "tweeteval_hate": ("test_in_train", "long_share", 0.083),
}


@pytest.mark.slow
@pytest.mark.skipif("TRUNKLINE_DATA" not in os.environ, reason="needs the real data sets: set TRUNKLINE_DATA")
@pytest.mark.parametrize("name", LEAKS)
def test_the_documented_leaks_are_found(name: str) -> None:
    check, measure, expected = LEAKS[name]
    found = findings(check_data([name])[0])[check]["details"][measure]
    assert found == pytest.approx(expected, abs=0.0005)


HELD_OUT = "please book a table for two at the old mill"


def write_parts(folder: Path, name: str, rows: dict[str, list[str]], resplit: dict[str, object] | None = None) -> str:
    for split, texts in rows.items():
        lines = ["text,label", *(f'"{text}",{"x" if number % 2 else "y"}' for number, text in enumerate(texts))]
        (folder / f"{name}_{split}.csv").write_text("\n".join(lines) + "\n")
    card = {
        "name": name, "title": name, "role": "task", "family": "classification", "kind": "text", "home": "https://x",
        "licence": "CC0", "reader": "table", "files": {split: f"./{name}_{split}.csv" for split in rows},
        "resplit": resplit or {},
    }  # fmt: skip
    path = folder / f"{name}.yaml"
    path.write_text(json.dumps(card))
    return str(path)


def test_held_out_texts_are_of_held_out_splits_only(tmp_path: Path) -> None:
    lines = [f"{word} boats sail on the lake today" for word in ("six", "seven", "eight", "nine", "ten", "twelve")]
    published = write_parts(
        tmp_path, "published", {"train": ["learnt from this text"], "train_5": ["a few of them"], "test": [HELD_OUT]}
    )
    divided = write_parts(tmp_path, "divided", {"train": lines}, {"dev": {"from": "train", "fraction": 0.34}})
    index = OverlapIndex()
    for name in (published, divided):
        index.add(held_out_texts(load_card(name)))
    asked = [HELD_OUT, "learnt from this text", "a few of them", *lines]
    found = [index.find(text, near=False) for text in asked]
    assert [match is not None for match in found[:3]] == [True, False, False]
    assert sum(match is not None for match in found[3:]) == 2
    assert {match.owner for match in found if match} == {"published@test", "divided@dev"}
