"""Fitting a head that wastes no label: settings by cross-validation inside the labels, then a fit on all of them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt

from trunkline.bundle.parts import Head, as_stored
from trunkline.heads.folds import stratified_folds
from trunkline.heads.linear import LinearHead, head_path
from trunkline.tasks.base import Family, Labels, Scored, Scores, Transitions, WordedText
from trunkline.tasks.paths import softmax

FloatArray = npt.NDArray[np.float32]
IntArray = npt.NDArray[np.int64]

PENALTIES = (0.0003, 0.001, 0.003, 0.01, 0.03, 0.1, 0.3, 1.0)
"""scikit-learn's C, from strong to weak."""

TRANSITION_WEIGHTS = (0.0, 0.5, 0.75, 1.0)
"""Of learnt transitions; 1 would be right if features told nothing of a unit's neighbours."""

FOLDS = 5
_TEMPERATURES = np.exp(np.linspace(np.log(0.25), np.log(4.0), 81))
_ALWAYS_TRAINED = -1
_PATIENCE = 2
"""Penalties in a row that may be worse than the best before weaker ones are not tried."""


@dataclass(frozen=True, slots=True)
class LabelledFeatures:
    """The examples of a task with what an engine made of them.

    Attributes:
        examples: As the family takes them.
        texts: Their texts with the borders of their units.
        features: [units, hidden] of each.
        targets: The index into the labels of each unit of each; -1 is left out.
    """

    examples: Sequence[Any]
    texts: Sequence[WordedText]
    features: Sequence[FloatArray]
    targets: Sequence[Sequence[int]]


@dataclass(frozen=True, slots=True)
class FittedHead:
    """A head, how its settings were chosen, and what it says of held-out folds.

    Attributes:
        head: In the values that its file holds.
        penalty: scikit-learn's C.
        temperature: What logits were divided by; the head has it in already.
        log_loss: Mean over held-out units, in nats, after division by the temperature.
        scores: The family's scores of held-out predictions.
        predictions: The held-out prediction for each example; None for what is trained on only.
    """

    head: Head
    penalty: float
    temperature: float
    log_loss: float
    scores: Scores
    predictions: Sequence[Any]

    def record(self) -> dict[str, Any]:
        """Plain data for a task file and for people."""
        return {
            "penalty": self.penalty,
            "temperature": round(self.temperature, 4),
            "log_loss": round(self.log_loss, 6),
            "scores": {name: round(value, 6) for name, value in self.scores.items()},
        }


def fit_head(
    family: Family,
    data: LabelledFeatures,
    labels: Labels,
    *,
    n_dev: int = 0,
    penalties: Sequence[float] = PENALTIES,
    seed: int = 0,
) -> FittedHead:
    """Fits a head on all examples; penalty, temperature and transitions are chosen by cross-validation among them.

    Where there is a dev part, they are chosen on it instead, and it is not trained on, so that its scores are honest.

    The penalty has the least mean log loss on held-out units, the temperature too (Guo et al. 2017, section 4.2), the
    weight of the transitions the best main score. Deterministic.

    Args:
        family: Of the task.
        data: All labelled examples, those of dev last; at least two with different texts.
        labels: The head's outputs.
        n_dev: Examples of dev.
        penalties: Candidates.
        seed: Of the folds.
    """
    n_train = len(data.examples) - n_dev
    if n_dev:
        fold = np.repeat([_ALWAYS_TRAINED, 0], [n_train, n_dev])
    else:
        classes = [family.classes(example) for example in data.examples]
        fold = stratified_folds([text for text, _ in data.texts], classes, FOLDS, seed)
    x = np.concatenate(list(data.features))
    y = np.concatenate([np.asarray(row, np.int64) for row in data.targets])
    of_unit = np.repeat(fold, [len(row) for row in data.targets])
    penalty, logits = _best_penalty(x, y, of_unit, len(labels), sorted(penalties))
    judged = _judged(y, of_unit, len(labels))
    temperature, log_loss = best_temperature(logits[judged], y[judged])
    trained = of_unit == _ALWAYS_TRAINED if n_dev else np.ones(len(y), dtype=bool)
    final = next(iter(head_path(x[trained], y[trained], len(labels), (penalty,))))
    scaled = Head(
        np.ascontiguousarray(final.weight.T / np.float32(temperature)), final.bias / np.float32(temperature)
    )
    ends = np.cumsum([len(row) for row in data.targets])[:-1]
    probabilities = [softmax(part / np.float32(temperature)) for part in np.split(logits, ends)]
    weight, predictions = _best_transitions(family, data, labels, fold, probabilities)
    learned = family.transitions(data.targets[:n_train], labels)
    head = replace(scaled, transitions=_weighted(learned, weight))
    held_out = [number for number in range(len(fold)) if fold[number] != _ALWAYS_TRAINED]
    scores = family.score([data.examples[i] for i in held_out], [predictions[i] for i in held_out])
    return FittedHead(as_stored(head), penalty, temperature, log_loss, scores, predictions)


