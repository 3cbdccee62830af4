"""The bootstrap that intervals and comparisons come from: seeds and test examples drawn anew, a score of each draw."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from trunkline.tasks import FAMILIES

FloatArray = npt.NDArray[np.floating[Any]]

RESAMPLES = 2000
_BLOCK = 2**22
"""Weights held at once."""

_PARTS = {"classification": 1, "qa": 1_000_000}
"""The parts of a score of one example, in which it is counted, where the score is the mean over examples."""


def counts_of(family: str, gold: Sequence[Any], predicted: Sequence[Any]) -> list[list[int]]:
    """For each example whole numbers whose sum gives the family's main score, so that it can be resampled.

    [entities that are right, predicted entities, gold entities], or [parts of the example's score, 1].
    """
    kind, pairs = FAMILIES[family], list(zip(gold, predicted, strict=True))
    if family in _PARTS:
        return [[round(_PARTS[family] * kind.score([g], [p])[kind.main_score]), 1] for g, p in pairs]
    answers = [kind.compare(*pair) for pair in pairs]
    return [[len(truth & guess), len(guess), len(truth)] for truth, guess in answers]


def score_of_counts(family: str) -> Callable[[FloatArray], float]:
    """What makes a family's main score of a sum of rows of `counts_of`."""
    if family in _PARTS:
        return lambda total: float(total[0] / max(total[1], 1) / _PARTS[family])
    return lambda total: float(2 * total[0] / max(total[1] + total[2], 1))


def resample(
    counts: npt.ArrayLike,
    score: Callable[[FloatArray], float],
    *,
    resamples: int = RESAMPLES,
    drawn_seeds: int | None = None,
    entropy: int = 0,
) -> FloatArray:
    """Bootstraps the mean score over seeds of systems that were run with the same seeds on the same test examples.

    In each resample seeds are drawn with replacement, then test examples, the same ones for all systems and all seeds,
    because they were scored on one test set. So differences between columns of the result are paired (Efron &
    Tibshirani 1993, chapter 8; for scores of texts Koehn 2004). A drawn test set is a vector of how often each example
    was drawn, so that all totals are one product of matrices, exact while they stay below 2**53.

    Args:
        counts: [systems, seeds, examples, counts] the whole numbers whose sum over examples gives a score; none of
            these is 0.
        score: The score of a summed row, `score_of_counts`.
        resamples: How many.
        drawn_seeds: Seeds drawn in a resample; as many as there are by default.
        entropy: Starts the random numbers; the same entropy, number of seeds and examples give the same draws.

    Returns:
        [resamples, systems] in the units of `score`.
    """
    given = np.asarray(counts, dtype=np.float64)
    systems, seeds, examples, width = given.shape
    flat = np.ascontiguousarray(given.transpose(2, 0, 1, 3).reshape(examples, -1))
    rng = np.random.default_rng(entropy)
    values = np.empty((resamples, systems))
    size = max(1, min(resamples, _BLOCK // examples))
    weights = np.empty((size, examples))
    chosen = np.empty((size, 1, seeds if drawn_seeds is None else drawn_seeds), dtype=np.int64)
    for begin in range(0, resamples, size):
        rows = min(size, resamples - begin)
        for row in range(rows):
            chosen[row, 0] = rng.integers(seeds, size=chosen.shape[2])
            weights[row] = np.bincount(rng.integers(examples, size=examples), minlength=examples)
        totals = (weights[:rows] @ flat).reshape(-1, width)
        scores = np.array([score(total) for total in totals]).reshape(rows, systems, seeds)
        # Laid out anew, so that the mean adds the seeds of a row in the same order whatever the number of systems.
        drawn = np.ascontiguousarray(np.take_along_axis(scores, chosen[:rows], axis=2))
        values[begin : begin + rows] = drawn.mean(axis=2)
    return values


def interval(values: FloatArray) -> list[float]:
    """The percentile interval of 95 % of resampled values."""
    return [float(x) for x in np.quantile(values, (0.025, 0.975))]
