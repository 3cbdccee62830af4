"""The types of what is decoded."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

Labels = tuple[str, ...]
FloatArray = npt.NDArray[np.floating[Any]]
Transitions = npt.NDArray[np.float32] | None

WordedText = tuple[str, Sequence[tuple[int, int]]]
"""A text and the character offsets of its words."""


@dataclass(frozen=True, slots=True)
class Scored:
    """What a task's head says of texts.

    Attributes:
        probabilities: [units, labels] of each text.
        texts: The texts with their words.
        labels: The head's outputs.
        transitions: [labels + 1, labels], as in `trunkline.model.heads.LinearHead`; None for all zero.
    """

    probabilities: Sequence[FloatArray]
    texts: Sequence[WordedText]
    labels: Labels
    transitions: Transitions = None
