"""Text classification, where a text is one unit with one label: the simplest family, from which others are made."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from trunkline.errors import MismatchError
from trunkline.text.tokens import TextTokenizer, Tokens, UnitText, text_unit

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


class Classification:
    """The family of texts with one label each; other families replace what differs. It holds no state.

    Attributes:
        name: In task files and commands.
        main_score: The score by which settings are chosen.
        shares_trunk: Whether texts run through the trunk once for all families; not where `units` cuts windows anew.
        readable: The labels that `decode` can read.
    """

    name = "classification"
    main_score = "accuracy"
    shares_trunk = True
    readable = "at least one"

    def choose_units(self, examples: Sequence[Any], tokenizer: TextTokenizer) -> str:
        """What gets a label in a task of these examples: the text; in other families `words`, `pieces`, `question`."""
        return "text"

    def unheld(self, examples: Sequence[Any], borders: Sequence[Words]) -> list[str]:
        """Labelled spans that no prediction can hit, as their borders are not those of units; here none."""
        return []

    def units(self, tokens: Tokens, words: Words) -> UnitText:
        """What gets a feature vector and a label in a tokenised text: the text as one unit."""
        return text_unit(tokens)

    def labels(self, examples: Sequence[Any]) -> Labels:
        """The outputs of a head for these examples, in a fixed order: the distinct labels, sorted."""
        return tuple(sorted({example.label for example in examples}))

    def check_labels(self, labels: Labels, where: str) -> None:
        """Raises MismatchError unless `decode` can read these labels; `where` says whose they are."""
        wrong = self.unreadable(labels)
        if wrong or not labels:
            given = f"the labels {', '.join(wrong)[:60]}" if wrong else "no labels"
            raise MismatchError(f"{where} has {given}", expected=self.readable, todo="Fit the task again")

    def unreadable(self, labels: Labels) -> list[str]:
        """Those of the labels that are not `readable`, or all of them where some are missing."""
        return []

    def classes(self, example: Any) -> set[str]:
        """The classes that an example gives evidence of, for drawing few examples of each and for folds: its label."""
        return {example.label}

    def unit_targets(self, example: Any, labels: Labels, words: Words) -> list[int]:
        """The index into `labels` of each unit; -1 for a label that the head does not have. `words` as for `units`."""
        return [labels.index(example.label) if example.label in labels else -1]

    def transitions(self, targets: Sequence[Sequence[int]], labels: Labels) -> Transitions:
        """What labels of neighbouring units are worth to each other, by training targets; here nothing."""
        return None

    def label_covariance(self, labels: Labels) -> Transitions:
        """[labels, labels], positive definite, mean variance 1: what labels' weights share unlearnt; here nothing."""
        return None

    def decode(self, tasks: Sequence[Scored]) -> list[list[Any]]:
        """For each task one a text, as plain data: label, score, and all labels' probabilities, highest first."""
        return [[_ranked(part[0], task.labels) for part in task.probabilities] for task in tasks]

    def score(self, gold: Sequence[Any], predicted: Sequence[Any]) -> Scores:
        """Measures of predictions against examples: accuracy, and F1 averaged over the classes of the gold labels."""
        pairs = [(example.label, prediction["label"]) for example, prediction in zip(gold, predicted, strict=True)]
        found = []
        for label in sorted({truth for truth, _ in pairs}):
            right = sum(truth == guess == label for truth, guess in pairs)
            found.append(2 * right / sum((truth == label) + (guess == label) for truth, guess in pairs))
        accuracy = sum(truth == guess for truth, guess in pairs) / max(len(pairs), 1)
        return {"accuracy": accuracy, "macro_f1": float(np.mean(found)) if found else 0.0}

    def compare(self, example: Any, prediction: Any) -> tuple[Answers, Answers]:
        """What is true and what was predicted of an example; equal where the prediction is right."""
        return frozenset({(example.label,)}), frozenset({(prediction["label"],)})


def softmax(logits: FloatArray) -> FloatArray:
    """[units, labels] outputs of a head of any family -> probabilities in float32, each unit for itself."""
    exponents = np.exp(logits - logits.max(axis=1, keepdims=True))
    return np.asarray(exponents / exponents.sum(axis=1, keepdims=True), dtype=np.float32)


def _ranked(probabilities: FloatArray, labels: Labels) -> dict[str, Any]:
    order = (-probabilities).argsort(kind="stable")
    rows = zip(order.tolist(), probabilities[order].tolist(), strict=True)
    ranked = {labels[i]: round(probability, 6) for i, probability in rows}
    best = labels[order[0]]
    return {"label": best, "score": ranked[best], "probabilities": ranked}
