"""Cross-validation of a task: which examples are held out when, and what is known of them."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from trunkline.heads.calibration import factors, log_losses
from trunkline.tasks.base import Family, WordedText

FloatArray = npt.NDArray[np.float32]
IntArray = npt.NDArray[np.int64]
HeldOut = Mapping[int, Sequence[FloatArray]]
"""Fold -> for each of its held-out examples the logits [units, labels]."""

FOLDS = ((20_000, 10), (500_000, 5), (np.inf, 3))
"""Number of folds by the number of units times labels up to which it is taken: few labels are held out singly."""


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
        """The mean log loss of held-out units in nats, calibrated on them; see `factors`."""
        x, y = self.flat(logits, targets)
        return float(log_losses(x * np.float32(factors([x], y)[0]), y).mean()) if len(y) else 0.0


def cross_validate(
    family: Family, data: LabelledFeatures, n_dev: int = 0, *, folds: int | None = None, seed: int = 0
) -> CrossValidation:
    """Stratified folds of all examples, or the one that holds out the dev part, which comes last."""
    count = len(data.examples)
    if n_dev:
        return CrossValidation({0: range(count - n_dev, count)}, count)
    if folds is None:
        size = sum(map(len, data.targets)) * len({label for row in data.targets for label in row})
        folds = next(number for most, number in FOLDS if size <= most)
    classes = [family.classes(example) for example in data.examples]
    fold = stratified_folds([text for text, _ in data.texts], classes, folds, seed)
    return CrossValidation({n: np.flatnonzero(fold == n).tolist() for n in np.unique(fold).tolist()}, count)


def stratified_folds(texts: Sequence[str], classes: Sequence[set[str]], count: int = 5, seed: int = 0) -> IntArray:
    """The fold of each example, 0 to `count` - 1.

    Examples of rare classes are dealt out first, each to the fold that has fewest of its rarest class (iterative
    stratification, Sechidis et al. 2011), of equal ones to the one with fewest of its other classes, then to the
    smaller one.

    Args:
        texts: Texts that differ only in case and blanks get one fold, as they would leak into each other.
        classes: The classes of each example; several or none for a sentence with entities.
        count: Number of folds; fewer are used if there are fewer different texts.
        seed: Order of examples that are equal in all this.

    Returns:
        [examples].
    """
    groups: dict[str, list[int]] = {}
    for number, text in enumerate(texts):
        groups.setdefault(" ".join(text.casefold().split()), []).append(number)
    members = list(groups.values())
    count = max(1, min(count, len(members)))
    total = Counter(name for own in classes for name in own)
    held = [Counter(name for number in group for name in classes[number]) for group in members]
    shuffled = np.random.default_rng(seed).permutation(len(members))
    rank = {int(group): place for place, group in enumerate(shuffled)}
    rarest = [min(own, key=lambda name: (total[name], name)) if own else "" for own in held]
    order = sorted(
        range(len(members)), key=lambda g: (not rarest[g], total[rarest[g]], rarest[g], -len(members[g]), rank[g])
    )
    seen: list[Counter[str]] = [Counter() for _ in range(count)]
    sizes = [0] * count
    fold = np.zeros(len(texts), dtype=np.int64)
    for group in order:
        chosen = min(
            range(count),
            key=lambda f: (seen[f][rarest[group]], sum(seen[f][name] for name in held[group]), sizes[f], f),
        )
        seen[chosen].update(held[group])
        sizes[chosen] += len(members[group])
        fold[members[group]] = chosen
    return fold
