"""The conflict report as files and on the screen: all lines are there, tables fit 100 columns, plots are PNGs."""

from __future__ import annotations

import io
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from rich.console import Console

from trunkline_lab.conflict import plots as conflict
from trunkline_lab.conflict.measure import ConflictLog


def rows(rng: np.random.Generator, adapters: bool, pairs: list[list[str]]) -> list[dict[str, Any]]:
    found = []
    for pair in pairs:
        for group in ("embeddings", *(f"layer-{i}" for i in range(6)), "layer-0/attention", "whole"):
            found.append(
                {
                    "adapters": adapters,
                    "families": pair,
                    "group": group,
                    "batches": 8,
                    "cosine": rng.normal(0, 0.1),
                    "cosine_se": 0.02,
                    "conflict": rng.uniform(),
                    "norm_ratio": np.exp(rng.normal()),
                    "log_ratio_se": 0.1,
                    "within": {name: -0.1 if group == "layer-3" else rng.uniform(0.1, 0.4) for name in pair},
                    "within_se": dict.fromkeys(pair, 0.03),
                }
            )
    return found


@pytest.fixture
def folders(tmp_path: Path) -> dict[str, Path]:
    rng = np.random.default_rng(0)
    found = {}
    for name, settings in {"naive": (False,), "task-primary": (True, False)}.items():
        found[name] = tmp_path / name
        found[name].mkdir()
        log = ConflictLog(found[name] / "conflict.jsonl")
        for step in (0, 500, 1000):
            pairs = [["ner", "classification"], ["ner", "qa"]]
            log.write(step, {"rows": [row for setting in settings for row in rows(rng, setting, pairs)]})
    return found


def test_the_report_is_written_as_json_and_plots(folders: dict[str, Path], tmp_path: Path) -> None:
    out = tmp_path / "report"
    report = conflict.conflict_report(folders, out)
    assert sorted(report["plots"]) == sorted(
        f"{what}-ner-{other}.png" for what in ("cosine", "conflict") for other in ("classification", "qa")
    )
    for name in report["plots"]:
        content = (out / name).read_bytes()
        assert content.startswith(b"\x89PNG") and len(content) > 10_000
    assert json.loads((out / "conflict.json").read_text("utf-8")) == report
    assert len(report["lines"]) == 6


@pytest.mark.parametrize("count", [1, 2, 9, 30])
def test_points_of_many_lines_stay_nearest_to_their_own_layer(count: int) -> None:
    from matplotlib.figure import Figure

    lines = [{"run": f"run-{number}", "label": "", "adapters": False} for number in range(count)]
    axes = Figure().add_subplot()
    for number in range(count):
        conflict._layers(axes, ["layer-0", "layer-1"], lines, number, {"layer-0": (0.1, 0.1, 0.1)})
    places = [float(line.get_xdata()[0]) for line in axes.lines]
    assert len(set(places)) == count
    assert max(map(abs, places)) < 0.3


def test_one_moment_has_no_plot_over_time(folders: dict[str, Path], tmp_path: Path) -> None:
    ConflictLog(folders["naive"] / "conflict.jsonl").write(
        0, {"rows": rows(np.random.default_rng(0), False, [["ner", "qa"]])}
    )
    report = conflict.conflict_report({"start": folders["naive"]}, tmp_path / "report")
    assert report["plots"] == ["cosine-ner-qa.png"]


def test_every_line_is_drawn_with_its_points(folders: dict[str, Path]) -> None:
    report = conflict.summarise_conflict(folders)
    lines = [line for line in report["lines"] if line["families"] == ["ner", "qa"]]
    points = conflict._points(lines[0], "corrected", "corrected_se")
    assert "layer-3" not in points and len(points) == 6
    row = lines[0]["groups"]["layer-1"]
    assert points["layer-1"] == (row["corrected"], row["corrected_se"])
    looks = [conflict._look(lines, number) for number in range(3)]
    assert [look["label"] for look in looks] == ["naive", "task-primary", "task-primary, adapters out"]
    assert looks[0]["color"] != looks[1]["color"] == looks[2]["color"]
    assert looks[2]["linestyle"] != looks[1]["linestyle"] == looks[0]["linestyle"] == "-"


def test_the_table_fits_and_says_everything(folders: dict[str, Path], monkeypatch: pytest.MonkeyPatch) -> None:
    stream = io.StringIO()
    monkeypatch.setattr(conflict, "console", Console(file=stream, width=100))
    report = conflict.summarise_conflict(folders)
    conflict.print_conflict(report)
    text = stream.getvalue()
    assert max(map(len, text.split("\n"))) <= 100
    for line in report["lines"]:
        assert line["label"] in text
        assert f"{line['groups']['whole']['cosine']:+.3f}" in text
    assert "mean over 2 measurements to step 1000" in text
    joined = " ".join(text.split())
    assert all(sentence in joined for sentence in report["findings"])
