"""Text classification: a text is one unit with one label."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from trunkline.errors import MismatchError
from trunkline.tasks.base import Answers, Family, FloatArray, Labels, Scored, Scores, Words
from trunkline.text.examples import TextExample
from trunkline.text.tokens import TextTokenizer, Tokens, UnitText, text_unit


class Classification(Family):
    """See `trunkline.tasks.base.Family`."""

    name = "classification"
    main_score = "accuracy"

    def choose_units(self, examples: Sequence[TextExample], tokenizer: TextTokenizer) -> str:
        """The text."""
        return "text"

    def unheld(self, examples: Sequence[TextExample], borders: Sequence[Words]) -> list[str]:
        """None."""
        return []

    def units(self, text: str, words: Words, tokens: Tokens) -> UnitText:
        """The text as one unit."""
        return text_unit(tokens)

    def labels(self, examples: Sequence[TextExample]) -> Labels:
        """The distinct labels, sorted."""
        return tuple(sorted({example.label for example in examples}))

    def check_labels(self, labels: Labels, where: str) -> None:
        """At least one label."""
        if not labels:
            raise MismatchError(f"{where} has no labels", expected="at least one", todo="Fit the task again")

    def classes(self, example: TextExample) -> set[str]:
        """The label."""
        return {example.label}

    def unit_targets(self, example: TextExample, labels: Labels, words: Words) -> list[int]:
        """The label's index, -1 if the head does not have it."""
        return [labels.index(example.label) if example.label in labels else -1]

    def transitions(self, targets: Sequence[Sequence[int]], labels: Labels) -> None:
        """None, as a text has no neighbour."""

    def label_covariance(self, labels: Labels) -> None:
        """None."""

    def decode(self, tasks: Sequence[Scored]) -> list[list[dict[str, Any]]]:
        """The most probable label, its score, and the probability of every label, most probable first."""
        return [[_ranked(part[0], task.labels) for part in task.probabilities] for task in tasks]

    def score(self, gold: Sequence[TextExample], predicted: Sequence[dict[str, Any]]) -> Scores:
        """Accuracy, and F1 averaged over the classes of the gold labels."""
        pairs = [(example.label, prediction["label"]) for example, prediction in zip(gold, predicted, strict=True)]
        found = []
        for label in sorted({truth for truth, _ in pairs}):
            right = sum(truth == guess == label for truth, guess in pairs)
            found.append(2 * right / sum((truth == label) + (guess == label) for truth, guess in pairs))
        accuracy = sum(truth == guess for truth, guess in pairs) / max(len(pairs), 1)
        return {"accuracy": accuracy, "macro_f1": float(np.mean(found)) if found else 0.0}

    def counts(self, gold: Sequence[TextExample], predicted: Sequence[dict[str, Any]]) -> list[list[int]]:
        """[hit, 1] for each text."""
        return [[int(g.label == p["label"]), 1] for g, p in zip(gold, predicted, strict=True)]

    def compare(self, example: TextExample, prediction: dict[str, Any]) -> tuple[Answers, Answers]:
        """The labels."""
        return frozenset({(example.label,)}), frozenset({(prediction["label"],)})

    def score_of_counts(self, total: FloatArray) -> float:
        """Accuracy."""
        return float(total[0] / max(total[1], 1))


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
