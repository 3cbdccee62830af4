"""Prediction on any engine: several tasks on one text for one pass through the trunk.

An engine computes, for texts, what the heads of tasks say of their units, through one trunk and many branches.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

import numpy as np

from trunkline.bundle.lora import FloatArray, Inputs
from trunkline.bundle.parts import Task
from trunkline.engine.rows import ReadText, TextReader
from trunkline.errors import TrunklineError
from trunkline.tasks import FAMILIES, Scored, get_family
from trunkline.tasks.base import softmax
from trunkline.text.tokens import UnitText

MAX_CHARACTERS = 1_000_000
"""The longest text."""

PLANS = 64
"""Most sets of tasks whose branches are kept."""

_Key = tuple[str, str, str]


@dataclass(frozen=True, slots=True, eq=False)
class Branch:
    """One pass above the fork: an adapter, the units that are pooled, and the heads of all tasks that share both.

    Attributes:
        adapter: Names the adapter: a family's, or a task's own.
        family: Says what the units are, with `units` as in `trunkline.bundle.parts.Task`.
        lora: Inputs of the adapter; empty for the backbone as it is.
        tasks: None if features are asked for.
        heads: `head.weight` [hidden, labels of all tasks] and `head.bias`, which is zero: as a unit may be the sum of
            parts from several windows, each task's bias is added once, in the end.
        columns: For each task where its labels begin and end.
    """

    adapter: str
    family: str
    units: str
    lora: Inputs
    tasks: tuple[Task, ...] = ()
    heads: Inputs = field(init=False)
    columns: dict[str, tuple[int, int]] = field(init=False)

    def __post_init__(self) -> None:
        heads: Inputs = {}
        columns: dict[str, tuple[int, int]] = {}
        if self.tasks:
            weight = np.concatenate([task.inputs["head.weight"] for task in self.tasks], axis=1, dtype=np.float32)
            heads = {"head.weight": weight, "head.bias": np.zeros(weight.shape[1], np.float32)}
            ends = np.cumsum([len(task.labels) for task in self.tasks]).tolist()
            bounds = zip(self.tasks, [0, *ends[:-1]], ends, strict=True)
            columns = {task.name: (begin, end) for task, begin, end in bounds}
        object.__setattr__(self, "heads", heads)
        object.__setattr__(self, "columns", columns)

    @property
    def output(self) -> str:
        """`logits` of the heads, or `features` where there are none."""
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

        With `mixed`, rows of several adapters may share a pass, where the engine can do that. Raises TrunklineError
        where it refuses its weights, or gives values that are not finite.
        """
        ...

    def forget_adapters(self) -> None:
        """Drops what is kept of adapters, after one of them changed."""
        ...


