"""`trunkline check` as a whole: files, exit codes and what is printed."""

from __future__ import annotations

import io
import json
import re
from pathlib import Path

import pytest
from rich.console import Console
from typer.testing import CliRunner

from leaky_splits import findings, write_splits
from trunkline.cli import app
from trunkline.data.checks import check, exit_code
from trunkline.errors import DataError, TrunklineError
from trunkline.ui import print_checks


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return write_splits(tmp_path)


def test_a_leak_is_exit_code_1(folder: Path) -> None:
    report = check({"train": folder / "train.csv", "test": folder / "test.csv"})
    assert exit_code([report]) == 1
    assert findings(report)["test_in_train"]["count"] == 1
    assert (report["name"], report["family"], report["counts"]) == (
        "train.csv",
        "classification",
        {"train": 5, "test": 2},
    )
    assert report["kinds"]["train"] == "a table with 2 columns parted by ',', texts with a label"
    clean = check({"train": folder / "train.csv", "dev": folder / "clean.csv"})
    assert exit_code([clean]) == 0
    assert "dev_in_train" not in findings(clean)
    assert exit_code([clean, report]) == 1
    json.dumps(report, allow_nan=False)


def test_labels_that_train_lacks_in_dev_and_test(folder: Path) -> None:
    (folder / "dev.csv").write_text("text,label\nsomething quite new,c\n")
    found = check({"train": folder / "train.csv", "dev": folder / "dev.csv", "test": folder / "dev.csv"})["findings"]
    unseen = {item["split"]: item["details"]["labels"] for item in found if item["check"] == "unseen_labels"}
    assert unseen == {"dev": ["c"], "test": ["c"]}


def test_what_readers_say_is_a_finding(folder: Path) -> None:
    (folder / "a.jsonl").write_text(
        '{"text": "In Romtown", "entities": [[3, 6, "city"]]}\n{"text": "In Rome", "entities": [[3, 7, "city"]]}\n'
    )
    note = findings(check({"train": folder / "a.jsonl"}))["reading"]
    assert note["severity"] == "warning"
    assert note["message"].startswith("1 of 2 entities do not begin and end where words do")


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("same.csv", "text,label\nAnn runs,x\nBob sits,x\n", "all 2 texts have the label 'x'"),
        ("none.jsonl", '{"text": "Ann runs", "entities": []}\n', "none of the 1 sentences has an entity"),
    ],
)
def test_what_fit_refuses_is_an_error(folder: Path, name: str, content: str, message: str) -> None:
    (folder / name).write_text(content)
    report = check({"train": folder / name})
    finding = findings(report)["not_learnable"]
    assert (finding["severity"], exit_code([report])) == ("error", 1)
    assert finding["message"].startswith(message)
    assert CliRunner().invoke(app, ["check", "--train", str(folder / name)]).exit_code == 1
    held_out = check({"train": folder / "train.csv", "dev": folder / "same.csv"}) if name == "same.csv" else {}
    assert "not_learnable" not in (findings(held_out) if held_out else {})


def test_labels_that_differ_only_in_case_or_blanks(folder: Path) -> None:
    rows = "I paid twice,PAYMENT\nwhere is it,late order\nmy money is gone,payment\nno parcel came,Lateorder\n"
    (folder / "a.csv").write_text(f"text,label\n{rows}that was all,other\n")
    report = check({"train": folder / "a.csv"})
    finding = findings(report)["similar_labels"]
    assert (finding["severity"], finding["count"], exit_code([report])) == ("warning", 4, 0)
    assert "'PAYMENT', 'payment'" in finding["message"] and "'other'" not in finding["message"]
    assert "similar_labels" not in findings(check({"train": folder / "train.csv"}))


def test_refusals(folder: Path) -> None:
    with pytest.raises(TrunklineError, match="no file is named"):
        check({"train": None})
    with pytest.raises(DataError, match="no such file"):
        check({"train": folder / "gone.csv"})
    (folder / "a.conll").write_text("Ann B-per\nruns O\n")
    with pytest.raises(DataError, match="Expected data for classification"):
        check({"train": folder / "train.csv", "dev": folder / "a.conll"})


def test_the_command(folder: Path) -> None:
    run = CliRunner().invoke
    train, test = str(folder / "train.csv"), str(folder / "test.csv")
    leak = run(app, ["check", "--train", train, "--test", test, "--json"])
    assert leak.exit_code == 1
    assert findings(json.loads(leak.stdout))["test_in_train"]["samples"]
    assert run(app, ["check", "--train", train, "--label-column", "label"]).exit_code == 0


def test_printed_reports_fit_and_colour_leaks(folder: Path) -> None:
    stream = io.StringIO()
    leak = check({"train": folder / "train.csv", "test": folder / "test.csv"})
    accepted = {**leak, "findings": [{**item, "waived": "as published"} for item in leak["findings"]]}
    to = Console(file=stream, width=140, color_system="standard", force_terminal=True)
    print_checks({**leak, "findings": [{**leak["findings"][0], "severity": "info"}]}, to=to)
    assert "and 1 note, shown by --full" in stream.getvalue()
    print_checks(leak, full=True, to=to)
    print_checks({**accepted, "name": "accepted", "about": ["a quirk"]}, full=True, to=to)
    plain = re.sub(r"\x1b\[[0-9;]*m", "", stream.getvalue())
    assert max(map(len, plain.splitlines())) <= 100
    assert "test_in_train" in plain and "a quirk" in plain
    assert "waived: as published" in plain
    assert "train.csv  classification" in plain and "accepted  classification" in plain
    assert "\x1b[1;31m  test_in_train" in stream.getvalue()
