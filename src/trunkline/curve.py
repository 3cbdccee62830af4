"""The learning curve: how good a head is that learns from fewer of the labels, judged on the others."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np

from trunkline.data.inputs import examples_from
from trunkline.errors import TrunklineError
from trunkline.heads.fit import LabelledFeatures, fit_head, stratified_folds
from trunkline.results import Evaluation
from trunkline.tasks import FAMILIES, Family, Scored

if TYPE_CHECKING:
    from trunkline.model import Model

POINTS, SMALLEST = 6, 8
"""Numbers of examples that are tried, in equal ratios; the smallest one, where there are as many beside a fold."""


@dataclass(frozen=True, slots=True)
class LearningCurve:
    """Held-out quality over the number of labelled examples.

    Attributes:
        measure: The family's main score.
        folds: Of cross-validation: each example is judged by a head that learnt from others.
        points: `examples` that a head learnt from, `score` over all held-out examples, and its `spread`, the standard
            deviation over the folds.
        held_out: What the heads of the last point say of the examples that they have not learnt from; not in `to_dict`.
    """

    measure: str
    folds: int
    points: Sequence[Mapping[str, float]]
    held_out: Evaluation = field(repr=False, compare=False)

    def to_dict(self) -> dict[str, Any]:
        """Plain data for JSON, where every number is finite."""
        return {"measure": self.measure, "folds": self.folds, "points": list(self.points)}


def learning_curve(
    model: Model,
    texts: Any,
    labels: Any = None,
    *,
    family: str | None = None,
    folds: int = 5,
    seed: int = 0,
    **settings: Any,
) -> LearningCurve:
    """Fits heads on growing parts of labelled texts, given as for `Model.fit`, and scores them on held-out folds.

    Parts grow within each other, and have labels in the proportions of the whole. `settings` are those of mode `head`.

    Raises:
        TrunklineError: There are fewer than two examples beside a fold.
    """
    family, examples = examples_from(texts, labels, family)
    kind = FAMILIES[family]
    known = kind.labels(examples)
    types = sorted({name for example in examples for name in kind.classes(example)})
    data, _ = model.labelled(examples, family, kind.choose_units(examples, model.tokenizer), known, features=True)
    fold = stratified_folds([text for text, _ in data.texts], [kind.classes(e) for e in examples], folds, seed)
    least = min(len(examples) - np.bincount(fold))
    if least < 2:
        raise TrunklineError(f"a learning curve of {len(examples)} examples", expected="at least two beside a fold")
    orders = [_order(kind, examples, np.flatnonzero(fold != n).tolist(), seed) for n in np.unique(fold)]
    points = []
    for size in sorted(set(np.geomspace(min(SMALLEST, least), least, POINTS).round().astype(int).tolist())):
        gold, found, scores = list[Any](), list[Any](), list[float]()
        for n, order in zip(np.unique(fold), orders, strict=True):
            held = np.flatnonzero(fold == n).tolist()
            said = _predictions(kind, data, order[:size], held, {"seed": seed, **settings})
            own = [examples[number] for number in held]
            scores.append(kind.score(own, said)[kind.main_score])
            gold += own
            found += said
        score = kind.score(gold, found)[kind.main_score]
        points.append({"examples": size, "score": score, "spread": float(np.std(scores))})
    held_out = Evaluation.of("held-out folds", kind, gold, found, types, model.name)
    return LearningCurve(kind.main_score, len(orders), points, held_out)


def _order(kind: Family, examples: Sequence[Any], numbers: Sequence[int], seed: int) -> list[int]:
    """An order of examples whose beginnings have the classes in the proportions of the whole, the rarest one first."""
    classes = {n: kind.classes(examples[n]) for n in np.random.default_rng(seed).permutation(numbers).tolist()}
    total = Counter(name for own in classes.values() for name in own)
    rarest = {n: min(own, key=lambda name: (total[name], name), default="") for n, own in classes.items()}
    count, seen, share = Counter(rarest.values()), Counter[str](), {}
    for n, name in rarest.items():
        seen[name] += 1
        share[n] = (seen[name] - 0.5) / count[name]
    return sorted(share, key=lambda n: share[n])


def _predictions(
    kind: Family, data: LabelledFeatures, train: Sequence[int], held: Sequence[int], settings: dict[str, Any]
) -> list[Any]:
    """What a head that learnt from some examples says of others."""
    examples = [data.examples[n] for n in train]
    labels = kind.labels(examples)
    texts = [data.texts[n] for n in train]
    targets = [kind.unit_targets(e, labels, borders) for e, (_, borders) in zip(examples, texts, strict=True)]
    part = LabelledFeatures(examples, texts, [data.features[n] for n in train], targets)
    head = fit_head(kind, part, labels, **settings).head
    chances = [kind.probabilities(data.features[n] @ head.weight + head.bias) for n in held]
    return kind.decode([Scored(chances, [data.texts[n] for n in held], labels, head.transitions, head.decisions)])[0]
