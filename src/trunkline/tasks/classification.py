"""Text classification, where a text is one unit with one label: the simplest family, from which others are made."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt

from trunkline.errors import MismatchError
from trunkline.text.tokens import TextTokenizer, Tokens, UnitText, text_unit

FEW = 4
"""Examples of a class below which its quality is hardly known."""

Labels = tuple[str, ...]
Scores = dict[str, float]
FloatArray = npt.NDArray[np.floating[Any]]
Transitions = npt.NDArray[np.float32] | None

Words = Sequence[tuple[int, int]]
"""Character offsets of the words of a text, or of finer units, end exclusive, in order and without overlap."""

Answer = tuple[Any, ...]
"""Of an example or a prediction; its last item is the label."""

Answers = frozenset[Answer]
"""What an example or a prediction says."""

WordedText = tuple[str, Words]


@dataclass(frozen=True, slots=True)
class Scored:
    """What a task's head says of texts: [units, labels] of each text, and the texts with their words.

    `transitions` is [labels + 1, labels], as in `trunkline.bundle.parts.Head`, None for all zero; `decisions` too.
    """

    probabilities: Sequence[FloatArray]
    texts: Sequence[WordedText]
    labels: Labels
    transitions: Transitions = None
    decisions: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Counts:
    """What scores are computed from, of several draws of examples.

    [draws, labels] answers that are right, predicted and gold; [draws] examples, and those that are wholly right.
    """

    right: FloatArray
    predicted: FloatArray
    gold: FloatArray
    exact: FloatArray
    examples: FloatArray

    @staticmethod
    def of(totals: FloatArray) -> Counts:
        """Of what `Tally.totals` returns."""
        right, predicted, gold = np.split(totals[:, :-2], 3, axis=1)
        return Counts(right, predicted, gold, totals[:, -2], totals[:, -1])

    def f1(self) -> FloatArray:
        """[draws, labels]; 0 for a label without an answer."""
        return np.asarray(2 * self.right / np.maximum(self.predicted + self.gold, 1))

    def macro_f1(self, counted: npt.NDArray[np.bool_]) -> FloatArray:
        """[draws] the mean F1 of the labels that count, [draws, labels]."""
        return np.asarray((self.f1() * counted).sum(axis=1) / np.maximum(counted.sum(axis=1), 1))


@dataclass(frozen=True, slots=True)
class Tally:
    """The answers of examples and predictions, kept so that those of any draw of the examples are counted fast.

    Of each answer its example, what it adds, and where: `columns` are the distinct ones of [right, predicted, gold
    (a column a label each), exact], and answers lie in their order, from `starts` on.
    """

    labels: Labels
    example: npt.NDArray[np.int64]
    amount: FloatArray
    columns: npt.NDArray[np.int64]
    starts: npt.NDArray[np.int64]

    @staticmethod
    def of(pairs: Sequence[tuple[Answers, Answers]], labels: Labels = ()) -> Tally:
        """The tally of true and predicted answers; `labels` are counted even where no answer has them."""
        labels = tuple(sorted({answer[-1] for pair in pairs for answers in pair for answer in answers} | {*labels}))
        index = {label: number for number, label in enumerate(labels)}
        rows = []
        for number, (truth, guess) in enumerate(pairs):
            for column, answers in enumerate((truth & guess, guess, truth)):
                rows += [(column * len(labels) + index[answer[-1]], number, 1.0) for answer in answers]
            rows += [(3 * len(labels), number, 1.0)] if truth == guess else []
        return Tally.from_rows(labels, rows)

    @staticmethod
    def from_rows(labels: Labels, rows: list[tuple[int, int, float]]) -> Tally:
        """Of (column, example, amount) of each answer."""
        table = np.array(sorted(rows), dtype=np.float64).reshape(-1, 3)
        columns, starts = np.unique(table[:, 0].astype(np.int64), return_index=True)
        return Tally(labels, table[:, 1].astype(np.int64), table[:, 2], columns, starts)

    def totals(self, draws: FloatArray) -> FloatArray:
        """[draws, columns and examples] of [draws, examples], how often each example is in a draw."""
        found = np.zeros((3 * len(self.labels) + 2, len(draws)))
        if len(self.columns):
            answers = np.ascontiguousarray(draws.T)[self.example] * self.amount[:, None]
            found[self.columns] = np.add.reduceat(answers, self.starts, axis=0)
        found[-1] = draws.sum(axis=1)
        return found.T


class Classification:
    """The family of texts with one label each; other families replace what differs. It holds no state.

    Attributes:
        name: In task files and commands.
        main_score: The score by which settings are chosen.
        several: Whether a unit has any number of labels, each a yes or no; then `unit_targets` has one for each label.
        shares_trunk: Whether texts run through the trunk once for all families; not where `units` cuts windows anew.
        readable: The labels that `decode` can read.
    """

    name = "classification"
    main_score = "accuracy"
    several = False
    shares_trunk = True
    readable = "at least one"

    def choose_units(self, examples: Sequence[Any], tokenizer: TextTokenizer) -> str:
        """What gets a label in a task of these examples: the text; in other families `words`, `pieces`, `question`."""
        return "text"

    def unheld(self, examples: Sequence[Any], borders: Sequence[Words]) -> list[str]:
        """Labelled spans that no prediction can hit, as their borders are not those of units; here none."""
        return []

    def units(self, tokens: Tokens, words: Words) -> UnitText:
        """What gets a feature vector and a label in a tokenised text: the text as one unit."""
        return text_unit(tokens)

    def widened(self, texts: Sequence[WordedText], features: Sequence[FloatArray]) -> list[FloatArray]:
        """What heads read of texts: features of their units, here as they are."""
        return list(features)

    def labels(self, examples: Sequence[Any]) -> Labels:
        """The outputs of a head for these examples, in a fixed order: the distinct labels, sorted."""
        return tuple(sorted({example.label for example in examples}))

    def check_labels(self, labels: Labels, where: str) -> None:
        """Raises MismatchError unless `decode` can read these labels; `where` says whose they are."""
        wrong = self.unreadable(labels)
        if wrong or not labels:
            given = f"the labels {', '.join(wrong)[:60]}" if wrong else "no labels"
            raise MismatchError(f"{where} has {given}", expected=self.readable, todo="Fit the task again")

    def unreadable(self, labels: Labels) -> list[str]:
        """Those of the labels that are not `readable`, or all of them where some are missing."""
        return []

    def classes(self, example: Any) -> set[str]:
        """The classes that an example gives evidence of, for drawing few examples of each and for folds: its label."""
        return {example.label}

    def unit_targets(self, example: Any, labels: Labels, words: Words) -> list[int]:
        """The index into `labels` of each unit; -1 for a label that the head does not have. `words` as for `units`."""
        return [labels.index(example.label) if example.label in labels else -1]

    def transitions(self, targets: Sequence[Sequence[int]], labels: Labels) -> Transitions:
        """What labels of neighbouring units are worth to each other, by training targets; here nothing."""
        return None

    def doubts(
        self, parts: Mapping[str, Sequence[Any]], borders: Sequence[Words], never_predicted: Sequence[str]
    ) -> list[str]:
        """What a user should know of a fit: of rare and unknown labels, and spans that are out of reach.

        `parts` are train and others, `borders` of train's units, `never_predicted` labels that no held-out one has.
        """
        train, found = parts["train"], []
        seen = Counter(label for example in train for label in self.classes(example))
        if rare := _listed(sorted(label for label, count in seen.items() if count < FEW)):
            found.append(f"fewer than {FEW} examples of {rare}: scores of these say little; 8 or more would do")
        for part, examples in parts.items():
            if unknown := sorted({label for example in examples for label in self.classes(example)} - seen.keys()):
                found.append(f"{part} has labels that train lacks, which count as misses: {_listed(unknown)}")
        if names := _listed([f"{name} ({seen[name]} examples)" for name in never_predicted]):
            found.append(f"never predicted on held-out examples: {names}; 16 or more examples of each would do")
        if missed := self.unheld(train, borders):
            what = f"{len(missed)} labelled spans do not begin and end where words do, and count as misses"
            found.append(f"{what}: {_listed(missed)}")
        return found

    def label_covariance(self, labels: Labels) -> Transitions:
        """[labels, labels], positive definite, mean variance 1: what labels' weights share unlearnt; here nothing."""
        return None

    def probabilities(self, logits: FloatArray) -> FloatArray:
        """[units, labels] outputs of a head -> probabilities in float32, each unit for itself."""
        return softmax(logits)

    def decode(self, tasks: Sequence[Scored]) -> list[list[Any]]:
        """For each task one a text, as plain data: label, score, and all labels' probabilities, highest first."""
        return [[_ranked(part[0], task.labels) for part in task.probabilities] for task in tasks]

    def score(self, gold: Sequence[Any], predicted: Sequence[Any]) -> Scores:
        """Measures of predictions against examples, the main one first."""
        found = self.measures(Counts.of(self.tally(gold, predicted).totals(np.ones((1, len(gold))))))
        return {name: float(values[0]) for name, values in found.items()}

    def measures(self, counts: Counts) -> dict[str, FloatArray]:
        """Scores [draws] of counts: accuracy, and F1 averaged over the classes of the gold labels."""
        return {"accuracy": counts.exact / np.maximum(counts.examples, 1), "macro_f1": counts.macro_f1(counts.gold > 0)}

    def tally(self, gold: Sequence[Any], predicted: Sequence[Any], labels: Labels = ()) -> Tally:
        """What there is to count: labels are those that are seen, and those that are given."""
        return Tally.of([self.compare(*pair) for pair in zip(gold, predicted, strict=True)], labels)

    def align(self, example: Any, prediction: Any) -> list[tuple[Answer | None, Answer | None]]:
        """True answers beside the predicted ones that stand for them; None where there is no such answer."""
        truth, guess = self.compare(example, prediction)
        return [(min(truth, default=None), min(guess, default=None))]

    def confidences(self, example: Any, prediction: Any) -> dict[Answer, float]:
        """The answers that were predicted, with the probability that they are right."""
        return dict.fromkeys(self.compare(example, prediction)[1], prediction["score"])

    def likelihood(self, example: Any, prediction: Any) -> float | None:
        """The probability that was given to what is true; None for a label that the task does not know."""
        found: float | None = prediction["probabilities"].get(example.label)
        return found

    def evidence(self, pairs: Sequence[tuple[Any, Any]]) -> dict[str, dict[str, Any]]:
        """What a task file keeps of examples and held-out predictions, see `trunkline.bundle.manifest.DECISIONS`."""
        found: dict[str, dict[str, Any]] = {}
        for example, prediction in pairs:
            truth, scores = self.compare(example, prediction)[0], self.confidences(example, prediction)
            for answer in truth | scores.keys():
                own = found.setdefault(answer[-1], {"right": [], "wrong": [], "true": [], "count": 0})
                own["count"] += answer in truth
                if answer in scores:
                    own["right" if answer in truth else "wrong"].append(scores[answer])
            chances = prediction.get("probabilities", {}) if isinstance(prediction, dict) else {}
            for label in self.classes(example) & chances.keys():
                found[label]["true"].append(chances[label])
        return dict(sorted(found.items()))

    def compare(self, example: Any, prediction: Any) -> tuple[Answers, Answers]:
        """What is true and what was predicted of an example; equal where the prediction is right."""
        label = prediction["label"]
        return frozenset({(example.label,)}), frozenset() if label is None else frozenset({(label,)})


def softmax(logits: FloatArray) -> FloatArray:
    """[units, labels] outputs of a head -> probabilities in float32, each unit for itself."""
    exponents = np.exp(logits - logits.max(axis=1, keepdims=True))
    return np.asarray(exponents / exponents.sum(axis=1, keepdims=True), dtype=np.float32)


def _listed(names: Sequence[str]) -> str:
    return ", ".join(names[:10]) + (f" and {len(names) - 10} more" if len(names) > 10 else "")


def _ranked(probabilities: FloatArray, labels: Labels) -> dict[str, Any]:
    order = (-probabilities).argsort(kind="stable")
    rows = zip(order.tolist(), probabilities[order].tolist(), strict=True)
    ranked = {labels[i]: round(probability, 6) for i, probability in rows}
    best = labels[order[0]]
    return {"label": best, "score": ranked[best], "probabilities": ranked}
