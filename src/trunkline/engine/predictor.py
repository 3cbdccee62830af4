"""Prediction: several tasks on one text for one pass through the trunk, on any engine."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from trunkline.bundle.lora import Feeds, FloatArray
from trunkline.bundle.parts import Task
from trunkline.engine.base import Branch, Engine, Logits, features_of
from trunkline.engine.rows import ReadText, TextReader
from trunkline.errors import TrunklineError
from trunkline.tasks import FAMILIES, Scored, get_family
from trunkline.tasks.paths import softmax
from trunkline.tasks.requests import check_texts, chosen_tasks

PLANS = 64
"""Most sets of tasks whose branches are kept."""

_Key = tuple[str, str, str]


class Predictor:
    """Tasks on an engine. Several threads may call `predict` and `predict_mixed` at the same time.

    Args:
        reader: Splits texts into words and tokens.
        engine: Computes.
        primaries: Feeds of the families' primary adapters.
        tasks: The tasks.
    """

    def __init__(
        self, reader: TextReader, engine: Engine, primaries: Mapping[str, Feeds], tasks: Iterable[Task]
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
        self, read: Sequence[ReadText], family: str, units: str, lora: Feeds | None = None
    ) -> list[FloatArray]:
        """Features [units, hidden] of texts through a LoRA, or the family's primary adapter by default."""
        return features_of(self.engine, read, family, units, self._primaries.get(family, {}) if lora is None else lora)

    def predict(self, texts: Sequence[str], tasks: Sequence[str] | None = None) -> list[dict[str, Any]]:
        """Runs tasks on texts.

        The trunk runs once for a text, whatever the number of tasks. Tasks that are only a head share one branch for
        their family; a task with its own LoRA has a branch of its own. Texts longer than the window are read in
        overlapping windows.

        Args:
            texts: The texts. Halves of surrogate pairs count as characters that say nothing.
            tasks: Names of tasks; all by default.

        Returns:
            For each text a dict from task to prediction, see `trunkline.model.Model.predict`.

        Raises:
            TrunklineError: An unknown task, something that is no text, a text of more than a million characters, or one
                without a context for question answering.
        """
        chosen = chosen_tasks(tasks, self._tasks)
        check_texts(texts)
        results: list[dict[str, Any]] = [{} for _ in texts]
        if not texts or not chosen:
            return results
        branches = self._branches(chosen)
        read = self.reader.read(texts)
        logits = self.engine.run(read, [branches] * len(read))
        found = self._decode({name: range(len(read)) for name in chosen}, branches, read, logits)
        for name in chosen:
            for result, prediction in zip(results, found[name], strict=True):
                result[name] = prediction
        return results

    def predict_mixed(self, requests: Sequence[tuple[str, str]]) -> list[Any]:
        """Runs one task on each text; requests of several tasks share batches.

        A text that comes several times runs through the trunk once, and with several tasks on the same adapter through
        their branch once. Where the bundle has the graph `branch-bank`, rows of several adapters go through the branch
        together.

        Args:
            requests: Texts, each with the name of a task.

        Returns:
            For each request its prediction, as in `predict`.

        Raises:
            TrunklineError: As for `predict`, or a request that is no pair.
        """
        for number, request in enumerate(requests):
            if isinstance(request, str) or not isinstance(request, Sequence) or len(request) != 2:
                raise TrunklineError(f"request {number} is {request!r:.60}", expected="a pair (text, task)")
        names = [name for _, name in requests]
        chosen = chosen_tasks(names, self._tasks)
        check_texts([text for text, _ in requests])
        numbers = {text: number for number, text in enumerate(dict.fromkeys(text for text, _ in requests))}
        branches = self._branches(sorted(set(chosen)))
        owner = {task.name: branch for branch in branches for task in branch.tasks}
        wanted: list[dict[Branch, None]] = [{} for _ in numbers]
        for text, name in requests:
            wanted[numbers[text]][owner[name]] = None
        read = self.reader.read(list(numbers))
        logits = self.engine.run(read, [list(found) for found in wanted], mixed=True)
        places: dict[str, list[int]] = {name: [] for name in names}
        for place, name in enumerate(names):
            places[name].append(place)
        asked = {name: [numbers[requests[place][0]] for place in own] for name, own in places.items()}
        found = self._decode(asked, branches, read, logits)
        results: list[Any] = [None] * len(requests)
        for name, own in places.items():
            for place, prediction in zip(own, found[name], strict=True):
                results[place] = prediction
        return results

    def _branches(self, names: Iterable[str]) -> tuple[Branch, ...]:
        """The branches of tasks, each with all of the tasks that share it."""
        asked = tuple(dict.fromkeys(names))
        plan = self._plans.get(asked)
        if plan is None:
            groups: dict[_Key, list[Task]] = {}
            for name in asked:
                task = self._tasks[name]
                groups.setdefault((_adapter(task), task.family, task.units), []).append(task)
            plan = tuple(
                Branch(*key, self._lora(tasks[0]), tuple(tasks)) for key, tasks in groups.items()
            )
            if len(self._plans) >= PLANS:
                self._plans = {}
            self._plans[asked] = plan
        return plan

    def _lora(self, task: DeployedTask) -> Feeds:
        feeds = task.feeds if task.own_lora else self._primaries.get(task.family, {})
        return {name: value for name, value in feeds.items() if name.startswith("lora.")}

    def _decode(
        self,
        asked: Mapping[str, Sequence[int]],
        branches: Sequence[Branch],
        read: Sequence[ReadText],
        logits: Logits,
    ) -> dict[str, list[Any]]:
        """The predictions of tasks, each for its texts, from what their branches say of these."""
        scored: dict[str, dict[str, Scored]] = {}
        for branch in branches:
            for task in branch.tasks:
                numbers = asked[task.name]
                begin, end = branch.columns[task.name]
                bias = task.feeds["head.bias"]
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
    """A name for the adapter that a task runs on; no family's name has a slash."""
    return f"task/{task.name}" if task.own_lora else task.family

