"""A loaded bundle: several tasks on one text for one pass through the trunk."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from trunkline.encoder.adapter_file import AdapterFile, load_adapter, lora_hash
from trunkline.encoder.bundle_files import Loaded, check_task, load_bundle
from trunkline.encoder.features import Branch, Features, branch_features
from trunkline.errors import MismatchError, TrunklineError
from trunkline.tasks import Scored, get_family
from trunkline.tasks.requests import check_texts, chosen_tasks, readable
from trunkline.text.packing import UnitText
from trunkline.text.words import split_words

_Key = tuple[str, str]


class Bundle:
    """An encoder with its tasks. Make one with `trunkline.load`."""

    def __init__(self, loaded: Loaded) -> None:
        self._loaded = loaded
        self._tasks = dict(loaded.tasks)

    @property
    def tasks(self) -> dict[str, str]:
        """The tasks, name -> family."""
        return {name: task.family for name, task in sorted(self._tasks.items())}

    def add(self, name: str, path: str | Path) -> None:
        """Adds a task adapter from a file; raises MismatchError if it belongs to another backbone."""
        task = load_adapter(Path(path), self._loaded.encoder.config, self._loaded.backbone)
        check_task(name, task, self._loaded.primaries.get(task.family), self._loaded.encoder.fork)
        self._tasks[name] = task

    def predict(self, texts: Sequence[str], tasks: Sequence[str] | None = None) -> list[dict[str, Any]]:
        """Runs tasks on texts.

        The trunk runs once for a text, whatever the number of tasks. Tasks that are only a head share one branch for
        their family; a task with its own LoRA has a branch of its own. Texts longer than the window are read in
        overlapping windows.

        Args:
            texts: The texts.
            tasks: Names of tasks; all by default.

        Returns:
            For each text a dict from task to prediction: for NER a list of entities with `start`, `end` (character
            offsets, end exclusive), `text`, `label` and `score`; for classification `label`, `score` and
            `probabilities`; for question answering, whose texts are a question, a line feed and the context, `answer`,
            `start` and `end` (in the context; None if there is no answer) and `score`. An empty text has no entities;
            its label is what the head says of no words.

        Raises:
            TrunklineError: An unknown task, something that is no text, a text of more than a million characters, or one
                without a context for question answering.
        """
        chosen = {name: self._tasks[name] for name in chosen_tasks(tasks, self._tasks)}
        check_texts(texts)
        if not texts or not chosen:
            return [{} for _ in texts]
        tokens = self._loaded.tokenizer.encode(readable(texts))
        words = [split_words(text) for text in texts]
        units: dict[str, list[UnitText]] = {}
        branches: dict[_Key, Branch] = {}
        for name, task in chosen.items():
            family = get_family(task.family)
            if task.family not in units:
                rows = zip(texts, words, tokens, strict=True)
                units[task.family] = [family.units(text, spans, part) for text, spans, part in rows]
            lora = task.lora if task.lora is not None else self._loaded.primary(task.family)
            branches.setdefault(self._branch_of(name, task), Branch(units[task.family], lora))
        features: dict[_Key, list[Features]] = {}
        for keys in _by_layout(branches):
            computed = branch_features(self._loaded.encoder, [branches[key] for key in keys])
            features.update(zip(keys, computed, strict=True))
        results: list[dict[str, Any]] = [{} for _ in texts]
        for name, task in chosen.items():
            family, head = get_family(task.family), task.head
            if head is None:
                raise MismatchError(f"task {name} has no head")
            probabilities = [head.probabilities(part) for part in features[self._branch_of(name, task)]]
            worded = list(zip(texts, words, strict=True))
            scored = Scored(probabilities, worded, task.labels, head.transitions)
            for index, found in enumerate(family.decode([scored])[0]):
                results[index][name] = found
        return results

    def _branch_of(self, name: str, task: AdapterFile) -> _Key:
        return task.family, lora_hash(task.lora) and name


def _by_layout(branches: Mapping[_Key, Branch]) -> list[list[_Key]]:
    """Branches in groups whose texts have the same tokens, as only those share a trunk; qa frames texts its own way."""
    groups: list[list[_Key]] = []
    for key, branch in branches.items():
        for group in groups:
            if _same_tokens(branches[group[0]].units, branch.units):
                group.append(key)
                break
        else:
            groups.append([key])
    return groups


def _same_tokens(left: Sequence[UnitText], right: Sequence[UnitText]) -> bool:
    return left is right or all(
        a.sizes == b.sizes and np.array_equal(a.ids, b.ids) for a, b in zip(left, right, strict=True)
    )


def load(folder: str | Path) -> Bundle:
    """Loads a bundle from its folder.

    Raises:
        TrunklineError: The folder is no bundle, or its parts are damaged or do not belong together.
    """
    path = Path(folder).expanduser()
    if not (path / "manifest.json").is_file():
        raise TrunklineError(
            f"{path} has no manifest.json", expected="a bundle's folder", todo="`trunkline quickstart` makes one"
        )
    return Bundle(load_bundle(path))
