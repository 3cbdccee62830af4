"""What families of tasks have in common: labels, words, scores, and what a head says of texts."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

Labels = tuple[str, ...]
Scores = dict[str, float]
FloatArray = npt.NDArray[np.floating[Any]]
Transitions = npt.NDArray[np.float32] | None

Words = Sequence[tuple[int, int]]
"""Character offsets of the words of a text, or of finer units, end exclusive, in order and without overlap."""

Answers = frozenset[tuple[Any, ...]]
"""What an example or a prediction says, one tuple an answer, its last item the label."""

WordedText = tuple[str, Words]


@dataclass(frozen=True, slots=True)
class Scored:
    """What a task's head says of texts: [units, labels] of each text, and the texts with their words.

    `transitions` is [labels + 1, labels], as in `trunkline.bundle.parts.Head`; None for all zero.
    """

    probabilities: Sequence[FloatArray]
    texts: Sequence[WordedText]
    labels: Labels
    transitions: Transitions = None
