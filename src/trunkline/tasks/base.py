"""What a family of tasks is: how a text becomes units with labels, how predictions are decoded, how they are scored."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from trunkline.text.tokens import TextTokenizer, Tokens, UnitText

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


class Family(Protocol):
    """A family of tasks. Implementations hold no state.

    Attributes:
        name: In task files and commands.
        main_score: The score by which settings are chosen.
        own_windows: Whether `units` puts the tokens into windows anew, so that such texts share no trunk with others.
    """

    name: str
    main_score: str
    own_windows: bool = False

    def choose_units(self, examples: Sequence[Any], tokenizer: TextTokenizer) -> str:
        """What gets a label in a task of these examples: `words`, `pieces`, the `text`, or words of a `question`."""
        ...

    def unheld(self, examples: Sequence[Any], borders: Sequence[Words]) -> list[str]:
        """Labelled spans that no prediction can hit, as their borders are not those of units: `'Rom' in 'Romtown'`."""
        return []

    def units(self, text: str, words: Words, tokens: Tokens) -> UnitText:
        """The units of a tokenised text: what gets a feature vector and a label."""
        ...

    def labels(self, examples: Sequence[Any]) -> Labels:
        """The outputs of a head for these examples, in a fixed order."""
        ...

    def check_labels(self, labels: Labels, where: str) -> None:
        """Raises MismatchError unless `decode` can read these labels; `where` says whose they are."""
        ...

    def classes(self, example: Any) -> set[str]:
        """The classes that an example gives evidence of, for drawing few examples of each and for folds."""
        ...

    def unit_targets(self, example: Any, labels: Labels, words: Words) -> list[int]:
        """The index into `labels` of each unit; -1 for a label that the head does not have. `words` as for `units`."""
        ...

    def transitions(self, targets: Sequence[Sequence[int]], labels: Labels) -> Transitions:
        """What the labels of neighbouring units are worth to each other, by training targets; None where nothing."""
        return None

    def label_covariance(self, labels: Labels) -> npt.NDArray[np.float32] | None:
        """[labels, labels] how much the weights of labels have in common before any is learnt.

        Mean variance 1, positive definite; None where labels have nothing in common.
        """
        return None

    def decode(self, tasks: Sequence[Scored]) -> list[list[Any]]:
        """Predictions as plain data: for each task one a text."""
        ...

    def score(self, gold: Sequence[Any], predicted: Sequence[Any]) -> Scores:
        """Measures of predictions against examples, each in [0, 1]; `main_score` is among them."""
        ...

    def counts(self, gold: Sequence[Any], predicted: Sequence[Any]) -> list[list[int]]:
        """For each example the counts whose sum gives the main score, so that it can be resampled."""
        ...

    def compare(self, example: Any, prediction: Any) -> tuple[Answers, Answers]:
        """What is true and what was predicted of an example; equal where the prediction is right."""
        ...

    def score_of_counts(self, total: FloatArray) -> float:
        """The main score from summed counts."""
        ...
