"""Fitting a head that wastes no label: settings by cross-validation inside the labels, then a fit on all of them."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import islice
from typing import Any

import numpy as np
import numpy.typing as npt

from trunkline.bundle.parts import Head, as_stored
from trunkline.errors import TrunklineError
from trunkline.heads.linear import FloatArray, IntArray, Solution, Units, discriminant, factors, log_losses, regression
from trunkline.heads.several import check_varied, choices, difference, known_targets, per_text, with_thresholds
from trunkline.tasks import Family
from trunkline.tasks.classification import Labels, Scored, Scores, Transitions, WordedText, softmax

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

MANY = 500
"""Held-out units above which the factors are those of all, as they hardly fit the single unit."""

KEPT = 500
"""Most held-out examples whose scores a task file keeps."""

FOLDS = ((20_000, 10), (500_000, 5), (np.inf, 3))
"""Number of folds by the number of units times labels up to which it is taken: few labels are held out singly."""


@dataclass(frozen=True, slots=True)
class LabelledFeatures:
    """The examples of a task with what an engine made of them.

    Of each: its text with the borders of its units, [units, hidden] features, and the index into the labels of each
    unit; one with -1 is left out. Where a unit has several labels, its targets are 1 or 0 for each label.
    """

    examples: Sequence[Any]
    texts: Sequence[WordedText]
    features: Sequence[FloatArray]
    targets: Sequence[Sequence[int]]


@dataclass(frozen=True, slots=True)
class Folds:
    """Which examples are held out when; "held-out units" are those of all folds, fold by fold, or yes and no of these.

    For each fold the examples that are held out, in their order, and the others, which are trained on. `targets` are
    [held-out units], -1 for a label that is not trained on: what was never seen cannot be asked for.
    """

    held_out: Sequence[Sequence[int]]
    trained: Sequence[Sequence[int]]
    targets: IntArray

    @property
    def order(self) -> list[int]:
        """All held-out examples, fold by fold."""
        return [number for numbers in self.held_out for number in numbers]


Member = tuple[Head, FloatArray]
"""One of the heads whose sum is a task's: fitted on all examples, and [held-out units, labels] logits of its like."""


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
        logits: [held-out units, labels], fold by fold, as of new texts.
    """

    head: Head
    penalty: float
    temperature: float
    discriminant: float
    log_loss: float | None
    scores: Scores
    predictions: Sequence[Any]
    never_predicted: Sequence[str]
    logits: FloatArray

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


def check_settings(family: Family, class_weight: str | None = None, seed: int = 0) -> None:
    """Raises TrunklineError for an unknown class weight, one for another family, or what is no seed."""
    if class_weight not in (None, "balanced") or (class_weight and family.name not in ("classification", "multilabel")):
        given = f"class_weight={class_weight!r} for {family.name}"
        raise TrunklineError(given, expected="'balanced', for classification and multilabel")
    if not isinstance(seed, int | np.integer) or not 0 <= seed < 2**32:
        raise TrunklineError(f"seed={seed!r}", expected="a whole number from 0 to 2**32 - 1")


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
    scores are honest. Deterministic. With any number of labels a text, see `trunkline.heads.several`.

    Args:
        family: Of the task.
        data: All labelled examples, those of dev last; at least two with different texts.
        labels: The head's outputs.
        n_dev: Examples of dev.
        penalties: Candidates.
        class_weight: For classification; `balanced` lets every label count alike, whatever its number of texts. In
            tasks of several labels a text, yes and no of a label count alike.
        seed: Of the folds.

    Raises:
        TrunklineError: See `check_settings`; or all texts have the same of several labels.
    """
    check_settings(family, class_weight, seed)
    count = len(data.examples)
    folds = cross_validate(family, data, n_dev, seed=seed)
    units, example = _units(data, range(count), len(labels), family)
    head = partial(difference, units) if family.several else units.head
    whole = units.weights(example < count - n_dev, class_weight)
    masks = np.concatenate([whole * np.isin(example, numbers) for numbers in folds.trained])
    known, covariance, path = folds.targets >= 0, family.label_covariance(labels), dict[float, Solution]()

    def held_out(solution: Solution) -> FloatArray:
        parts = [([data.features[n] for n in rows], head(solution, f)) for f, rows in enumerate(folds.held_out)]
        return np.concatenate([logits_of(one, features, family) for features, one in parts])

    def losses(penalty: float) -> npt.NDArray[np.float64]:
        start = path[min(path, key=lambda other: abs(np.log(other / penalty)))] if path else None
        path[penalty] = regression(units, masks, penalty, covariance, start=start, tolerance=LOOSE)
        x, y = held_out(path[penalty])[known], folds.targets[known]
        found = log_losses(x * np.float32(factors([x], y)[0]), y) if len(y) else np.zeros(0)
        return per_text(found, known, len(labels)) if family.several else found

    penalty = _climb(sorted(penalties), losses)
    found = path[penalty]
    shape = len(found.bias) // len(whole), len(whole)  # features that are all alike have no width
    weight, bias = (part.reshape(*shape, *part.shape[1:]) for part in (found.weight, found.bias))
    start = Solution(weight.mean(axis=0), bias.max(axis=0))
    last = regression(units, whole, penalty, covariance, start=start)
    pairs = [(last, found), (discriminant(units, whole), discriminant(units, masks))]
    members = [(head(one, 0), held_out(others)) for one, others in pairs]
    return finish(family, data, labels, folds, members, penalty, n_dev)


