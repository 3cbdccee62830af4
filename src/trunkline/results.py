"""Results as data: what `fit` and `evaluate` say, with one JSON form for Python, the commands and other readers."""

from __future__ import annotations

import dataclasses
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from trunkline.tasks import Family, Scores

MAX_WRONG = 50
"""Wrong examples that an evaluation keeps."""


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
        examples: Number of examples.
        scores: The family's scores.
        labels: For each label `precision`, `recall`, `f1` and `support` (gold), and `predicted` (their number).
        confusion: For classification, gold label -> predicted label -> number; empty for other families.
        wrong: Up to `MAX_WRONG` wrong examples with `text`, `gold` and `predicted`.
        n_wrong: How many there are.
    """

    task: str
    family: str
    examples: int
    scores: Scores
    labels: Mapping[str, Mapping[str, float]]
    confusion: Mapping[str, Mapping[str, int]]
    wrong: Sequence[Mapping[str, Any]]
    n_wrong: int
    warnings: Sequence[str] = ()

    @staticmethod
    def of(
        name: str, family: Family, examples: Sequence[Any], predicted: Sequence[Any], labels: Sequence[str]
    ) -> Evaluation:
        """Compares predictions with examples; `labels` are those that the task knows."""
        pairs = [family.compare(example, prediction) for example, prediction in zip(examples, predicted, strict=True)]
        rows: Counter[tuple[str, str]] = Counter()
        confusion: dict[str, Counter[str]] = {}
        wrong = []
        for example, (truth, guess) in zip(examples, pairs, strict=True):
            for column, answers in (("right", truth & guess), ("predicted", guess), ("gold", truth)):
                rows.update((column, answer[-1]) for answer in answers)
            if family.name == "classification":
                confusion.setdefault(min(truth)[-1], Counter())[min(guess)[-1]] += 1
            if truth != guess:
                gold, found = ([list(answer) for answer in sorted(answers)] for answers in (truth, guess))
                wrong.append({"text": example.text, "gold": gold, "predicted": found})
        # The answers of question answering are no labels.
        seen = {label for _, label in rows} if family.name != "qa" else set()
        unknown = sorted({label for column, label in rows if column == "gold" and label in seen} - set(labels))
        return Evaluation(
            task=name,
            family=family.name,
            examples=len(examples),
            scores=family.score(examples, predicted),
            labels={label: _row(rows, label) for label in sorted(seen | set(labels))} if family.name != "qa" else {},
            confusion={label: dict(sorted(row.items())) for label, row in sorted(confusion.items())},
            wrong=wrong[:MAX_WRONG],
            n_wrong=len(wrong),
            warnings=[f"labels that the task does not know count as misses: {', '.join(unknown)}"] if unknown else [],
        )

    to_dict = dataclasses.asdict
    """Plain data for JSON, where every number is finite."""


def _row(rows: Mapping[tuple[str, str], int], label: str) -> dict[str, float]:
    right, predicted, gold = (rows.get((column, label), 0) for column in ("right", "predicted", "gold"))
    f1 = 2 * right / max(predicted + gold, 1)
    precision, recall = right / max(predicted, 1), right / max(gold, 1)
    return {"precision": precision, "recall": recall, "f1": f1, "support": gold, "predicted": predicted}
