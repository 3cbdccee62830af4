"""Numbers on pages are those of committed results, and the files about the project agree with it."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import yaml

import trunkline
from trunkline_lab.readme_picture import PICTURE, RESULTS, draw, figures

ROOT = Path(__file__).resolve().parents[1]
README = (ROOT / "README.md").read_text(encoding="utf-8")


def cells() -> list[dict[str, Any]]:
    files = sorted((ROOT / "lab" / "results" / "paper" / "cells").glob("*.jsonl"))
    return [json.loads(line) for file in files for line in file.read_text(encoding="utf-8").splitlines()]


def mean(rows: list[dict[str, Any]], **wanted: str) -> float:
    """The mean of the main score on test in percent, over tasks and draws."""
    found = [100 * r["test"][r["measure"]] for r in rows if all(r[key] == value for key, value in wanted.items())]
    return round(sum(found) / len(found), 1)


def table(page: str, first: str) -> list[list[str]]:
    """The rows of the table whose first heading is given."""
    text = (ROOT / "docs" / page).read_text(encoding="utf-8")
    found = re.search(rf"^\| {first} \|.*\n\|[-| ]+\n((?:\|.*\n)+)", text, flags=re.M)
    assert found, (page, first)
    return [[cell.strip() for cell in line.strip("|").split("|")] for line in found[1].splitlines()]


def test_the_picture_shows_the_committed_results(tmp_path: Path) -> None:
    measures = figures(json.loads(RESULTS.read_text(encoding="utf-8")))
    draw(measures, tmp_path / "again.svg")
    texts = [re.findall(r"<text.*?>([^<]+)<", path.read_text("utf-8")) for path in (PICTURE, tmp_path / "again.svg")]
    assert texts[0] == texts[1]
    shown = re.search(r"!\[(.*?)\]\(docs/images/", README, flags=re.S)
    assert shown
    for number in (text.strip() for text in texts[0] if text.strip()[0].isdigit()):
        assert re.search(rf"\b{re.escape(number)} (megabytes|milliseconds)", shown[1]), number


def test_the_modes_page_has_the_measured_means() -> None:
    rows = [row for row in cells() if row["budget"] == "10 %"]
    both = {row["task"] for row in rows if row["method"] == "lora"}
    rows = [row for row in rows if row["task"] in both]
    encoders = {"default": "none", "pre-finetuned": "task-primary"}
    found = table("modes.md", "family and encoder")
    assert len(found) == 4
    for name, head, lora, _ in found:
        family, encoder = name.split(", ")
        where = {"family": family.lower(), "encoder": encoders[encoder]}
        assert float(head) == mean(rows, method="head", **where)
        assert float(lora) == mean(rows, method="lora", **where)


def test_the_limits_page_has_the_measured_scores() -> None:
    rows = [row for row in cells() if row["budget"] == "16 a class" and row["method"] == "head"]
    text = (ROOT / "docs" / "limits.md").read_text(encoding="utf-8")
    for name, _, accuracy in table("limits.md", "task"):
        assert float(accuracy) == mean(rows, task=name.split(",")[0], encoder="none")
    for task in ("tweeteval_emotion", "sst2"):
        before, after = (mean(rows, task=task, encoder=encoder) for encoder in ("none", "task-primary"))
        assert f"{before} to {after}" in text


def test_the_citation_is_of_this_version() -> None:
    citation = yaml.safe_load((ROOT / "CITATION.cff").read_text(encoding="utf-8"))
    assert citation["version"] == trunkline.__version__
    assert citation["license"] == "Apache-2.0"
    assert citation["references"][0]["url"] in README
    assert (ROOT / "LICENSE").read_text(encoding="utf-8").lstrip().startswith("Apache License")


def test_the_browser_page_has_the_measured_times() -> None:
    record = json.loads((ROOT / "lab" / "results" / "browser" / "demo.json").read_text(encoding="utf-8"))
    times, rows = record["milliseconds"], table("browser.md", "milliseconds in headless Chromium")
    for (_, *shown), name in zip(rows, ("ready", "keystroke", "fit"), strict=True):
        assert list(map(float, shown)) == [record["aims"][name], times[name], times[f"{name}_best"]]
    page = (ROOT / "docs" / "browser.md").read_text(encoding="utf-8")
    assert f"with other work: {record['load']:g} programs" in page


def test_the_page_of_the_service_has_the_measured_numbers() -> None:
    page = (ROOT / "docs" / "serve.md").read_text(encoding="utf-8")
    names = ("load", "abuse", "soak", "fuzz")
    files = [ROOT / "lab" / "results" / "serve" / f"{name}.json" for name in names]
    load, abuse, soak, fuzz = (json.loads(file.read_text(encoding="utf-8")) for file in files)
    full, crowd, minutes = load["full"], abuse["rows"][0]["answers"], soak["minutes"]
    assert f"{full['requests_per_second']:.0f} requests a second of {full['cpu_ms_per_request']:.1f} ms" in page
    assert f"99 in 100 within {load['at_80_percent']['p99_ms']:.0f} ms" in page
    assert f"{crowd['200']} answered, {crowd['429']:,} told to come later" in page
    assert {row["then"] for row in abuse["rows"]} == {200}
    half, last = (f"{minutes[place]['memory_mb']:.0f} MB after" for place in (14, -1))
    assert f"{half} 15 minutes, {last} {minutes[-1]['minute']}" in page
    assert f"{fuzz['test_cases']['generated']:,} requests made by schemathesis" in page
    assert fuzz["failures"] == fuzz["errors"] == []
