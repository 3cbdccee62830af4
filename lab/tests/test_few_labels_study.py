"""The study of few labels: draws, cells that are run once, and what is measured of an answer."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from trunkline_lab.few_labels import methods
from trunkline_lab.few_labels.draws import Draw, Pool, calibration_error
from trunkline_lab.few_labels.methods import Answer, Options
from trunkline_lab.few_labels.run import Plan, read_all, run

CARD = "sample_triage"


def test_calibration_error_is_the_distance_of_what_is_said_and_what_is_right() -> None:
    right = np.arange(3000) % 4 != 0
    assert calibration_error(np.full(3000, 0.75), right) == pytest.approx(0.0, abs=1e-9)
    assert calibration_error(np.full(3000, 0.95), right) == pytest.approx(0.2)
    assert calibration_error(np.zeros(0), np.zeros(0)) == 0


def test_draws_have_the_same_number_in_all() -> None:
    pool = Pool.of(CARD)
    balanced, natural = (pool.draw(kind, 8, 3) for kind in ("balanced", "natural"))
    assert len(balanced.train) == len(natural.train) == 8 * 8
    assert {sum(e.label == name for e in balanced.train) for name in {e.label for e in pool.pool}} == {8}
    assert pool.draw("natural", 8, 3) == natural != pool.draw("natural", 8, 4)


def test_cells_are_run_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked = []

    def always(found: Sequence[Draw], test: Sequence[Any]) -> Iterator[tuple[Draw, Answer]]:
        for one in found:
            asked.append(one.seed)
            chances = {e.label: 0.5 if e.label == test[0].label else 0.5 / 7 for e in one.train}
            yield one, Answer([{"label": test[0].label, "probabilities": chances}] * len(test), 0.5, 7)

    monkeypatch.setattr(methods, "METHODS", {"always": (("classification",), lambda options: always)})
    monkeypatch.setattr("trunkline_lab.few_labels.run.METHODS", methods.METHODS)
    for seeds in (1, 3):
        run(tmp_path, Plan([CARD], ["always"], ["balanced"], [8], seeds), Options(), lambda line: None)
    run(tmp_path, Plan([CARD], ["always"], ["balanced"], [8], 1, again=True), Options(), lambda line: None)
    assert asked == [0, 1, 2, 0]
    rows = read_all(tmp_path)
    assert [(row["method"], row["seed"], row["examples"], row["bytes"]) for row in rows] == [
        ("always", seed, 64, 7) for seed in (0, 1, 2)
    ]
    test = Pool.of(CARD).test
    share = sum(example.label == test[0].label for example in test) / len(test)
    assert rows[0]["accuracy"] == pytest.approx(share, abs=1e-5)
    assert rows[0]["calibration_error"] == pytest.approx(0.5 - share, abs=0.1)


def test_a_saved_bundle_says_what_is_scored() -> None:
    pool = Pool.of(CARD)
    draws = [pool.draw("balanced", 2, seed) for seed in (0, 1)]
    found = list(methods.ours("head", Options())(draws, pool.test[:5]))
    assert [draw.seed for draw, _ in found] == [0, 1]
    assert {len(answer.predictions) for _, answer in found} == {5}
    assert found[0][1].predictions != found[1][1].predictions
