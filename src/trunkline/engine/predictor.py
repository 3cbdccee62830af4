"""Prediction with a deployed bundle: several tasks on one text for one pass through the trunk. No torch."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from trunkline.bundle.files import Deployed, DeployedTask, open_bundle, read_task
from trunkline.bundle.lora import Feeds
from trunkline.bundle.manifest import check_name
from trunkline.engine.onnx import Branch, Engine, Logits
from trunkline.engine.rows import ReadText, TextReader
from trunkline.errors import TrunklineError
from trunkline.tasks import FAMILIES, get_family
from trunkline.tasks.base import Scored
from trunkline.tasks.paths import softmax
from trunkline.tasks.requests import check_texts, chosen_tasks

PLANS = 64
"""Most sets of tasks whose branches are kept."""

_Key = tuple[str, str]


class Runtime:
    """A deployed bundle with its tasks. Make one with `trunkline.runtime.load`.

    Several threads may call `predict` and `predict_mixed` at the same time.
    """

    def __init__(self, deployed: Deployed, threads: int = 1) -> None:
        if not isinstance(threads, int) or isinstance(threads, bool) or threads < 1:
            raise TrunklineError(f"threads={threads!r}", expected="a whole number from 1")
        manifest = deployed.manifest
        self._manifest = manifest
        self._primaries = deployed.primaries
        self._tasks = dict(deployed.tasks)
        for task in self._tasks.values():
            get_family(task.family).check_labels(task.labels, f"task {task.name}")
        self._reader = TextReader.open(deployed.tokenizer, manifest.encoder, threads)
        self._engine = Engine(deployed.graphs, manifest.shapes, manifest.encoder.pad_id, threads)
        self._plans: dict[tuple[str, ...], tuple[Branch, ...]] = {}

    @property
    def tasks(self) -> dict[str, str]:
        """The tasks, name -> family."""
        return {name: task.family for name, task in sorted(self._tasks.items())}

    def add(self, name: str, path: str | Path) -> None:
        """Adds a task from its file, or replaces it; the bundle on disk stays as it is.

        Raises:
            TrunklineError: The file is damaged, or belongs to another backbone or primary adapter.
        """
        task = read_task(Path(path), self._manifest, check_name(name))
        get_family(task.family).check_labels(task.labels, f"task {name}")
        self._tasks[name] = task
        self._forget()

    def remove(self, name: str) -> None:
        """Removes a task; the bundle on disk stays as it is.

        Raises:
            TrunklineError: There is no such task.
        """
        chosen_tasks([name], self._tasks)
        del self._tasks[name]
        self._forget()

    def predict(self, texts: Sequence[str], tasks: Sequence[str] | None = None) -> list[dict[str, Any]]:
        """Runs tasks on texts.

        The trunk runs once for a text, whatever the number of tasks. Tasks that are only a head share one branch for
        their family; a task with its own LoRA has a branch of its own. Texts longer than the window are read in
        overlapping windows.

        Args:
            texts: The texts. Halves of surrogate pairs count as characters that say nothing.
            tasks: Names of tasks; all by default.

        Returns:
            For each text a dict from task to prediction, as `trunkline.Bundle.predict` gives it.

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
        read = self._reader.read(texts)
        logits = self._engine.run(read, [branches] * len(read))
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
        read = self._reader.read(list(numbers))
        logits = self._engine.run(read, [list(found) for found in wanted], mixed=True)
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
        key = tuple(dict.fromkeys(names))
        plan = self._plans.get(key)
        if plan is None:
            groups: dict[_Key, list[DeployedTask]] = {}
            for name in key:
                task = self._tasks[name]
                groups.setdefault((task.family, _adapter(task)), []).append(task)
            plan = tuple(
                Branch(adapter, family, self._lora(tasks[0]), tuple(tasks))
                for (family, adapter), tasks in groups.items()
            )
            if len(self._plans) >= PLANS:
                self._plans = {}
            self._plans[key] = plan
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
                worded = [(read[number].text, read[number].words) for number in numbers]
                found = Scored(probabilities, worded, task.labels, task.transitions)
                scored.setdefault(branch.family, {})[task.name] = found
        return {
            name: predictions
            for family, tasks in scored.items()
            for name, predictions in zip(tasks, FAMILIES[family].decode(list(tasks.values())), strict=True)
        }

    def _forget(self) -> None:
        self._plans = {}
        self._engine.forget_adapters()


def _adapter(task: DeployedTask) -> str:
    """A name for the adapter that a task runs on; no family's name has a slash."""
    return f"task/{task.name}" if task.own_lora else task.family


def load(
    folder: str | Path, threads: int = 1, *, verify: bool = True, public_key: str | bytes | None = None
) -> Runtime:
    """Opens a deployed bundle.

    Args:
        folder: The bundle's folder.
        threads: Threads inside an operator. With 1, everything runs on the caller's thread; with more, texts are
            tokenised in the tokenizer's own pool of threads.
        verify: Whether the hash of every file is checked.
        public_key: If given, the bundle's signature must be by this Ed25519 key.

    Raises:
        TrunklineError: The folder is no deployed bundle, or its parts are damaged or do not belong together.
    """
    return Runtime(open_bundle(Path(folder).expanduser(), verify=verify, public_key=public_key), threads)
