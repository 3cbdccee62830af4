"""Fitting a head that wastes no label: settings by cross-validation inside the labels, then a fit on all of them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from trunkline.bundle.parts import Head, as_stored
from trunkline.errors import TrunklineError
from trunkline.heads.calibration import factors, log_losses
from trunkline.heads.cross_validation import CrossValidation, HeldOut, LabelledFeatures, cross_validate
from trunkline.heads.linear import Solution, Units, discriminant, regression
from trunkline.tasks.base import Family, Labels, Scored, Scores, Transitions, softmax

FloatArray = npt.NDArray[np.float32]
IntArray = npt.NDArray[np.int64]
PENALTIES = (0.0003, 0.001, 0.003, 0.01, 0.03, 0.1, 0.3, 1.0, 3.0, 10.0)
"""scikit-learn's C, from strong to weak."""

FIRST = 0.03
"""The penalty that others must beat: the best one on average over tasks with 8 to 16 labels a class."""

NOISE = 2.0
"""Standard errors by which held-out losses must fall for another penalty."""

TRANSITION_WEIGHTS = (0.0, 0.5, 0.75, 1.0)
"""Of learnt transitions; 1 would be right if features told nothing of a unit's neighbours."""

LEAST_BIAS = -1e4
"""Of a label without a unit; float16 holds it, and calibrated logits are far above."""

LOOSE = 4e-3
"""Tolerance of the fits that are compared; the loss of a held-out unit does not tell finer ones apart."""


@dataclass(frozen=True, slots=True)
class FittedHead:
    """A head, how its settings were chosen, and what it says of held-out folds.

    Attributes:
        head: In the values that its file holds.
        penalty: scikit-learn's C.
        temperature: What the logits of the regression, or of LoRA, were divided by; the head has it in already.
        discriminant: What the logits of the discriminant were multiplied by before they were added; 0 without one.
        log_loss: Mean over held-out units, in nats, of the calibrated probabilities; None where no unit can be judged,
            as with one example a class.
        scores: The family's scores of held-out predictions.
        predictions: The held-out prediction for each example; None for what is always trained on.
        never_predicted: Labels of examples that no held-out prediction has.
    """

    head: Head
    penalty: float
    temperature: float
    discriminant: float
    log_loss: float | None
    scores: Scores
    predictions: Sequence[Any]
    never_predicted: Sequence[str]

    def record(self) -> dict[str, Any]:
        """Plain data for a task file and for people."""
        return {
            "penalty": self.penalty,
            "temperature": round(self.temperature, 4),
            "discriminant": round(self.discriminant, 4),
            "log_loss": None if self.log_loss is None else round(self.log_loss, 6),
            "scores": {name: round(value, 6) for name, value in self.scores.items()},
            "never_predicted": list(self.never_predicted),
        }


def fit_head(
    family: Family,
    data: LabelledFeatures,
    labels: Labels,
    *,
    n_dev: int = 0,
    penalties: Sequence[float] = PENALTIES,
    class_weight: str | None = None,
    seed: int = 0,
) -> FittedHead:
    """Fits a head on all examples; everything else about it is chosen by cross-validation among them.

    The head is the sum of a softmax regression and a linear discriminant. Both are linear, so that the sum is one head;
    how much each counts is what held-out log loss asks for, see `factors`. The penalty of the regression leaves `FIRST`
    only where held-out log losses fall by more than their noise; the weight of the transitions has the best
    main score. Where there is a dev part, all this is chosen on it instead, and it is not trained on, so that its
    scores are honest. Deterministic.

    Args:
        family: Of the task.
        data: All labelled examples, those of dev last; at least two with different texts.
        labels: The head's outputs.
        n_dev: Examples of dev.
        penalties: Candidates.
        class_weight: For classification; `balanced` lets every label count alike, whatever its number of texts.
        seed: Of the folds.

    Raises:
        TrunklineError: An unknown class weight, or one for another family.
    """
    if class_weight not in (None, "balanced") or (class_weight and family.name != "classification"):
        raise TrunklineError(
            f"class_weight={class_weight!r} for {family.name}", expected="'balanced', for classification"
        )
    folds = cross_validate(family, data, n_dev, seed=seed)
    learner = _Learner.of(data, folds, len(labels), len(data.examples) - n_dev, class_weight is not None)
    penalty, members = learner.members(sorted(penalties), family.label_covariance(labels))
    return finish(family, data, labels, folds, members, penalty, n_dev)


