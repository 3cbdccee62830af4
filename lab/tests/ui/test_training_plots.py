"""Plots of a run: which files come of which log, and the arithmetic behind them."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import pytest

from trunkline.errors import TrunklineError
from trunkline.training import write_rows
from trunkline_lab.ui.training_plots import _smooth, plot_run


def log(folder: Path, steps: int, *, sources: int = 3, probes: int = 1) -> Path:
    rows: list[dict[str, Any]] = []
    for step in range(0, steps + 1, 10):
        value = math.exp(-step / 100)
        if step % 50 == 0:
            names = [f"dev/ner/s{number}/recall_at_1" for number in range(sources)]
            rows.append({"step": step, **{n: 1 - value / (i + 1) for i, n in enumerate(names)}})
            rows[-1] |= {"dev/ner/recall_at_1": 1 - value, **{f"probe/p{i}": 0.5 for i in range(probes)}}
        if step:
            more = {"gradient_norm": 3.0, "rate_factor": value, "seconds_per_step": 0.5, "tokens_seen": step * 100.0}
            rows.append({"step": step, "loss/ner": value, "loss/classification": 2.0, **more})
    write_rows(folder / "metrics.jsonl", rows)
    return folder


def size(path: Path) -> tuple[int, int]:
    head = path.read_bytes()[:24]
    assert head[:8] == b"\x89PNG\r\n\x1a\n"
    return int.from_bytes(head[16:20]), int.from_bytes(head[20:24])


def test_a_log_gives_four_plots(tmp_path: Path) -> None:
    found = plot_run(log(tmp_path, 200))
    assert found == [tmp_path / "plots" / f"{name}.png" for name in ("losses", "dev", "probes", "training")]
    assert all(min(size(path)) > 300 for path in found)


@pytest.mark.parametrize("steps", [0, 10])
def test_the_first_steps_of_a_run_can_be_drawn_already(steps: int, tmp_path: Path) -> None:
    names = {path.stem for path in plot_run(log(tmp_path, steps, probes=0))}
    assert names == ({"dev"} if steps == 0 else {"losses", "dev", "training"})


def test_many_sources_and_probes_fit(tmp_path: Path) -> None:
    plots = {path.stem: size(path) for path in plot_run(log(tmp_path, 100, sources=40, probes=7))}
    assert plots["probes"][1] > plots["dev"][1]


def test_values_that_are_not_finite_do_not_stop_the_plots(tmp_path: Path) -> None:
    rows = [{"step": step, "loss/ner": float("nan") if step == 3 else 1.0, "rate_factor": 1.0, "gradient_norm": 1.0}
            for step in range(1, 6)]  # fmt: skip
    write_rows(tmp_path / "metrics.jsonl", rows)
    assert {path.stem for path in plot_run(tmp_path)} == {"losses", "training"}


@pytest.mark.parametrize("content", [None, "", json.dumps({"step": 1, "other": 2}) + "\n"])
def test_a_folder_without_a_log_is_an_error_that_says_so(content: str | None, tmp_path: Path) -> None:
    if content is not None:
        (tmp_path / "metrics.jsonl").write_text(content)
    with pytest.raises(TrunklineError, match=r"metrics\.jsonl has nothing to draw"):
        plot_run(tmp_path)


def test_smoothing_keeps_constants_and_lies_between_its_neighbours() -> None:
    assert _smooth([2.0] * 50) == pytest.approx([2.0] * 50)
    assert _smooth([1.0]) == [1.0]
    line = [float(number) for number in range(500)]
    smooth = _smooth(line)
    assert smooth[100:400] == pytest.approx(line[100:400]), "no lag in the middle"
    spike = _smooth([0.0] * 100 + [1.0] + [0.0] * 100)
    assert max(spike) == spike[100] < 0.5
    assert sum(spike) == pytest.approx(1.0, rel=1e-3)
