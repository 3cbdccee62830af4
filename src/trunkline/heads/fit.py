"""Fitting a head that wastes no label: settings by cross-validation inside the labels, then a fit on all of them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from trunkline.bundle.parts import Head, as_stored
from trunkline.heads.folds import stratified_folds
from trunkline.heads.linear import LinearHead, head_path
from trunkline.tasks.base import Family, Labels, Scored, Scores, Transitions, WordedText, softmax

FloatArray = npt.NDArray[np.float32]
IntArray = npt.NDArray[np.int64]
HeldOut = Mapping[int, Sequence[FloatArray]]
"""Fold -> for each of its held-out examples the logits [units, labels]."""

PENALTIES = (0.0003, 0.001, 0.003, 0.01, 0.03, 0.1, 0.3, 1.0)
"""scikit-learn's C, from strong to weak."""

TRANSITION_WEIGHTS = (0.0, 0.5, 0.75, 1.0)
"""Of learnt transitions; 1 would be right if features told nothing of a unit's neighbours."""

FOLDS = 5
_TEMPERATURES = np.exp(np.linspace(np.log(0.5), np.log(4.0), 61))
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
class CrossValidation:
    """Which examples are held out when.

    Attributes:
        held_out: Fold -> its examples, in their order; an example of none is always trained on.
        count: Number of examples.
    """

    held_out: Mapping[int, Sequence[int]]
    count: int

    def trained(self, fold: int) -> list[int]:
        """The examples that are trained on when a fold is held out."""
        out = set(self.held_out[fold])
        return [number for number in range(self.count) if number not in out]

    @property
    def order(self) -> list[int]:
        """All held-out examples, fold by fold."""
        return [number for numbers in self.held_out.values() for number in numbers]

    def judged(self, targets: Sequence[Sequence[int]]) -> list[npt.NDArray[np.bool_]]:
        """For each of `order`, its units whose label is trained on: what was never seen cannot be asked for."""
        rows = []
        for fold, numbers in self.held_out.items():
            seen = {label for number in self.trained(fold) for label in targets[number]} - {-1}
            rows += [np.asarray([label in seen for label in targets[number]], dtype=bool) for number in numbers]
        return rows

    def flat(self, logits: HeldOut, targets: Sequence[Sequence[int]]) -> tuple[FloatArray, IntArray]:
        """[units, labels] logits and [units] targets of all judged units."""
        judged = self.judged(targets)
        parts = [part for fold in self.held_out for part in logits[fold]]
        wanted = [np.asarray(targets[number], np.int64) for number in self.order]
        x = np.concatenate([part[keep] for part, keep in zip(parts, judged, strict=True)])
        return x, np.concatenate([part[keep] for part, keep in zip(wanted, judged, strict=True)])

    def log_loss(self, logits: HeldOut, targets: Sequence[Sequence[int]]) -> float:
        """The mean log loss of held-out units in nats, at the best temperature."""
        return best_temperature(*self.flat(logits, targets))[1]