def convex_heads(
    family: Family, data: LabelledFeatures, numbers: Sequence[int], labels: Labels, penalty: float
) -> list[Head]:
    """Regression and discriminant, fitted on some of the examples; `finish` adds them up."""
    x, y, _ = _stacked(data, numbers)
    units = Units.of(x[y >= 0], y[y >= 0], len(labels))
    everything = np.ones((1, len(units.y)), np.float32)
    first = regression(units, everything, penalty, family.label_covariance(labels))
    return [units.head(found) for found in (first, discriminant(units, everything, x.shape[1]))]


Member = tuple[Head, HeldOut]
"""A head that was fitted on all examples, and the logits of its like for held-out ones."""


def finish(
    family: Family,
    data: LabelledFeatures,
    labels: Labels,
    folds: CrossValidation,
    members: Sequence[Member],
    penalty: float,
    n_dev: int = 0,
) -> FittedHead:
    """Adds up heads that were fitted on all examples, with the factors and transitions that held-out logits ask for.

    Args:
        family: As for `fit_head`.
        data: As for `fit_head`; features are only asked for where no unit can be judged.
        labels: As for `fit_head`.
        folds: By which the held-out logits were made.
        members: The regression or LoRA, and the discriminant if there is one.
        penalty: For the record.
        n_dev: As for `fit_head`.
    """
    flat = [folds.flat(logits, data.targets)[0] for _, logits in members]
    y = folds.flat(members[0][1], data.targets)[1]
    if not len(y):
        flat = [np.concatenate([part @ head.weight + head.bias for part in data.features]) for head, _ in members]
    found = factors(flat, y)
    logits = [_sum(found, own) for fold in folds.held_out for own in zip(*(m[fold] for _, m in members), strict=True)]
    weight, predictions = _best_transitions(family, data, labels, folds, [softmax(part) for part in logits])
    learned = family.transitions(data.targets[: len(data.examples) - n_dev], labels)
    bias = np.maximum(_sum(found, [head.bias for head, _ in members]), LEAST_BIAS)
    whole = Head(_sum(found, [head.weight for head, _ in members]), bias, _weighted(learned, weight))
    gold, guessed = [data.examples[n] for n in folds.order], [predictions[n] for n in folds.order]
    return FittedHead(
        head=as_stored(whole),
        penalty=penalty,
        temperature=1 / found[0],
        discriminant=found[1] if len(found) > 1 else 0.0,
        log_loss=float(log_losses(_sum(found, flat), y).mean()) if len(y) else None,
        scores=family.score(gold, guessed),
        predictions=predictions,
        never_predicted=_never_predicted(family, gold, guessed),
    )