def convex_heads(
    family: Family,
    data: LabelledFeatures,
    numbers: Sequence[int],
    labels: Labels,
    penalty: float,
    class_weight: str | None = None,
) -> list[Head]:
    """Regression and discriminant, fitted on some of the examples; `finish` adds them up."""
    units, _ = _units(data, numbers, len(labels), family)
    head = partial(difference, units) if family.several else units.head
    weights = units.weights(np.ones(len(units.y), dtype=bool), class_weight)
    first = regression(units, weights, penalty, family.label_covariance(labels))
    return [head(found, 0) for found in (first, discriminant(units, weights))]


def logits_of(head: Head, features: Sequence[FloatArray], family: Family) -> FloatArray:
    """[units, labels] of all units of some examples; of a family of `several` labels [units * labels, no and yes]."""
    found = np.concatenate([part @ head.weight + head.bias for part in features])
    return choices(found) if family.several else found


def finish(
    family: Family,
    data: LabelledFeatures,
    labels: Labels,
    folds: Folds,
    members: Sequence[Member],
    penalty: float,
    n_dev: int = 0,
) -> FittedHead:
    """Adds up heads that were fitted on all examples, with the factors and transitions that held-out logits ask for.

    Arguments as for `fit_head`; features are only asked for where no unit can be judged. Members are the regression or
    LoRA, and the discriminant if there is one; the penalty is for the record.
    """
    heads, known = [head for head, _ in members], folds.targets >= 0
    judged, y = [logits[known] for _, logits in members], folds.targets[known]
    found = factors(judged if len(y) else [logits_of(head, data.features, family) for head in heads], y)
    said = _held_out(data, folds, [logits for _, logits in members], found)
    weight, scores, guessed, decisions = _decided(family, data, labels, folds, softmax(said))
    learned = family.transitions(data.targets[: len(data.examples) - n_dev], labels)
    bias = np.clip(_sum(found, [head.bias for head in heads]), LEAST_BIAS, -LEAST_BIAS)
    predictions = dict(zip(folds.order, guessed, strict=True))
    pairs = [] if family.name == "qa" else [(data.examples[n], guess) for n, guess in predictions.items()]
    decisions |= {"held_out": family.evidence(pairs[:: -(-len(pairs) // KEPT)])} if pairs else {}
    whole = Head(_sum(found, [head.weight for head in heads]), bias, _weighted(learned, weight), decisions)
    answers = [family.compare(*pair) for pair in pairs]
    true, given = ({answer[-1] for pair in answers for answer in pair[side]} for side in (0, 1))
    return FittedHead(
        head=as_stored(whole),
        penalty=penalty,
        temperature=1 / found[0],
        discriminant=found[1] if len(found) > 1 else 0.0,
        log_loss=float(log_losses(said[known], y).mean()) if len(y) else None,
        scores=scores,
        predictions=[predictions.get(number) for number in range(len(data.examples))],
        never_predicted=sorted(true - given),
        logits=said,
    )


def _held_out(data: LabelledFeatures, folds: Folds, logits: Sequence[FloatArray], found: Sequence[float]) -> FloatArray:
    """Sums of held-out logits, as of new texts: where units are few, each fold by the factors that the others ask for.

    The factors that are `found` on all units fit them a little too well, and scores of few would look too good.
    """
    sizes = [sum(len(data.targets[n]) for n in rows) for rows in folds.held_out]
    if len(sizes) < 2 or len(folds.targets) > MANY:
        return _sum(found, logits)
    fold, parts = np.repeat(np.arange(len(sizes)), sizes), list[FloatArray]()
    for number in range(len(sizes)):
        others = (fold != number) & (folds.targets >= 0)
        own = factors([part[others] for part in logits], folds.targets[others]) if others.any() else found
        parts.append(_sum(own, [part[fold == number] for part in logits]))
    return np.concatenate(parts)


def cross_validate(
    family: Family, data: LabelledFeatures, n_dev: int = 0, *, folds: int | None = None, seed: int = 0
) -> Folds:
    """Stratified folds of all examples, or the one that holds out the dev part, which comes last."""
    everything = range(len(data.examples))
    if family.several:
        check_varied(np.asarray(data.targets), sorted(family.classes(data.examples[0])))
    fold = np.full(len(everything), -1)
    if n_dev:
        fold[-n_dev:] = 0
    else:
        size = sum(map(len, data.targets)) * len({label for row in data.targets for label in row})
        count = folds or next(number for most, number in FOLDS if size <= most)
        classes = [family.classes(example) for example in data.examples]
        fold = stratified_folds([text for text, _ in data.texts], classes, count, seed)
    held_out = [np.flatnonzero(fold == number).tolist() for number in np.unique(fold[fold >= 0])]
    trained = [sorted(set(everything) - set(numbers)) for numbers in held_out]
    targets = [np.zeros(0, np.int64)]
    for out, numbers in zip(held_out, trained, strict=True):
        if family.several:
            targets.append(known_targets(*(np.asarray([data.targets[n] for n in part]) for part in (numbers, out))))
            continue
        seen = {label for number in numbers for label in data.targets[number]}
        targets.append(np.asarray([y if y in seen else -1 for number in out for y in data.targets[number]], np.int64))
    # Where all texts are one, there is nothing to train on but what is held out.
    return Folds(held_out, [numbers or everything for numbers in trained], np.concatenate(targets))


def stratified_folds(texts: Sequence[str], classes: Sequence[set[str]], count: int = 5, seed: int = 0) -> IntArray:
    """The fold of each example, 0 to `count` - 1.

    Examples of rare classes are dealt out first, each to the fold that has fewest of its rarest class (iterative
    stratification, Sechidis et al. 2011), of equal ones to the one with fewest of its other classes, then to the
    smaller one. Texts that differ only in case and blanks get one fold, as they would leak into each other; of fewer
    different texts there are fewer folds. An example has several `classes` or none where it is a sentence with
    entities; `seed` orders examples that are equal in all this.
    """
    groups: dict[str, list[int]] = {}
    for number, text in enumerate(texts):
        groups.setdefault(" ".join(text.casefold().split()), []).append(number)
    members = list(groups.values())
    total = Counter(name for own in classes for name in own)
    held = [Counter(name for number in group for name in classes[number]) for group in members]
    rarest = [min(own, key=lambda name: (total[name], name)) if own else "" for own in held]
    shuffled = np.random.default_rng(seed).permutation(len(members)).tolist()
    order = sorted(shuffled, key=lambda g: (not rarest[g], total[rarest[g]], rarest[g], -len(members[g])))
    seen: list[Counter[str]] = [Counter() for _ in range(max(1, min(count, len(members))))]
    sizes = [0] * len(seen)
    fold = np.zeros(len(texts), dtype=np.int64)
    for group in order:
        chosen = min(
            range(len(seen)),
            key=lambda f: (seen[f][rarest[group]], sum(seen[f][name] for name in held[group]), sizes[f], f),
        )
        seen[chosen].update(held[group])
        sizes[chosen] += len(members[group])
        fold[members[group]] = chosen
    return fold


def _units(data: LabelledFeatures, numbers: Sequence[int], n_labels: int, family: Family) -> tuple[Units, IntArray]:
    """The units of some examples, those without a known label left out, and the example of each."""
    if family.several:
        x = np.concatenate([data.features[number] for number in numbers])
        return Units.of(x, np.asarray([data.targets[number] for number in numbers]), 2), np.asarray(numbers, np.int64)
    targets = [np.asarray(data.targets[number], np.int64) for number in numbers]
    example = np.repeat(np.asarray(numbers, np.int64), [len(row) for row in targets])
    x, y = np.concatenate([data.features[number] for number in numbers]), np.concatenate(targets)
    return Units.of(x[y >= 0], y[y >= 0], n_labels), example[y >= 0]


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


def _sum(found: Sequence[float], parts: Sequence[FloatArray]) -> FloatArray:
    return np.add.reduce([part * np.float32(factor) for factor, part in zip(found, parts, strict=True)])


def _decided(
    family: Family, data: LabelledFeatures, labels: Labels, folds: Folds, probabilities: FloatArray
) -> tuple[float, Scores, list[Any], dict[str, Any]]:
    """The weight of transitions with the best held-out main score, the lower of equals; or thresholds, as decisions."""
    if family.several:
        own = [(data.examples[number], data.texts[number], data.targets[number]) for number in folds.order]
        yes = probabilities[:, 1].reshape(-1, len(labels))
        return 0.0, *with_thresholds(family, own, labels, yes, list(map(len, folds.held_out)))
    rows = iter(np.split(probabilities, np.cumsum([len(data.targets[number]) for number in folds.order])[:-1]))
    parts = [(list(islice(rows, len(numbers))), [data.texts[n] for n in numbers]) for numbers in folds.held_out]
    learned = [family.transitions([data.targets[n] for n in numbers], labels) for numbers in folds.trained]
    found: list[tuple[float, Scores, list[Any]]] = []
    for weight in TRANSITION_WEIGHTS if any(part is not None for part in learned) else (0.0,):
        pairs = zip(parts, learned, strict=True)
        decoded = family.decode([Scored(*part, labels, _weighted(moves, weight)) for part, moves in pairs])
        predictions = [prediction for part in decoded for prediction in part]
        found.append((weight, family.score([data.examples[n] for n in folds.order], predictions), predictions))
    return *max(found, key=lambda item: (item[1][family.main_score], -item[0])), {}


def _weighted(transitions: Transitions, weight: float) -> Transitions:
    return None if transitions is None or not weight else transitions * np.float32(weight)
