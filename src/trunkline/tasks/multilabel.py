"""Classification with any number of labels a text, none included: a yes or no for each label."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from trunkline.tasks.classification import (
    Answer,
    Answers,
    Classification,
    Counts,
    FloatArray,
    Labels,
    Scored,
    Scores,
    Words,
)

THRESHOLD = 0.5
"""Probability from which a label is said where the task has no threshold for it."""


class MultiLabel(Classification):
    """A text is one unit; `unit_targets` are 1 for each label that it has, else 0."""

    name = "multilabel"
    main_score = "micro_f1"
    several = True

    def labels(self, examples: Sequence[Any]) -> Labels:
        """The distinct labels, sorted."""
        return tuple(sorted(set().union(*map(self.classes, examples))))

    def classes(self, example: Any) -> set[str]:
        """The labels of the text."""
        return set(example.labels)

    def unit_targets(self, example: Any, labels: Labels, words: Words) -> list[int]:
        """1 for each label that the text has, else 0."""
        return [int(label in example.labels) for label in labels]

    def probabilities(self, logits: FloatArray) -> FloatArray:
        """The logistic function, each label for itself."""
        # Of the half, so that no exponential is too large.
        return np.asarray(0.5 + 0.5 * np.tanh(0.5 * logits), dtype=np.float32)

    def decode(self, tasks: Sequence[Scored]) -> list[list[Any]]:
        """For each task one a text: `labels` from their thresholds on, and all probabilities, both highest first."""
        return [
            [_ranked(part[0], task.labels, task.decisions.get("thresholds", {})) for part in task.probabilities]
            for task in tasks
        ]

    def score(self, gold: Sequence[Any], predicted: Sequence[Any]) -> Scores:
        """Measures of predictions against examples, with the mean average precision of the gold labels."""
        precisions = []
        for label in sorted(set().union(*map(self.classes, gold))):
            chances = [prediction["probabilities"].get(label, 0.0) for prediction in predicted]
            precisions.append(average_precision([label in example.labels for example in gold], chances))
        mean = float(np.mean(precisions)) if precisions else 0.0
        return {**super().score(gold, predicted), "average_precision": mean}

    def measures(self, counts: Counts) -> dict[str, FloatArray]:
        """F1 of all labels together, its mean over labels, and the share of texts of which all labels are right."""
        right, said = counts.right.sum(axis=1), (counts.predicted + counts.gold).sum(axis=1)
        return {
            "micro_f1": 2 * right / np.maximum(said, 1),
            "macro_f1": counts.macro_f1(counts.predicted + counts.gold > 0),
            "exact_match": counts.exact / np.maximum(counts.examples, 1),
        }

    def align(self, example: Any, prediction: Any) -> list[tuple[Answer | None, Answer | None]]:
        """A label stands for itself alone: it is right, missed or spurious, and never taken for another."""
        truth, guess = self.compare(example, prediction)
        return [(one if one in truth else None, one if one in guess else None) for one in sorted(truth | guess)]

    def confidences(self, example: Any, prediction: Any) -> dict[Answer, float]:
        """The labels that were predicted, with their probabilities."""
        return {(label,): prediction["probabilities"][label] for label in prediction["labels"]}

    def likelihood(self, example: Any, prediction: Any) -> float | None:
        """The probability of the labels of the text and no others; None with a label that the task does not know."""
        chances = prediction["probabilities"]
        if not set(example.labels) <= chances.keys():
            return None
        return math.prod(chance if label in example.labels else 1 - chance for label, chance in chances.items())

    def compare(self, example: Any, prediction: Any) -> tuple[Answers, Answers]:
        """The labels, one an answer."""
        truth, guess = (frozenset((label,) for label in own) for own in (example.labels, prediction["labels"]))
        return truth, guess


def average_precision(true: Sequence[bool], scores: Sequence[float]) -> float:
    """Mean precision at each true item, by falling scores, equal ones at once; at least one is true.

    Mean over the true items of the precision among all items of at least their score, as scikit-learn's.
    """
    right, said = np.asarray(true, np.float64), -np.asarray(scores)
    levels, level = np.unique(said, return_inverse=True)
    hits = np.bincount(level, right, minlength=len(levels))
    counts = np.bincount(level, minlength=len(levels))
    return float((hits / hits.sum() * np.cumsum(hits) / np.cumsum(counts)).sum())


def _ranked(chances: FloatArray, labels: Labels, thresholds: Mapping[str, float]) -> dict[str, Any]:
    order = (-chances).argsort(kind="stable").tolist()
    said = [labels[n] for n in order if float(chances[n]) >= thresholds.get(labels[n], THRESHOLD)]
    return {"labels": said, "probabilities": {labels[n]: round(float(chances[n]), 6) for n in order}}
