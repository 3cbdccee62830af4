"""What `fit` says, and `evaluate`: scores, a row a label, what is confused, what scores are worth, what is wrong."""

from __future__ import annotations

import dataclasses
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from trunkline.results.comparison import Comparison
from trunkline.tasks import Family, Scores
from trunkline.tasks.classification import Answer, Counts

MAX_WRONG = 500
"""Wrong examples that an evaluation keeps."""

BINS, LEAST_IN_BIN, HISTOGRAM = 15, 10, 20
"""Bins of the calibration error, fewer where they would have fewer answers; and those of the histogram."""

LEAST = 5e-7
"""Probability that 0 stands for, as predictions have six digits."""

KINDS = ("right", "label", "borders", "both", "missed", "spurious")


@dataclass(frozen=True, slots=True)
class FitReport:
    """What fitting a task gave.

    Attributes:
        task: Its name.
        family: Its family.
        mode: `head` or `lora`.
        labels: The labels, entity types for NER.
        examples: Numbers of `train`, `dev` and `test` examples.
        cross_validation: `scores` on held-out folds (or on dev), `log_loss`, and the settings that were chosen.
        test: Scores on test; empty without one.
        engine: What computed the features, with weights of this `precision`.
        bytes: Size of the task's file.
        seconds: Wall time of the fit.
        replaced: Cross-validated scores of the task that was replaced, if there was one.
        warnings: What a user should know.
    """

    task: str
    family: str
    mode: str
    labels: Sequence[str]
    examples: Mapping[str, int]
    cross_validation: Mapping[str, Any]
    test: Scores
    engine: str
    precision: str
    bytes: int
    seconds: float
    replaced: Scores | None = None
    warnings: Sequence[str] = ()

    to_dict = dataclasses.asdict
    """Plain data for JSON, where every number is finite."""


@dataclass(frozen=True, slots=True)
class Evaluation:
    """A task's predictions against labelled examples.

    Attributes:
        task: Its name.
        family: Its family.
        bundle: Name of the bundle.
        examples: Number of examples.
        scores: The family's scores, the main one first.
        labels: For each label `precision`, `recall`, `f1` and `support` (gold), and `predicted` (their number).
        confusion: Gold label -> predicted label -> number, where the label "" stands for no answer: one was missed, or
            is spurious. Entities that overlap stand for each other, also where borders differ.
        errors: Number of answers that are `right`, have another `label`, other `borders` or `both`, are `missed` or
            `spurious`.
        reliability: How far scores can be trusted: number of predicted `answers`; `ece`, the expected calibration error
            over `bins` of equal numbers of answers, each with its mean `score`, the share that is `right` and its
            `count`; a `histogram` of `right` and `wrong` answers over equal parts of the scores from 0 to 1; and
            `log_loss` in nats of the gold labels that the task knows, None where there are no probabilities of them.
        wrong: Up to `MAX_WRONG` wrong examples, the surest first, with `index`, `text`, `gold`, `predicted` and
            the `scores` of what was predicted.
        n_wrong: How many there are.
        warnings: What a user should know.
        judged: The family, the examples and the predictions; not in `to_dict`.
    """

    task: str
    family: str
    bundle: str = field(compare=False)
    examples: int
    scores: Scores
    labels: Mapping[str, Mapping[str, float]]
    confusion: Mapping[str, Mapping[str, int]]
    errors: Mapping[str, int]
    reliability: Mapping[str, Any]
    wrong: Sequence[Mapping[str, Any]]
    n_wrong: int
    warnings: Sequence[str] = ()
    judged: tuple[Family, Sequence[Any], Sequence[Any]] | None = field(default=None, repr=False, compare=False)

    @staticmethod
    def of(
        name: str,
        family: Family,
        examples: Sequence[Any],
        predicted: Sequence[Any],
        labels: Sequence[str],
        bundle: str = "",
    ) -> Evaluation:
        """Compares predictions with examples; `labels` are those that the task knows."""
        rows = _rows(family, examples, predicted, labels)
        unknown = [label for label, row in rows.items() if row["support"] and label not in labels]
        wrong = _wrong(family, examples, predicted)
        known = [f"labels that the task does not know count as misses: {', '.join(unknown)}"] if unknown else []
        parts = (family.score(examples, predicted), rows, *_confusion(family, examples, predicted))
        trust, judged = _reliability(family, examples, predicted), (family, examples, predicted)
        head = (name, family.name, bundle, len(examples))
        return Evaluation(*head, *parts, trust, wrong[:MAX_WRONG], len(wrong), known, judged)

    def against(self, other: Evaluation) -> Comparison:
        """Compares with another task, or with the task of another bundle, on the same examples."""
        return Comparison.of(self, other)

    def to_html(self, comparison: Comparison | None = None) -> str:
        """One page that needs nothing else: plots, tables and wrong examples, and a comparison on request."""
        from trunkline.results.page import page

        return page(self.to_dict(), None if comparison is None else comparison.to_dict())

    def to_dict(self) -> dict[str, Any]:
        """Plain data for JSON, where every number is finite."""
        return {one.name: getattr(self, one.name) for one in dataclasses.fields(self) if one.name != "judged"}