@dataclass(frozen=True, slots=True)
class _Learner:
    """The units of a task, those without a known label left out, and what is trained on when.

    Attributes:
        data: The task.
        folds: Its folds.
        units: Its units.
        masks: [folds, units] weight of each where it is trained on.
        whole: [1, units] weights of the final fit.
    """

    data: LabelledFeatures
    folds: CrossValidation
    units: Units
    masks: FloatArray
    whole: FloatArray

    @staticmethod
    def of(data: LabelledFeatures, folds: CrossValidation, n_labels: int, n_train: int, balanced: bool) -> _Learner:
        x, y, example = _stacked(data, range(folds.count))
        x, y, example = x[y >= 0], y[y >= 0], example[y >= 0]
        whole = (example < n_train).astype(np.float32)
        if balanced:
            count = np.bincount(y, whole, minlength=n_labels)
            whole *= (whole.sum() / (np.count_nonzero(count) * np.maximum(count, 1))).astype(np.float32)[y]
        # Where all texts are one, there is nothing to train on but what is held out.
        masks = [whole * np.isin(example, folds.trained(fold) or range(folds.count)) for fold in folds.held_out]
        return _Learner(data, folds, Units.of(x, y, n_labels), np.asarray(masks, np.float32), whole[None])

    def held_out(self, solution: Solution) -> HeldOut:
        """What heads of the folds say of their held-out examples."""
        heads = [self.units.head(solution, number) for number in range(len(self.masks))]
        return {
            fold: [self.data.features[n] @ head.weight + head.bias for n in numbers]
            for head, (fold, numbers) in zip(heads, self.folds.held_out.items(), strict=True)
        }

    def members(
        self, penalties: Sequence[float], covariance: npt.NDArray[np.float32] | None
    ) -> tuple[float, list[Member]]:
        """The penalty that held-out log losses ask for; regression and discriminant on all folds and on all units."""
        path: dict[float, Solution] = {}

        def losses(penalty: float) -> npt.NDArray[np.float64]:
            near = min(path, key=lambda other: abs(np.log(other / penalty)), default=None)
            start = None if near is None else path[near]
            path[penalty] = regression(self.units, self.masks, penalty, covariance, start=start, tolerance=LOOSE)
            x, y = self.folds.flat(self.held_out(path[penalty]), self.data.targets)
            return log_losses(x * np.float32(factors([x], y)[0]), y) if len(y) else np.zeros(0)

        penalty = _climb(penalties, losses)
        weight = path[penalty].weight.mean(axis=0, keepdims=True)
        start = Solution(weight, path[penalty].bias.max(axis=0, keepdims=True))
        last = regression(self.units, self.whole, penalty, covariance, start=start)
        width = self.data.features[0].shape[1]
        spread = [discriminant(self.units, mask, width) for mask in (self.masks, self.whole)]
        pairs = ((path[penalty], last), spread)
        return penalty, [(self.units.head(whole), self.held_out(parts)) for parts, whole in pairs]


def _climb(penalties: Sequence[float], losses: Callable[[float], npt.NDArray[np.float64]]) -> float:
    """From the first penalty to weaker ones, else to stronger ones, while losses fall by more than their noise."""
    first = min(range(len(penalties)), key=lambda n: abs(np.log(penalties[n] / FIRST)))
    before = start = losses(penalties[first])
    for direction in (1, -1):
        best, before = first, start
        while 0 <= best + direction < len(penalties):
            after = losses(penalties[best + direction])
            gain = before - after
            if not len(gain) or gain.sum() <= NOISE * np.sqrt(np.square(gain - gain.mean()).sum()):
                break
            best, before = best + direction, after
        if best != first:
            break
    return penalties[best]


def _sum(found: Sequence[float], parts: Sequence[npt.NDArray[np.float32]]) -> npt.NDArray[np.float32]:
    return np.add.reduce([part * np.float32(factor) for factor, part in zip(found, parts, strict=True)])


def _stacked(data: LabelledFeatures, numbers: Sequence[int]) -> tuple[FloatArray, IntArray, IntArray]:
    """Features and targets of all units of some examples, and the example of each."""
    targets = [np.asarray(data.targets[number], np.int64) for number in numbers]
    example = np.repeat(np.asarray(numbers, np.int64), [len(row) for row in targets])
    return np.concatenate([data.features[number] for number in numbers]), np.concatenate(targets), example


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


def _never_predicted(family: Family, gold: Sequence[Any], guessed: Sequence[Any]) -> list[str]:
    if family.name == "qa":
        return []
    pairs = [family.compare(example, guess) for example, guess in zip(gold, guessed, strict=True)]
    true, said = ({answer[-1] for pair in pairs for answer in pair[side]} for side in (0, 1))
    return sorted(true - said)


def _weighted(transitions: Transitions, weight: float) -> Transitions:
    return None if transitions is None or not weight else transitions * np.float32(weight)