def best_temperature(logits: FloatArray, targets: IntArray) -> tuple[float, float]:
    """The divisor of logits [units, labels] with the least mean log loss, 0.25 to 4, and that loss in nats."""
    if not len(targets):
        return 1.0, 0.0
    losses = [_log_loss(logits / np.float32(t), targets) for t in _TEMPERATURES]
    best = int(np.argmin(losses))
    return float(_TEMPERATURES[best]), float(losses[best])


def _best_penalty(
    x: FloatArray, y: IntArray, fold: IntArray, n_labels: int, penalties: Sequence[float]
) -> tuple[float, FloatArray]:
    """The penalty with the least held-out log loss, the stronger one of equals, and its held-out logits."""
    parts = [number for number in np.unique(fold) if number != _ALWAYS_TRAINED and (fold != number).any()]
    paths = [head_path(x[fold != number], y[fold != number], n_labels, penalties) for number in parts]
    judged = _judged(y, fold, n_labels)
    best, least, worse = penalties[0], np.inf, 0
    kept = np.zeros((len(x), n_labels), np.float32)
    for penalty in penalties:
        logits = np.zeros((len(x), n_labels), np.float32)
        for number, path in zip(parts, paths, strict=True):
            head: LinearHead = next(path)
            logits[fold == number] = x[fold == number] @ head.weight.T + head.bias
        loss = _log_loss(logits[judged], y[judged]) if judged.any() else 0.0
        if loss < least - 1e-6:
            best, least, worse, kept = penalty, loss, 0, logits
        else:
            worse += 1
        if worse >= _PATIENCE:
            break
    return best, kept


def _judged(y: IntArray, fold: IntArray, n_labels: int) -> npt.NDArray[np.bool_]:
    """Units whose label other folds have, too: what a head never saw, it cannot be asked for."""
    known = np.zeros(len(y), dtype=bool)
    for number in np.unique(fold[fold != _ALWAYS_TRAINED]):
        seen = np.zeros(n_labels + 1, dtype=bool)
        seen[y[fold != number]] = True
        seen[-1] = False
        known[fold == number] = seen[y[fold == number]]
    return known


def _log_loss(logits: FloatArray, y: IntArray) -> float:
    top = logits.max(axis=1)
    sums = np.log(np.exp(logits - top[:, None]).sum(axis=1, dtype=np.float64)) + top
    return float(np.mean(sums - logits[np.arange(len(y)), y]))


def _best_transitions(
    family: Family, data: LabelledFeatures, labels: Labels, fold: IntArray, probabilities: Sequence[FloatArray]
) -> tuple[float, list[Any]]:
    """The weight of transitions with the best held-out main score, the lower one of equals, and the predictions."""
    found: list[tuple[float, float, list[Any]]] = []
    learned: dict[int, Transitions] = {}
    for number in np.unique(fold[fold != _ALWAYS_TRAINED]).tolist():
        rows = [row for row, own in zip(data.targets, fold, strict=True) if own != number]
        learned[number] = family.transitions(rows or data.targets, labels)
    weights = TRANSITION_WEIGHTS if any(part is not None for part in learned.values()) else (0.0,)
    for weight in weights:
        predictions: list[Any] = [None] * len(data.examples)
        for number, moves in learned.items():
            own = np.flatnonzero(fold == number).tolist()
            scored = Scored(
                [probabilities[i] for i in own], [data.texts[i] for i in own], labels, _weighted(moves, weight)
            )
            for place, prediction in zip(own, family.decode([scored])[0], strict=True):
                predictions[place] = prediction
        own = np.flatnonzero(fold != _ALWAYS_TRAINED).tolist()
        total = np.sum(family.counts([data.examples[i] for i in own], [predictions[i] for i in own]), axis=0)
        found.append((family.score_of_counts(total), weight, predictions))
    _, weight, predictions = max(found, key=lambda item: (item[0], -item[1]))
    return weight, predictions


def _weighted(transitions: Transitions, weight: float) -> Transitions:
    return None if transitions is None or not weight else transitions * np.float32(weight)