@dataclass(frozen=True, slots=True)
class FittedHead:
    """A head, how its settings were chosen, and what it says of held-out folds.

    Attributes:
        head: In the values that its file holds.
        penalty: scikit-learn's C.
        temperature: What logits were divided by; the head has it in already.
        log_loss: Mean over held-out units, in nats, after division by the temperature; None where no unit can be
            judged, as with one example a class.
        scores: The family's scores of held-out predictions.
        predictions: The held-out prediction for each example; None for what is always trained on.
    """

    head: Head
    penalty: float
    temperature: float
    log_loss: float | None
    scores: Scores
    predictions: Sequence[Any]

    def record(self) -> dict[str, Any]:
        """Plain data for a task file and for people."""
        return {
            "penalty": self.penalty,
            "temperature": round(self.temperature, 4),
            "log_loss": None if self.log_loss is None else round(self.log_loss, 6),
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
    folds = cross_validate(family, data, n_dev, seed=seed)
    penalty, logits = _best_penalty(data, folds, len(labels), sorted(penalties))
    head = convex_head(data, range(len(data.examples) - n_dev), len(labels), penalty)
    return finish(family, data, labels, folds, logits, head, penalty, n_dev)


def convex_head(data: LabelledFeatures, numbers: Sequence[int], n_labels: int, penalty: float) -> Head:
    """The convex fit on some of the examples."""
    found = next(head_path(*_stacked(data, numbers), n_labels, (penalty,)))
    return Head(np.ascontiguousarray(found.weight.T), found.bias)


def cross_validate(
    family: Family, data: LabelledFeatures, n_dev: int = 0, *, folds: int = FOLDS, seed: int = 0
) -> CrossValidation:
    """Stratified folds of all examples, or the one that holds out the dev part, which comes last."""
    count = len(data.examples)
    if n_dev:
        return CrossValidation({0: range(count - n_dev, count)}, count)
    classes = [family.classes(example) for example in data.examples]
    fold = stratified_folds([text for text, _ in data.texts], classes, folds, seed)
    return CrossValidation({n: np.flatnonzero(fold == n).tolist() for n in np.unique(fold).tolist()}, count)


def finish(
    family: Family,
    data: LabelledFeatures,
    labels: Labels,
    folds: CrossValidation,
    logits: HeldOut,
    head: Head,
    penalty: float,
    n_dev: int = 0,
) -> FittedHead:
    """Gives a head that was fitted on all examples the temperature and transitions that held-out logits ask for."""
    x, y = folds.flat(logits, data.targets)
    temperature, loss = best_temperature(x, y)
    divisor = np.float32(temperature)
    probabilities = [softmax(part / divisor) for fold in folds.held_out for part in logits[fold]]
    weight, predictions = _best_transitions(family, data, labels, folds, probabilities)
    learned = family.transitions(data.targets[: len(data.examples) - n_dev], labels)
    scaled = Head(head.weight / divisor, head.bias / divisor, _weighted(learned, weight))
    gold = [data.examples[number] for number in folds.order]
    scores = family.score(gold, [predictions[number] for number in folds.order])
    return FittedHead(as_stored(scaled), penalty, temperature, loss if len(y) else None, scores, predictions)


def best_temperature(logits: FloatArray, targets: IntArray) -> tuple[float, float]:
    """The divisor of logits [units, labels] with the least mean log loss, 0.5 to 4, and that loss in nats."""
    if not len(targets):
        return 1.0, 0.0
    losses = [_log_loss(logits / np.float32(t), targets) for t in _TEMPERATURES]
    best = int(np.argmin(losses))
    return float(_TEMPERATURES[best]), losses[best]


def _stacked(data: LabelledFeatures, numbers: Sequence[int]) -> tuple[FloatArray, IntArray]:
    targets = [np.asarray(data.targets[number], np.int64) for number in numbers]
    return np.concatenate([data.features[number] for number in numbers]), np.concatenate(targets)


def _best_penalty(
    data: LabelledFeatures, folds: CrossValidation, n_labels: int, penalties: Sequence[float]
) -> tuple[float, HeldOut]:
    """The penalty with the least held-out log loss, the stronger one of equals, and its held-out logits.

    Where no unit can be judged it is the weakest, as nothing says that what was learnt does not hold.
    """
    if not any(part.any() for part in folds.judged(data.targets)):
        penalties = penalties[-1:]
    whole = len(folds.held_out) == 1 and len(folds.order) == folds.count
    paths = {
        fold: head_path(*_stacked(data, range(folds.count) if whole else folds.trained(fold)), n_labels, penalties)
        for fold in folds.held_out
    }
    best, least, worse = penalties[0], np.inf, 0
    kept: HeldOut = {}
    for penalty in penalties:
        logits: dict[int, list[FloatArray]] = {}
        for fold, path in paths.items():
            head: LinearHead = next(path)
            logits[fold] = [data.features[n] @ head.weight.T + head.bias for n in folds.held_out[fold]]
        x, y = folds.flat(logits, data.targets)
        loss = _log_loss(x, y) if len(y) else 0.0
        if loss < least - 1e-6:
            best, least, worse, kept = penalty, loss, 0, logits
        else:
            worse += 1
        if worse >= _PATIENCE:
            break
    return best, kept


def _log_loss(logits: FloatArray, y: IntArray) -> float:
    top = logits.max(axis=1)
    sums = np.log(np.exp(logits - top[:, None]).sum(axis=1, dtype=np.float64)) + top
    return float(np.mean(sums - logits[np.arange(len(y)), y]))


def _best_transitions(
    family: Family,
    data: LabelledFeatures,
    labels: Labels,
    folds: CrossValidation,
    probabilities: Sequence[FloatArray],
) -> tuple[float, list[Any]]:
    """The weight of transitions with the best held-out main score, the lower one of equals, and the predictions."""
    learned: dict[int, Transitions] = {}
    for fold in folds.held_out:
        rows = [data.targets[number] for number in folds.trained(fold)]
        learned[fold] = family.transitions(rows or data.targets, labels)
    parts = dict(zip(folds.order, probabilities, strict=True))
    found: list[tuple[float, float, list[Any]]] = []
    for weight in TRANSITION_WEIGHTS if any(part is not None for part in learned.values()) else (0.0,):
        predictions: list[Any] = [None] * folds.count
        for fold, numbers in folds.held_out.items():
            texts, moves = [data.texts[n] for n in numbers], _weighted(learned[fold], weight)
            decoded = family.decode([Scored([parts[n] for n in numbers], texts, labels, moves)])[0]
            for number, prediction in zip(numbers, decoded, strict=True):
                predictions[number] = prediction
        counts = family.counts([data.examples[n] for n in folds.order], [predictions[n] for n in folds.order])
        found.append((family.score_of_counts(np.sum(counts, axis=0)), weight, predictions))
    _, weight, predictions = max(found, key=lambda item: (item[0], -item[1]))
    return weight, predictions


def _weighted(transitions: Transitions, weight: float) -> Transitions:
    return None if transitions is None or not weight else transitions * np.float32(weight)