class Predictor:
    """Tasks on an engine. Several threads may call `predict` and `predict_mixed` at the same time.

    Args:
        reader: Splits texts into words and tokens.
        engine: Computes.
        primaries: Inputs of the families' primary adapters.
        tasks: The tasks.
    """

    def __init__(
        self, reader: TextReader, engine: Engine, primaries: Mapping[str, Inputs], tasks: Iterable[Task]
    ) -> None:
        self.reader = reader
        self.engine = engine
        self._primaries = primaries
        self._tasks: dict[str, Task] = {}
        self._plans: dict[tuple[str, ...], tuple[Branch, ...]] = {}
        for task in tasks:
            self.add(task)

    @property
    def tasks(self) -> Mapping[str, Task]:
        """The tasks by name, in alphabetical order."""
        return dict(sorted(self._tasks.items()))

    def add(self, task: Task) -> None:
        """Adds a task, or replaces it; raises MismatchError if its labels are not those of its family."""
        get_family(task.family).check_labels(task.labels, f"task {task.name}")
        self._tasks[task.name] = task
        self._forget()

    def remove(self, name: str) -> None:
        """Removes a task; raises TrunklineError if there is none of this name."""
        chosen_tasks([name], self._tasks)
        del self._tasks[name]
        self._forget()

    def features(
        self, read: Sequence[ReadText], family: str, units: str, lora: Inputs | None = None
    ) -> list[FloatArray]:
        """Features [units, hidden] of texts through a LoRA, or the family's primary adapter by default: the mean of the
        branch's layers over a unit's tokens.
        """
        branch = Branch(family, family, units, self._primaries.get(family, {}) if lora is None else lora)
        found = self.engine.run(read, [(branch,)] * len(read))
        return [found[number, branch] for number in range(len(read))]

    def predict(self, texts: Sequence[str], tasks: Sequence[str] | None = None) -> list[dict[str, Any]]:
        """Runs tasks, all by default, on texts; gives a dict from task to prediction for each, see `Model.predict`.

        The trunk runs once for a text, whatever the number of tasks. Tasks that are only a head share one branch for
        their family; a task with its own LoRA has a branch of its own. Texts longer than the window are read in
        overlapping windows. Halves of surrogate pairs count as characters that say nothing.

        Raises:
            TrunklineError: An unknown task, something that is no text, a text of more than a million characters, or one
                without a context for question answering.
        """
        chosen = chosen_tasks(tasks, self._tasks)
        check_texts(texts)
        results: list[dict[str, Any]] = [{} for _ in texts]
        if not texts or not chosen:
            return results
        found = self._run(texts, {name: range(len(texts)) for name in chosen}, mixed=False)
        for name in chosen:
            for result, prediction in zip(results, found[name], strict=True):
                result[name] = prediction
        return results

    def predict_mixed(self, requests: Sequence[tuple[str, str]]) -> list[Any]:
        """Runs one task on each text; requests, pairs of a text and a task's name, of several tasks share batches.

        A text that comes several times runs through the trunk once, and with several tasks on the same adapter through
        their branch once. Where the bundle has the graph `branch-bank`, rows of several adapters go through the branch
        together.

        Raises:
            TrunklineError: As for `predict`, or a request that is no pair.
        """
        for number, request in enumerate(requests):
            if isinstance(request, str) or not isinstance(request, Sequence) or len(request) != 2:
                raise TrunklineError(f"request {number} is {request!r:.60}", expected="a pair (text, task)")
        chosen_tasks([name for _, name in requests], self._tasks)
        check_texts([text for text, _ in requests])
        numbers = {text: number for number, text in enumerate(dict.fromkeys(text for text, _ in requests))}
        places: dict[str, list[int]] = {}
        for place, (_, name) in enumerate(requests):
            places.setdefault(name, []).append(place)
        asked = {name: [numbers[requests[place][0]] for place in own] for name, own in places.items()}
        found = self._run(list(numbers), asked, mixed=True)
        results: list[Any] = [None] * len(requests)
        for name, own in places.items():
            for place, prediction in zip(own, found[name], strict=True):
                results[place] = prediction
        return results

    def _branches(self, names: Iterable[str]) -> tuple[Branch, ...]:
        """The branches of tasks, each with all of the tasks that share it."""
        asked = tuple(sorted(set(names)))
        # A plan of tasks that change meanwhile goes with the dict that it is put into.
        plans = self._plans
        plan = plans.get(asked)
        if plan is None:
            groups: dict[_Key, list[Task]] = {}
            for name in asked:
                task = self._tasks[name]
                groups.setdefault((_adapter(task), task.family, task.units), []).append(task)
            plan = tuple(Branch(*key, self._lora(tasks[0]), tuple(tasks)) for key, tasks in groups.items())
            if len(plans) >= PLANS:
                plans.clear()
            plans[asked] = plan
        return plan

    def _lora(self, task: Task) -> Inputs:
        inputs = task.inputs if task.own_lora else self._primaries.get(task.family, {})
        return {name: value for name, value in inputs.items() if name.startswith("lora.")}

    def _run(self, texts: Sequence[str], asked: Mapping[str, Sequence[int]], mixed: bool) -> dict[str, list[Any]]:
        """The predictions of tasks, each for the texts of these numbers."""
        branches, read = self._branches(asked), self.reader.read(texts)
        wanted: list[dict[Branch, None]] = [{} for _ in texts]
        for branch in branches:
            for number in (number for task in branch.tasks for number in asked[task.name]):
                wanted[number][branch] = None
        logits = self.engine.run(read, [list(chosen) for chosen in wanted], mixed=mixed)
        scored: dict[str, dict[str, Scored]] = {}
        for branch in branches:
            for task in branch.tasks:
                begin, end = branch.columns[task.name]
                bias, numbers = task.inputs["head.bias"], asked[task.name]
                probabilities = [softmax(logits[number, branch][:, begin:end] + bias) for number in numbers]
                worded = [(read[number].text, read[number].borders(task.units)) for number in numbers]
                found = Scored(probabilities, worded, task.labels, task.transitions)
                scored.setdefault(branch.family, {})[task.name] = found
        return {
            name: predictions
            for family, tasks in scored.items()
            for name, predictions in zip(tasks, FAMILIES[family].decode(list(tasks.values())), strict=True)
        }

    def _forget(self) -> None:
        self._plans = {}
        self.engine.forget_adapters()


def _adapter(task: Task) -> str:
    """A name for the adapter that a task runs on; no family's name has a slash, and no other content this hash."""
    return f"task/{task.name}/{hash(task.content):x}" if task.own_lora else task.family


def check_texts(texts: Sequence[str]) -> None:
    """Raises TrunklineError unless this is a list of texts, none of them longer than `MAX_CHARACTERS`."""
    if isinstance(texts, str):
        raise TrunklineError("predict was given one string", expected="a list of texts", todo="Write predict([text])")
    for index, text in enumerate(texts):
        if not isinstance(text, str):
            raise TrunklineError(f"text {index} is a {type(text).__name__}", expected="a string")
        if len(text) > MAX_CHARACTERS:
            raise TrunklineError(
                f"text {index} has {len(text)} characters", expected=f"at most {MAX_CHARACTERS}", todo="Split it"
            )


def chosen_tasks(names: Sequence[str] | None, known: Iterable[str]) -> list[str]:
    """The tasks that are asked for, all by default; raises TrunklineError for one that is not in the bundle."""
    if isinstance(names, str):
        raise TrunklineError(f"tasks={names!r}", expected=f"a list of names, such as [{names!r}]")
    there = list(known)
    unknown = sorted({str(name) for name in names or ()} - set(there))
    if unknown:
        raise TrunklineError(
            f"tasks {unknown} are not in this bundle", expected="some of " + (", ".join(there) or "(none)")
        )
    return there if names is None else list(names)
