"""`evaluate` and `fit` in the terminal, as JSON and as a page."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

import trunkline
from test_results_schema import check
from trunkline.cli import app
from trunkline.errors import TrunklineError

ROWS = "text,label\n" + "".join(
    f"{text} {n},{label}\n"
    for n in range(6)
    for text, label in (("where is my parcel", "delivery"), ("pay me", "refund"))
)
NAMES = [
    ("Call Ana on Monday", [(5, 8, "person"), (12, 18, "date")]),
    ("Meet Tom on Friday", [(5, 8, "person")]),
    ("Ask Eva on Sunday", [(4, 7, "person"), (11, 17, "date")]),
    ("Nothing [red]\x1b[31m here", []),
] * 3


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A bundle with the tasks `intent`, `worse` and `names`, and its data; treat it as read-only."""
    folder = tmp_path_factory.mktemp("evaluated")
    (folder / "data.csv").write_text(ROWS, encoding="utf-8")
    lines = [json.dumps({"text": f"{text} {n}", "entities": own}) for n, (text, own) in enumerate(NAMES)]
    (folder / "names.jsonl").write_text("\n".join(lines), encoding="utf-8")
    model = trunkline.load()
    texts, labels = zip(*(row.rsplit(",", 1) for row in ROWS.splitlines()[1:]), strict=True)
    model.fit("intent", texts, labels)
    model.fit("worse", texts, [*labels[:8], *labels[:-5:-1]])
    model.fit("names", [text for text, _ in NAMES], [own for _, own in NAMES])
    model.save(folder / "bot")
    return folder


def run(*words: object) -> Any:
    return CliRunner().invoke(app, [str(word) for word in words], catch_exceptions=False)


def test_a_comparison_is_printed_given_as_json_and_shown(bundle: Path, tmp_path: Path) -> None:
    words = ("evaluate", bundle / "bot", "--task", "intent", "--data", bundle / "data.csv")
    shown = run(*words, "--against-task", "worse")
    assert shown.exit_code == 0
    assert "intent of bot" in shown.stdout
    page = tmp_path / "report.html"
    result = run(*words, "--against", bundle / "bot", "--against-task", "worse", "--html", page, "--json")
    record = json.loads(result.stdout)
    check(record, "evaluation")
    assert record["comparison"]["second"] == {"bundle": "bot", "task": "worse"}
    row = record["comparison"]["measures"]["accuracy"]
    assert row["difference"] == row["first"] - row["second"] >= 0
    content = page.read_text(encoding="utf-8")
    assert "intent of bot" in content
    assert "worse of bot" in content
    with pytest.raises(TrunklineError, match=r"is there.*add --replace"):
        run(*words, "--html", page)
    assert run(*words, "--html", page, "--replace").exit_code == 0
    assert "worse of bot" not in page.read_text(encoding="utf-8")


def test_entities_are_marked_in_their_texts_and_nothing_controls_the_terminal(bundle: Path, tmp_path: Path) -> None:
    data = tmp_path / "other.jsonl"
    rows = [
        {"text": "Call Ana\x1b[31m on Monday [red]", "entities": [[0, 4, "perso[n]"], [5, 8, "person"]]},
        {"text": "Ask Eva", "entities": []},
    ]
    data.write_text("\n".join(map(json.dumps, rows)), encoding="utf-8")
    shown = run("evaluate", bundle / "bot", "--task", "names", "--data", data)
    assert shown.exit_code == 0
    assert "[perso[n]: Call] [person: Ana]\ufffd[31m on Monday [red]" in shown.stdout
    assert "\x1b" not in shown.stdout
    assert "1 x 'perso[n]' missed" in shown.stdout
    assert "missed 1" in shown.stdout


def test_what_cannot_be_compared_is_refused(bundle: Path) -> None:
    words = ("evaluate", bundle / "bot", "--task", "intent", "--data", bundle / "data.csv")
    for more, said in (
        (("--against-task", "names"), "names is a task of ner. Expected classification"),
        (("--against-task", "nmaes"), "nmaes"),
        (("--html", bundle), "is there"),
    ):
        with pytest.raises(TrunklineError, match=said):
            run(*words, *more)


def test_a_fit_is_shown_with_its_curve(bundle: Path, tmp_path: Path) -> None:
    page = tmp_path / "fit.html"
    found = run("fit", "intent", "--train", bundle / "data.csv", "--out", tmp_path / "b", "--html", page, "--json")
    check(json.loads(found.stdout), "fit")
    content = page.read_text(encoding="utf-8")
    assert "intent of b" in content
    assert "accuracy by number of examples: 8 examples" in content
    assert "held-out folds of 5, 12 examples" in content
