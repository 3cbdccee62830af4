"""The study of few labels: what its table and its measure of calibration say."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from trunkline_lab.few_labels import calibration_error, table


def test_calibration_error_is_the_distance_of_what_is_said_and_what_is_right() -> None:
    right = np.arange(3000) % 4 != 0
    assert calibration_error(np.full(3000, 0.75), right) == pytest.approx(0.0, abs=1e-9)
    assert calibration_error(np.full(3000, 0.95), right) == pytest.approx(0.2)
    assert calibration_error(np.zeros(0), np.zeros(0)) == 0


def test_a_line_has_the_mean_over_draws_and_an_interval_over_tasks() -> None:
    about = {"family": "classification", "kind": "balanced", "size": 8, "method": "head"}
    rest = {"macro_f1": 0.5, "log_loss": 1.0, "calibration_error": 0.1, "processor_seconds": 0.02}
    rows = [about | rest | {"task": task, "accuracy": score} for task, score in (("a", 0.4), ("a", 0.6), ("b", 0.7))]
    line = table(rows).splitlines()[-1]
    assert line == "| classification | balanced | 8 | head | 56.7 | 50.0 to 70.0 | 50.0 | 1.000 | 0.100 | 0.02 |"


def test_the_page_has_the_table_of_the_committed_rows() -> None:
    lab = Path(__file__).parents[1]
    rows = json.loads((lab / "results" / "few-labels" / "results.json").read_text(encoding="utf-8"))["rows"]
    assert table(rows) in (lab / "docs" / "few-labels.md").read_text(encoding="utf-8")
