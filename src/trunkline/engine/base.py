"""What an engine is: it computes, for texts, what tasks' heads say of their units, through one trunk and many branches."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Protocol

import numpy as np

from trunkline.bundle.lora import Feeds, FloatArray
from trunkline.bundle.parts import Task
from trunkline.engine.rows import ReadText
from trunkline.tasks import FAMILIES
from trunkline.text.packing import UnitText


@dataclass(frozen=True, slots=True, eq=False)
class Branch:
    """One pass above the fork: an adapter, the units that are pooled, and the heads of all tasks that share both.

    Attributes:
        adapter: Names the adapter: a family's, or a task's own.
        family: Says what the units are.
        units: As in `trunkline.bundle.parts.Task`.
        lora: Feeds of the adapter; empty for the backbone as it is.
        tasks: The tasks; none if features are asked for.
        heads: `head.weight` [hidden, labels of all tasks] and `head.bias`, which is zero: as a unit may be the sum of
            parts from several windows, each task's bias is added once, in the end.
        columns: For each task where its labels begin and end.
    """

    adapter: str
    family: str
    units: str
    lora: Feeds
    tasks: tuple[Task, ...] = ()
    heads: Feeds = field(init=False)
    columns: dict[str, tuple[int, int]] = field(init=False)

    def __post_init__(self) -> None:
        heads: Feeds = {}
        if self.tasks:
            weight = np.concatenate([task.feeds["head.weight"] for task in self.tasks], axis=1, dtype=np.float32)
            heads = {"head.weight": weight, "head.bias": np.zeros(weight.shape[1], np.float32)}
        ends = np.cumsum([len(task.labels) for task in self.tasks]).tolist()
        bounds = zip(self.tasks, [0, *ends[:-1]], ends, strict=True)
        object.__setattr__(self, "heads", heads)
        object.__setattr__(self, "columns", {task.name: (begin, end) for task, begin, end in bounds})

    @property
    def output(self) -> str:
        """What is computed of the units: `logits` of the heads, or `features` where there are none."""
        return "logits" if self.tasks else "features"

    @property
    def pooling(self) -> tuple[str, str]:
        """Branches of equal value pool the same units."""
        return self.family, self.units

    @property
    def layout(self) -> str:
        """Branches of equal value read the same windows, so that they share a trunk."""
        return self.family if FAMILIES[self.family].own_windows else ""

    def units_of(self, text: ReadText) -> UnitText:
        """The units of a text."""
        return FAMILIES[self.family].units(text.text, text.borders(self.units), text.tokens)


Logits = dict[tuple[int, Branch], FloatArray]
"""(Number of the text, branch) -> [units, labels of the branch] without biases, or [units, hidden] features."""


class Engine(Protocol):
    """Computes outputs of branches. Several threads may call `run` at the same time."""

    name: str

    def run(self, texts: Sequence[ReadText], wanted: Sequence[Sequence[Branch]], *, mixed: bool = False) -> Logits:
        """Runs each text through the trunk, and from there through the branches that it wants.

        Args:
            texts: The texts.
            wanted: For each text its branches.
            mixed: Whether rows of several adapters may share a pass, where the engine can do that.

        Raises:
            TrunklineError: The engine refuses its weights, or gives values that are not finite.
        """
        ...

    def forget_adapters(self) -> None:
        """Drops what is kept of adapters, after one of them changed."""
        ...


def features_of(
    engine: Engine, texts: Sequence[ReadText], family: str, units: str, lora: Feeds
) -> list[FloatArray]:
    """Features [units, hidden] of texts through one adapter: the mean of the branch's layers over a unit's tokens."""
    branch = Branch(family, family, units, lora)
    found = engine.run(texts, [(branch,)] * len(texts))
    return [found[number, branch] for number in range(len(texts))]
