"""From the outputs of a head to probabilities and to the best label sequences."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

FloatArray = npt.NDArray[np.float32]
IntArray = npt.NDArray[np.int64]

BLOCK = 2**17
"""Most values of a step of `best_paths`, label pairs times texts: 1 MB, which stays in a core's cache."""


def best_paths(tasks: Sequence[tuple[Sequence[FloatArray], npt.NDArray[Any]]]) -> list[list[IntArray]]:
    """The label sequences with the highest sums of scores and transitions (Viterbi), of many texts and tasks at a time.

    It takes about the time of the longest text alone: time goes by the number of steps, one a unit, not by what is
    computed in one, as long as that is small.

    Args:
        tasks: For each task the scores of its texts, [units, labels], and its transitions, [labels + 1, labels] as in
            `trunkline.heads.linear.LinearHead`; minus infinity forbids.

    Returns:
        For each task the labels of its texts, [units]; of equal sums, the lower label of the last unit at which they
        differ wins.
    """
    paths = [[np.zeros(0, np.int64)] * len(scores) for scores, _ in tasks]
    most = max((transitions.shape[1] for _, transitions in tasks), default=0)
    # Labels that a task does not have are never reached.
    into = np.full((len(tasks), most, most), -np.inf)
    first = np.full((len(tasks), most), -np.inf)
    for number, (_, transitions) in enumerate(tasks):
        count = transitions.shape[1]
        into[number, :count, :count], first[number, :count] = transitions[:-1].T, transitions[-1]
    order = [(number, index) for number, (scores, _) in enumerate(tasks) for index in range(len(scores))]
    order.sort(key=lambda item: -len(tasks[item[0]][0][item[1]]))
    rows = max(1, BLOCK // max(1, most * most))
    for begin in range(0, len(order), rows):
        chosen = order[begin : begin + rows]
        owner = [number for number, _ in chosen] if len(tasks) > 1 else slice(None)
        found = _block_paths([tasks[number][0][index] for number, index in chosen], into[owner], first[owner])
        for (number, index), path in zip(chosen, found, strict=True):
            paths[number][index] = path
    return paths


def _block_paths(scores: Sequence[FloatArray], into: npt.NDArray[Any], first: npt.NDArray[Any]) -> list[IntArray]:
    """`best_paths` of texts that get no longer.

    Args:
        scores: [units, labels] of each text.
        into: [texts, labels, labels before], or one for all texts.
        first: [texts, labels], or one for all texts.
    """
    lengths = np.asarray([len(part) for part in scores])
    longer = np.searchsorted(-lengths, -np.arange(lengths[0] + 1), side="left").tolist()
    labels = into.shape[1]
    # best[unit][text, label]: the highest sum of a sequence up to this unit that ends in this label.
    best = np.zeros((lengths[0], len(scores), labels))
    for row, part in enumerate(scores):
        best[: len(part), row, : part.shape[1]] = part
    best[:1] += first
    reached, top = np.empty((len(scores), labels, labels)), np.empty((len(scores), labels))
    for unit in range(1, lengths[0]):
        rows = longer[unit]
        np.add(best[unit - 1, :rows, None], into[:rows], out=reached[:rows])
        best[unit, :rows] += np.maximum.reduce(reached[:rows], axis=2, out=top[:rows])
    flat = into.reshape(-1, labels)
    offset = np.arange(len(scores)) * (labels if len(into) > 1 else 0)
    path = np.zeros(best.shape[:2], dtype=np.int64)
    for unit in reversed(range(lengths[0])):
        rows, following = longer[unit], longer[unit + 1]
        if following:
            best[unit, :following] += flat[path[unit + 1, :following] + offset[:following]]
        best[unit, :rows].argmax(axis=1, out=path[unit, :rows])
    return [path[:length, row] for row, length in enumerate(lengths)]
