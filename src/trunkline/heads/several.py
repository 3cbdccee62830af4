"""Heads of tasks in which a unit has any number of labels: a yes or no for each, and the thresholds of what is said.

There is a regression and a discriminant for each label, with one penalty and factors for all. To what is common to all
families, each text and label is a row with the logits of no and of yes.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from trunkline.bundle.parts import Head
from trunkline.errors import TrunklineError
from trunkline.heads.linear import ABSENT, DoubleArray, FloatArray, IntArray, Solution, Units
from trunkline.tasks import Family, Labels, Scored, Scores
from trunkline.tasks.classification import WordedText

STRENGTH = 64
"""True texts that the prior of a label's threshold is worth; chosen on draws of Reuters-21578 and GoEmotions."""


def difference(units: Units, solution: Solution, fold: int) -> Head:
    """A fold's head of one output a label, for raw features: the logit of yes less that of no."""
    problems = units.y.shape[1]
    rows = slice(fold * problems, (fold + 1) * problems)
    weight, bias = (part[rows, 1] - part[rows, 0] for part in (solution.weight, solution.bias))
    return units.head(Solution(weight[None], np.clip(bias, ABSENT, -ABSENT)[None]))


def choices(logits: FloatArray) -> FloatArray:
    """[units, labels] logits of yes -> [units * labels, 2] logits of no and of yes, as of a softmax."""
    half = logits.ravel() / np.float32(2)
    return np.stack([-half, half], axis=1)


def known_targets(trained: npt.NDArray[Any], held_out: npt.NDArray[Any]) -> IntArray:
    """[held-out units * labels] targets, -1 where training units, [units, labels], have only yes or only no."""
    return np.where(trained.min(axis=0) < trained.max(axis=0), held_out, -1).ravel()


def per_text(losses: DoubleArray, known: npt.NDArray[np.bool_], n_labels: int) -> DoubleArray:
    """[texts] sums of losses, which are of the known among [texts * labels]: labels of a text hang together."""
    found = np.zeros(len(known))
    found[known] = losses
    return found.reshape(-1, n_labels).sum(axis=1)


def check_varied(targets: npt.NDArray[Any], first: Sequence[str]) -> None:
    """Raises TrunklineError where all texts, [texts, labels], have the labels of the first: nothing can be learnt."""
    if (targets == targets[:1]).all():
        given = f"all {len(targets)} texts have the labels {', '.join(first)[:200] or 'none'}"
        raise TrunklineError(given, expected="texts with a label and without it", todo="Add texts with other labels")


def best_thresholds(chances: FloatArray, targets: npt.NDArray[Any]) -> FloatArray:
    """[labels] probabilities from which labels are said, by [texts, labels] held-out probabilities and targets.

    Each has the best F1 of its label; as true texts of one are few, all labels together are counted besides, as if they
    were `STRENGTH` more true texts of it. Of thresholds that are equally good, the middle one.
    """
    chances, true = chances.astype(np.float64), targets.astype(bool)
    levels = np.unique(chances)
    grid = np.concatenate([[0.0], (levels[1:] + levels[:-1]) / 2, [1.0]])

    def counts(values: npt.NDArray[Any]) -> DoubleArray:
        return np.asarray(len(values) - np.searchsorted(np.sort(values), grid), np.float64)

    share = STRENGTH / max(true.sum(), 1)
    right_of_all, both_of_all = counts(chances[true]), counts(chances.ravel()) + true.sum()
    found = []
    for own, there in zip(chances.T, true.T, strict=True):
        right, both = counts(own[there]) + share * right_of_all, counts(own) + there.sum() + share * both_of_all
        f1 = 2 * right / np.maximum(both, 1e-9)
        best = np.flatnonzero(f1 >= f1.max() - 1e-12)
        found.append(grid[best[len(best) // 2]])
    return np.asarray(found, np.float32)


def with_thresholds(
    family: Family,
    held_out: Sequence[tuple[Any, WordedText, Any]],
    labels: Labels,
    chances: FloatArray,
    sizes: list[int],
) -> tuple[Scores, list[Any], dict[str, Any]]:
    """Held-out scores and predictions, by held-out probabilities [texts, labels], and thresholds as decisions.

    Each fold is predicted with the thresholds that the other folds ask for, so that scores are not too good. Of each
    held-out text go in its example, the text with its borders and its targets, fold by fold, in folds of these `sizes`.
    """
    targets, fold = np.asarray([own for _, _, own in held_out]), np.repeat(np.arange(len(sizes)), sizes)

    def decisions(rows: npt.NDArray[np.bool_]) -> dict[str, Any]:
        found = best_thresholds(chances[rows], targets[rows])
        return {"thresholds": dict(zip(labels, found.tolist(), strict=True))}

    predictions = list[Any]()
    for number in range(len(sizes)):
        rows = fold == number
        texts = [worded for (_, worded, _), own in zip(held_out, rows, strict=True) if own]
        others = decisions(~rows if len(sizes) > 1 else rows)
        predictions += family.decode([Scored(list(chances[rows][:, None]), texts, labels, None, others)])[0]
    return family.score([example for example, _, _ in held_out], predictions), predictions, decisions(fold >= 0)
