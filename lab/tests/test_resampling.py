"""The bootstrap by products of matrices is the bootstrap by loops, bit for bit, and pairs what it draws."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from trunkline.tasks import FAMILIES
from trunkline.text.examples import NerExample, QaExample, Span, TextExample
from trunkline_lab import resampling
from trunkline_lab.resampling import counts_of, interval, resample, score_of_counts


def by_loops(counts: np.ndarray, score: Callable[[Any], float], resamples: int, drawn: int, entropy: int) -> np.ndarray:
    """The definition: draws of one system after the other."""
    _, seeds, examples, _ = counts.shape
    rows = []
    for system in counts.astype(float):
        rng = np.random.default_rng(entropy)
        values = []
        for _ in range(resamples):
            chosen = rng.integers(seeds, size=drawn)
            items = rng.integers(examples, size=examples)
            values.append(np.mean([score(system[seed][items].sum(axis=0)) for seed in chosen]))
        rows.append(values)
    return np.array(rows).T


@pytest.mark.parametrize(("family", "width"), [("ner", 3), ("classification", 2)])
@pytest.mark.parametrize("drawn", [None, 2])
def test_it_is_the_naive_bootstrap(family: str, width: int, drawn: int | None) -> None:
    counts = np.random.default_rng(3).integers(0, 4, size=(4, 3, 57, width))
    score = score_of_counts(family)
    found = resample(counts, score, resamples=40, drawn_seeds=drawn, entropy=9)
    assert found.shape == (40, 4)
    assert np.array_equal(found, by_loops(counts, score, 40, drawn or 3, 9))


def test_the_size_of_blocks_changes_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    counts = np.random.default_rng(0).integers(0, 3, size=(2, 9, 30, 3))
    score = score_of_counts("ner")
    whole = resample(counts, score, resamples=50)
    monkeypatch.setattr(resampling, "_BLOCK", 7 * 30)
    assert np.array_equal(resample(counts, score, resamples=50), whole)


def test_systems_get_the_same_draws_whether_together_or_alone() -> None:
    counts = np.random.default_rng(0).integers(0, 2, size=(3, 2, 40, 2))
    score = score_of_counts("classification")
    together = resample(counts, score, resamples=30, entropy=4)
    for number in range(3):
        assert np.array_equal(resample(counts[[number]], score, resamples=30, entropy=4)[:, 0], together[:, number])
    assert not np.array_equal(resample(counts, score, resamples=30, entropy=5), together)


def test_one_seed_and_one_example_leave_nothing_to_draw() -> None:
    values = resample([[[[1, 2]]]], score_of_counts("classification"), resamples=5)
    assert values.tolist() == [[0.5]] * 5


ANA = NerExample("Ana met Bo", (), (Span(0, 3, "a"), Span(8, 10, "b")))
HALF = QaExample("who?", "Ana met Bo", ((0, 7),))


@pytest.mark.parametrize(
    ("family", "gold", "predicted", "counts"),
    [
        ("classification", [TextExample("x", c) for c in "ab"], [{"label": "a"}] * 2, [[1, 1], [0, 1]]),
        ("qa", [HALF, HALF], [{"answer": "Ana"}, {"answer": ""}], [[666667, 1], [0, 1]]),
        ("ner", [ANA, ANA], [[{"start": 0, "end": 3, "label": "a"}], []], [[1, 1, 2], [0, 0, 2]]),
    ],
)
def test_counts_give_the_main_score(family: str, gold: list, predicted: list, counts: list) -> None:
    assert counts_of(family, gold, predicted) == counts
    main = FAMILIES[family].score(gold, predicted)[FAMILIES[family].main_score]
    assert score_of_counts(family)(np.sum(counts, axis=0)) == pytest.approx(main, abs=1e-6)


def test_the_interval_holds_95_percent() -> None:
    assert interval(np.linspace(0, 1, 1001)) == pytest.approx([0.025, 0.975])