def _rows(
    family: Family, examples: Sequence[Any], predicted: Sequence[Any], labels: Sequence[str]
) -> dict[str, dict[str, float]]:
    """A row a label; answers of question answering are no labels."""
    if family.name == "qa":
        return {}
    tally = family.tally(examples, predicted, tuple(labels))
    counts = Counts.of(tally.totals(np.ones((1, len(examples)))))
    names = ("precision", "recall", "f1", "support", "predicted")
    right, said, gold = counts.right[0], counts.predicted[0], counts.gold[0]
    shares = (right / np.maximum(said, 1), right / np.maximum(gold, 1), counts.f1()[0])
    columns = (*shares, gold.astype(int), said.astype(int))
    rows = zip(*(column.tolist() for column in columns), strict=True)
    return {label: dict(zip(names, row, strict=True)) for label, row in zip(tally.labels, rows, strict=True)}


def _confusion(
    family: Family, examples: Sequence[Any], predicted: Sequence[Any]
) -> tuple[dict[str, dict[str, int]], dict[str, int]]:
    pairs = [pair for e, p in zip(examples, predicted, strict=True) for pair in family.align(e, p)]
    table = Counter(tuple(answer[-1] if answer else "" for answer in pair) for pair in pairs)
    confusion: dict[str, dict[str, int]] = {}
    for (gold, guess), count in sorted(table.items()):
        confusion.setdefault(gold, {})[guess] = count
    kinds = Counter(_kind(*pair) for pair in pairs)
    return confusion, {kind: kinds[kind] for kind in KINDS} if pairs else {}


def _kind(truth: Answer | None, guess: Answer | None) -> str:
    if truth is None or guess is None:
        return "missed" if guess is None else "spurious"
    if truth[:-1] == guess[:-1]:
        return "right" if truth == guess else "label"
    return "borders" if truth[-1] == guess[-1] else "both"


def _reliability(family: Family, examples: Sequence[Any], predicted: Sequence[Any]) -> dict[str, Any]:
    pairs = list(zip(examples, predicted, strict=True))
    known = [p for p in (family.likelihood(*pair) for pair in pairs) if p is not None]
    found = list[tuple[float, bool]]()
    for pair in pairs:
        truth = family.compare(*pair)[0]
        found += [(score, answer in truth) for answer, score in family.confidences(*pair).items()]
    table = np.array(sorted(found, key=lambda one: one[0]), dtype=np.float64).reshape(-1, 2)
    parts = np.array_split(table, min(BINS, max(1, len(table) // LEAST_IN_BIN))) if found else []
    edges = np.linspace(0, 1, HISTOGRAM + 1)
    counts = [np.histogram(table[table[:, 1] == right, 0], edges)[0].tolist() for right in (1, 0)]
    return {
        "answers": len(table),
        "ece": float(sum(abs((part[:, 0] - part[:, 1]).sum()) for part in parts) / max(len(table), 1)),
        "bins": [{"score": float(p[:, 0].mean()), "right": float(p[:, 1].mean()), "count": len(p)} for p in parts],
        "histogram": dict(zip(("right", "wrong"), counts, strict=True)),
        "log_loss": float(-np.log(np.maximum(known, LEAST)).mean()) if known else None,
    }


def _wrong(family: Family, examples: Sequence[Any], predicted: Sequence[Any]) -> list[dict[str, Any]]:
    """The wrong examples; first those with the highest score of a wrong answer, as gold is often wrong there."""
    found = []
    for index, (example, prediction) in enumerate(zip(examples, predicted, strict=True)):
        truth, guess = family.compare(example, prediction)
        if truth != guess:
            scores = family.confidences(example, prediction)
            gold, said = ([list(answer) for answer in sorted(answers)] for answers in (truth, guess))
            row = {"index": index, "text": example.text, "gold": gold, "predicted": said}
            row["scores"] = [scores[answer] for answer in sorted(guess)]
            found.append((max((scores[answer] for answer in guess - truth), default=0.0), row))
    return [row for _, row in sorted(found, key=lambda item: -item[0])]
