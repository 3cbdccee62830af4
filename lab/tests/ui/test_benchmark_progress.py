"""What a benchmark shows while it runs: a line a cell, with the time left."""

from __future__ import annotations

import io
from pathlib import Path

import pytest
from rich.console import Console

from trunkline_lab.benchmark.results import Result
from trunkline_lab.benchmark.run import Status, Summary
from trunkline_lab.ui import benchmark as shown


def result_of(seed: int, error: str = "") -> Result:
    test = {} if error else {"f1": 0.4567}
    return Result(
        f"k{seed}", "wnut17", "ner", "f1", "naive", "head", "10 %", seed, test=test, seconds=1.25, error=error
    )


@pytest.mark.parametrize(
    ("seconds", "words"),
    [(0, "0 s"), (59.4, "59 s"), (60, "1 min 0 s"), (200, "3 min 20 s"), (3600, "1 h 0 min"), (7530, "2 h 5 min")],
)
def test_durations(seconds: float, words: str) -> None:
    assert shown.duration(seconds) == words


def test_a_line_a_cell_is_shown() -> None:
    stream = io.StringIO()
    watch = shown.benchmark_progress(Console(file=stream, width=60))
    watch(Status(3, 1, 0, 61.0, result_of(0)))
    watch(Status(3, 1, 1, 5.0, result_of(1, "DataError: no [such] file")))
    watch(Status(3, 2, 1, 0.0, result_of(2)))
    assert stream.getvalue().splitlines() == [
        "[1 of 3, 1 min 1 s left] wnut17, naive, head, 10 %, seed 0: f1 45.7 in 1.2 s",
        "[2 of 3, 5 s left] wnut17, naive, head, 10 %, seed 1: DataError: no [such] file",
        "[3 of 3] wnut17, naive, head, 10 %, seed 2: f1 45.7 in 1.2 s",
    ]


def test_the_summary_names_failures_and_what_to_do(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    stream = io.StringIO()
    monkeypatch.setattr(shown, "console", Console(file=stream, width=200))
    shown.print_summary(Summary(tmp_path, [result_of(0), result_of(1, "DataError: gone")], ran=1))
    text = stream.getvalue()
    assert "1 of 2 cells are done, 1 were run now" in text
    assert "wnut17, naive, head, 10 %, seed 1: DataError: gone" in text
    assert f"trunkline-lab benchmark report {tmp_path}" in text


def test_cells_are_tabulated_with_their_sum(monkeypatch: pytest.MonkeyPatch) -> None:
    stream = io.StringIO()
    monkeypatch.setattr(shown, "console", Console(file=stream, width=90))
    rows = [{"task": name, "method": "head", "cells": 9, "done": 4, "failed": 1} for name in ("wnut17", "trec")]
    shown.print_cells(rows)
    assert stream.getvalue().splitlines()[-1].split() == ["all", "18", "8", "2"]
