"""What decisions of the product promise, and what they keep, on new texts of spare tasks.

Heads of the default model, from draws of few labels: calibration of scores, sets of labels, thresholds for a precision,
and "none of these", with some classes left out of the labels. Features are computed once; a draw costs a fit.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

import trunkline
from trunkline.bundle.parts import Task
from trunkline.errors import TrunklineError
from trunkline.heads.decisions import OTHER, decider, none_of, with_other, with_precision
from trunkline.heads.fit import LabelledFeatures, fit_head
from trunkline.tasks import FAMILIES, Family, Labels, Scored
from trunkline.tasks.classification import softmax
from trunkline.text.examples import TextExample
from trunkline_lab.data.sample import draw
from trunkline_lab.few_labels.draws import KINDS, SIZES, Pool, calibration_error

COVERAGES, PRECISIONS = (0.8, 0.9), (0.8, 0.9, 0.95)
UNLABELLED, CLASSES = 400, 5
"""Texts without labels, and the fewest classes of a task of which a third is left out."""

Row = dict[str, Any]


@dataclass(frozen=True)
class Fitted:
    """A task with the family that reads it."""

    family: Family
    task: Task

    @staticmethod
    def of(family: Family, train: LabelledFeatures, labels: Labels, seed: int, **said: Any) -> Fitted:
        """Fits a head; `said` goes to its decisions."""
        head = fit_head(family, train, labels, seed=seed).head
        inputs, own = {"head.weight": head.weight, "head.bias": head.bias}, {**head.decisions, **said}
        return Fitted(family, Task(family.name, inputs, 0.0, b"", "t", labels, "", head.transitions, None, False, own))

    def predict(self, data: LabelledFeatures, **options: Any) -> list[Any]:
        """As `Model.predict` does, from features."""
        head, task = self.task.head, self.task
        chances = [softmax(part @ head.weight + head.bias) for part in data.features]
        found = self.family.decode([Scored(chances, data.texts, task.labels, head.transitions, task.decisions)])[0]
        decide = decider({"t": task}, **options)
        return [decide({"t": one})["t"] for one in found]

    def deciding(self, **said: Any) -> Fitted:
        """With other decisions."""
        return replace(self, task=replace(self.task, decisions={**self.task.decisions, **said}))


def calibration(fitted: Fitted, test: LabelledFeatures) -> Row:
    """The expected calibration error of what is said."""
    rows = list(zip(test.examples, fitted.predict(test), strict=True))
    pairs = [
        (s, a in fitted.family.compare(e, p)[0]) for e, p in rows for a, s in fitted.family.confidences(e, p).items()
    ]
    return {"ece": calibration_error(*zip(*pairs, strict=True)) if pairs else 0.0}


def sets(fitted: Fitted, test: LabelledFeatures) -> Row:
    """How often sets hold the right label, their size, and the shares of empty and of full ones."""
    found: Row = {}
    for coverage in COVERAGES:
        try:
            own = [one["set"] for one in fitted.predict(test, coverage=coverage)]
        except TrunklineError:  # Too few texts for this coverage.
            continue
        held = [example.label in one for example, one in zip(test.examples, own, strict=True)]
        size, most = np.array(list(map(len, own))), len(fitted.task.labels)
        found[f"coverage {coverage}"] = float(np.mean(held))
        shares = {"size": size, "empty": size == 0, "full": size == most}
        found |= {f"{name} {coverage}": float(np.mean(values)) for name, values in shares.items()}
    return found


def precisions(fitted: Fitted, test: LabelledFeatures) -> Row:
    """The share of right ones among what is said, and their share of all, where a precision was asked for."""
    found: Row = {}
    for precision in PRECISIONS:
        chosen = with_precision(fitted.task, precision)
        said = fitted.deciding(min_score=chosen["min_score"]).predict(test)
        pairs = [fitted.family.compare(*pair) for pair in zip(test.examples, said, strict=True)]
        right, answers, gold = np.sum([(len(t & g), len(g), len(t)) for t, g in pairs], axis=0).tolist()
        found |= {f"promised {precision}": chosen["chosen"]["promised"], f"recall {precision}": right / max(gold, 1)}
        found |= {f"precision {precision}": right / answers if answers else None}
    return found


def none_of_these(
    family: Family, train: LabelledFeatures, test: LabelledFeatures, unlabelled: Sequence[Any], seed: int
) -> Row:
    """A third of the classes is left out of the labels: how well their texts are told from the others."""
    classes = sorted(set().union(*map(family.classes, train.examples)))
    if len(classes) < CLASSES:
        return {}
    away = set(np.random.default_rng(seed).permutation(classes)[: len(classes) // 3])
    own = _some(train, [n for n, example in enumerate(train.examples) if example.label not in away])
    labels = family.labels(own.examples)
    own = replace(own, targets=[[labels.index(example.label)] for example in own.examples])
    plain = Fitted.of(family, own, labels, seed)
    taken = none_of(own, labels, unlabelled, seed)
    more = [TextExample(f"unlabelled {n}", OTHER) for n in taken]
    examples, texts = [*own.examples, *more], [*own.texts, *((example.text, []) for example in more)]
    targets = [*own.targets, *([len(labels)] for _ in more)]
    joined = LabelledFeatures(examples, texts, [*own.features, *(unlabelled[n] for n in taken)], targets)
    learnt = Fitted.of(family, joined, (*labels, OTHER), seed, other=OTHER) if taken else plain
    both = learnt.deciding(**with_other(learnt.task, 0.05))
    ways = {"scores": plain.deciding(**with_other(plain.task, 0.05)), "unlabelled": learnt, "both": both}
    out = np.array([example.label in away for example in test.examples])
    known = out | np.array([example.label in labels for example in test.examples])
    found: Row = {"taken": len(taken)}
    for name, fitted in ways.items():
        said = fitted.predict(test)
        none = np.array([one["label"] is None for one in said])
        hits = float((none & out).sum())
        found |= {f"none f1 {name}": 2 * hits / max((none & known).sum() + out.sum(), 1)}
        found |= {
            f"none recall {name}": hits / max(out.sum(), 1),
            f"false none {name}": float(none[known & ~out].mean()),
        }
        chance = np.array([one["probabilities"].get(OTHER, 1 - one["score"]) for one in said])
        found[f"auroc {name}"] = _auroc(chance[out], chance[known & ~out])
    return found


def _auroc(high: Any, low: Any) -> float:
    return float(np.mean((high[:, None] > low) + 0.5 * (high[:, None] == low)))


def _some(data: LabelledFeatures, numbers: Iterable[int]) -> LabelledFeatures:
    parts = (data.examples, data.texts, data.features, data.targets)
    return LabelledFeatures(*([part[n] for n in numbers] for part in map(list, parts)))


def study(
    tasks: Sequence[str], seeds: Mapping[str, int], kinds: Sequence[str] = KINDS, sizes: Sequence[int] = SIZES
) -> Iterator[Row]:
    """A row for each task, kind of draw, size and seed; of each family so many `seeds`."""
    model = trunkline.load()
    for name in tasks:
        pool = Pool.of(name)
        family = FAMILIES[pool.family]
        units = family.choose_units(pool.pool, model.tokenizer)

        def read(rows: Sequence[Any], labels: Labels, family: Family = family, units: str = units) -> LabelledFeatures:
            return model.labelled(rows, family.name, units, labels, features=True)[0]

        test = read(pool.test, family.labels(pool.pool))
        more = draw(pool.pool, family.classes, seed=10_000, sentences=UNLABELLED)
        unlabelled = read(more, family.labels(more)).features if family.name == "classification" else ()
        for found in pool.draws(kinds, sizes, seeds[family.name]):
            train = read(found.train, family.labels(found.train))
            fitted = Fitted.of(family, train, family.labels(found.train), found.seed)
            row = {**calibration(fitted, test), **precisions(fitted, test)}
            if family.name == "classification":
                row |= sets(fitted, test) | none_of_these(family, train, test, unlabelled, found.seed)
            place = {"task": name, "family": family.name, "kind": found.kind, "size": found.size, "seed": found.seed}
            yield place | {key: round(value, 5) if isinstance(value, float) else value for key, value in row.items()}


def table(rows: Sequence[Mapping[str, Any]]) -> str:
    """Markdown: a block for each family, kind and size; means over tasks of the means over draws."""
    groups: dict[tuple[Any, ...], list[Mapping[str, Any]]] = defaultdict(list)
    for row in rows:
        groups[row["family"], row["kind"], row["size"]].append(row)
    lines = [
        "| family | draws | labels a class | measure | mean over tasks | farthest off |",
        "|---|---|---|---|---|---|",
    ]
    for key, own in sorted(groups.items()):
        for name in dict.fromkeys(name for row in own for name in row):
            values = _by_task(own, name)
            if name not in ("task", "family", "kind", "size", "seed") and values:
                lines.append(f"| {' | '.join(map(str, key))} | {name} | {_shown(name, values)} |")
    return "\n".join(lines) + "\n"


def _by_task(rows: Sequence[Mapping[str, Any]], name: str) -> list[float]:
    found = defaultdict(list)
    for row in rows:
        if row.get(name) is not None:
            found[row["task"]].append(row[name])
    return [float(np.mean(values)) for values in found.values() if not isinstance(values[0], str)]


def _shown(name: str, values: Sequence[float]) -> str:
    """Mean; of coverages the mean and largest distance from what was asked for."""
    what, _, asked = name.partition(" ")
    if what != "coverage":
        return f"{np.mean(values):.3f} | {min(values):.3f} to {max(values):.3f}"
    off = np.abs(np.array(values) - float(asked))
    return f"{np.mean(values):.3f}, mean distance {off.mean():.3f} | {off.max():.3f}"
