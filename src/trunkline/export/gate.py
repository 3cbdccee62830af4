"""The gate: an export with rounded weights may lose no more of its tasks' scores than was agreed."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from trunkline.engine.base import Predictor
from trunkline.errors import TrunklineError
from trunkline.tasks import FAMILIES

Examples = Mapping[str, Sequence[Any]]
"""Task -> labelled examples that it was not trained on."""


@dataclass(frozen=True, slots=True)
class TaskResult:
    """The family's main score of a task, in [0, 1], by torch in float32 and by the graphs as they are exported.

    `agreement` is the share of examples with the same prediction by both, its probabilities aside.
    """

    name: str
    metric: str
    examples: int
    float32: float
    rounded: float
    agreement: float

    @property
    def drop(self) -> float:
        """Points of a hundred that are lost; negative for a gain."""
        return 100 * (self.float32 - self.rounded)

    def __str__(self) -> str:
        scores = f"{self.metric} {100 * self.float32:.2f} -> {100 * self.rounded:.2f} ({-self.drop:+.2f} points"
        same = f"{self.examples} examples, {100 * self.agreement:.1f} % with the same prediction)"
        return f"{self.name}: {scores}, {same}"


@dataclass(frozen=True, slots=True)
class GateReport:
    """Every task before and after, and the drop in points that was allowed."""

    tasks: tuple[TaskResult, ...]
    allowed: float

    def record(self) -> dict[str, Any]:
        """As JSON, for the manifest and reports."""
        rows = [dataclasses.asdict(task) for task in self.tasks]
        return {"allowed_points": self.allowed, "tasks": {row.pop("name"): row for row in rows}}


class QualityError(TrunklineError):
    """Rounded weights that the gate refuses."""


def quality_gate(before: Predictor, after: Predictor, examples: Examples, max_drop: float) -> GateReport:
    """Scores tasks in float32 and on the graphs that are exported.

    Raises:
        QualityError: A task lost more than `max_drop` points of a hundred.
        TrunklineError: A task without examples.
    """
    tasks = tuple(_result(before, after, name, part) for name, part in sorted(examples.items()))
    # Scores that are no numbers fail too.
    failed = [task for task in tasks if not task.drop <= max_drop]
    if not failed:
        return GateReport(tasks, max_drop)
    few = min(task.examples for task in failed)
    # So few that the gate tells nothing from a single prediction that has changed.
    single = f". One example of {few} is {100 / few:.1f} points" if 100 / few > max_drop else ""
    raise QualityError(
        f"{len(failed)} of {len(tasks)} tasks lose too much: {'; '.join(map(str, failed))}{single}",
        expected=f"a drop of at most {max_drop:g} points",
        todo="Judge by more examples, choose finer weights, allow a larger drop (`--max-drop`), or export with "
        "`--no-gate` and fit the tasks again on the exported bundle",
    )


def _result(before: Predictor, after: Predictor, name: str, examples: Sequence[Any]) -> TaskResult:
    if not examples:
        raise TrunklineError(f"task {name} has no examples to judge weights by", todo="Give its dev part")
    family = FAMILIES[before.tasks[name].family]
    texts = [example.text for example in examples]
    found = [[row[name] for row in predictor.predict(texts, [name])] for predictor in (before, after)]
    scores = [family.score(examples, part)[family.main_score] for part in found]
    same = [family.compare(e, x)[1] == family.compare(e, y)[1] for e, x, y in zip(examples, *found, strict=True)]
    return TaskResult(name, family.main_score, len(texts), scores[0], scores[1], float(np.mean(same)))
