"""From a name to predictions: bundles and engines are opened, texts are read, and tasks run on an engine.

An engine computes, for texts, what the heads of tasks say of their units, through one trunk and many branches.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from trunkline.bundle.files import Bundle, is_bundle, open_bundle
from trunkline.bundle.manifest import BRANCHES, MANIFEST, EncoderFacts, FloatArray, Inputs
from trunkline.bundle.parts import Task
from trunkline.data.inputs import texts_from
from trunkline.errors import MismatchError, TrunklineError, needs
from trunkline.tasks import FAMILIES, Scored
from trunkline.text.tokens import TextTokenizer, Tokens, UnitText
from trunkline.text.words import unit_shapes

_REPOSITORY = re.compile(r"[A-Za-z0-9][\w.-]*/[A-Za-z0-9][\w.-]*(@[\w./-]+)?")


def open_source(source: str | Path | None, *, verify: bool = True, public_key: str | bytes | None = None) -> Bundle:
    """Opens a bundle by folder, repository of the hub, folder of a plain encoder, or None for the default model.

    Raises TrunklineError if there is none, or an extra is missing.
    """
    if source is None or source == "default":
        from trunkline.engine.default import default_bundle

        return open_bundle(default_bundle(), verify=False)
    folder, name = Path(source).expanduser(), str(source)
    if is_bundle(folder):
        return open_bundle(folder, verify, public_key)
    try:
        plain, other = (folder / "config.json").is_file(), folder.exists()
    except OSError as error:
        raise TrunklineError(f"{name[:300]} cannot be looked at ({error.strerror})") from error
    if plain:
        with needs("train", f"{folder} is a plain encoder, and loading it"):
            from trunkline.encoder.bundle_files import cached_bundle
        return open_bundle(cached_bundle(str(folder)), verify=False)
    if other:
        expected = "the folder of a bundle or of an encoder in Hugging Face layout"
        todo = "`trunkline fit --out DIR` and `trunkline prefinetune` make bundles"
        raise TrunklineError(f"{folder} has neither {MANIFEST} nor config.json", expected=expected, todo=todo)
    if not _REPOSITORY.fullmatch(name):
        expected = "a bundle's folder, OWNER/NAME of the hub, or nothing for the default"
        raise TrunklineError(f"there is no folder {name}", expected=expected)
    from trunkline.hub import fetch

    repository, _, revision = name.partition("@")
    return open_bundle(fetch(repository, revision or None), verify, public_key)


def open_engine(bundle: Bundle, engine: str | None = None, threads: int = 1) -> Engine:
    """The engine of a bundle: onnx where it has graphs, else torch, unless one is asked for.

    Raises TrunklineError for an unknown engine, one that the bundle has no weights for, or a missing extra.
    """
    manifest = bundle.manifest
    if engine not in (None, "onnx", "torch"):
        raise TrunklineError(f"engine {engine!r}", expected="onnx or torch")
    if type(threads) is not int or threads < 1:
        raise TrunklineError(f"threads={threads!r}", expected="a whole number from 1")
    if engine == "onnx" and not manifest.graphs:
        given, todo = "no graphs for ONNX Runtime", "`trunkline export` makes one, or load it with engine='torch'"
        raise TrunklineError(f"{bundle.folder} has {given}", expected="an exported bundle", todo=todo)
    if engine == "torch" and not manifest.checkpoint:
        given, expected = f"{bundle.folder} has no weights for torch", "a bundle as pre-finetuning writes it"
        raise TrunklineError(given, expected=expected, todo="Load it with engine='onnx'")
    if manifest.graphs and engine != "torch":
        from trunkline.engine.onnx import OnnxEngine

        return OnnxEngine(bundle.graphs, manifest.shapes, manifest.encoder.pad_id, threads)
    with needs("train", "the engine torch" if engine else f"{bundle.folder}, which has weights for torch alone,"):
        from trunkline.encoder.bundle_files import bundle_encoder
        from trunkline.engine.torch import TorchEngine
    return TorchEngine(bundle_encoder(bundle))


def open_tokenizer(path: Path, encoder: EncoderFacts, threads: int = 1) -> TextTokenizer:
    """A bundle's tokenizer with its windows; with more than one thread it takes as many as its own pool has.

    Raises EncoderError if the file cannot be read, MismatchError if it has tokens that the encoder does not have.
    """
    found = TextTokenizer.from_file(path, encoder.max_length, encoder.overlap, pool=threads > 1)
    size = found.tokenizer.get_vocab_size(with_added_tokens=True)
    if size > encoder.vocabulary_size:
        expected = f"at most {encoder.vocabulary_size}, the encoder's vocabulary"
        raise MismatchError(f"{path} has {size} tokens", expected=expected, todo="Export or fetch the bundle again")
    return found


@dataclass(frozen=True, eq=False)
class Branch:
    """One pass above the fork: an adapter, the units that are pooled, and the heads of all tasks that share both.

    `adapter` names the adapter: a family's, or a task's own. `family` says what the units are, with `units` as in
    `trunkline.bundle.parts.Task`. `lora` is empty for the backbone as it is, `tasks` where features are asked for.
    """

    adapter: str
    family: str
    units: str
    lora: Inputs
    tasks: tuple[Task, ...] = ()

    @cached_property
    def heads(self) -> Inputs:
        """`head.weight` [hidden, labels of all tasks, one after the other] and `head.bias`, which is zero.

        As a unit may be the sum of parts from several windows, each task's bias is added once, in the end.
        """
        if not self.tasks:
            return {}
        weight = np.concatenate([task.inputs["head.weight"] for task in self.tasks], axis=1, dtype=np.float32)
        return {"head.weight": weight, "head.bias": np.zeros(weight.shape[1], np.float32)}

    @property
    def pooling(self) -> tuple[str, str]:
        """Branches of equal value pool the same units."""
        return self.family, self.units

    @property
    def layout(self) -> str:
        """Branches of equal value read the same windows, so that they share a trunk."""
        return "" if FAMILIES[self.family].shares_trunk else self.family

    def units_of(self, text: Tokens) -> UnitText:
        """The units of a text."""
        return FAMILIES[self.family].units(text, text.borders(self.units))


Logits = dict[tuple[int, Branch], FloatArray]
"""(Number of the text, branch) -> [units, labels of the branch] without biases, or [units, hidden] features."""


class Engine(Protocol):
    """Computes outputs of branches. Several threads may call `run` at the same time."""

    name: str

    def run(self, texts: Sequence[Tokens], wanted: Sequence[Sequence[Branch]], *, mixed: bool = False) -> Logits:
        """Runs each text through the trunk, and from there through the branches that it wants.

        With `mixed`, rows of several adapters may share a pass, where the engine can do that. Raises TrunklineError
        where it refuses its weights, or gives values that are not finite.
        """
        ...


class Predictor:
    """Tasks on an engine. Several threads may call `predict` and `predict_mixed` at the same time.

    The tokenizer has the bundle's windows, `primaries` are inputs of the families' primary adapters, and `tasks` are
    afterwards by name in alphabetical order.
    """

    def __init__(
        self, tokenizer: TextTokenizer, engine: Engine, primaries: Mapping[str, Inputs], tasks: Iterable[Task]
    ) -> None:
        self.tokenizer, self.engine, self._primaries = tokenizer, engine, primaries
        self.tasks: Mapping[str, Task] = {}
        for task in tasks:
            self.add(task)

    def add(self, task: Task) -> None:
        """Adds a task, or replaces it; raises MismatchError if its labels are not those of its family."""
        FAMILIES[task.family].check_labels(task.labels, f"task {task.name}")
        self.tasks = dict(sorted({**self.tasks, task.name: task}.items()))

    def remove(self, name: str) -> None:
        """Removes a task; raises TrunklineError if there is none of this name."""
        chosen_tasks([name], self.tasks)
        self.tasks = {other: task for other, task in self.tasks.items() if other != name}

    def features(self, read: Sequence[Tokens], family: str, units: str) -> list[FloatArray]:
        """Features of texts by a family's adapter: means of the branch's layers over units' tokens, see `widened`."""
        family = BRANCHES.get(family, family)
        branch = Branch(family, family, units, self._primaries.get(family, {}))
        found = self.engine.run(read, [(branch,)] * len(read))
        worded = [(text.text, text.borders(units)) for text in read]
        return FAMILIES[family].widened(worded, [found[number, branch] for number in range(len(read))])

    def predict(self, texts: Sequence[str], tasks: Sequence[str] | None = None, **options: Any) -> list[dict[str, Any]]:
        """Runs tasks, all by default, on texts; gives a dict from task to prediction for each, see `Model.predict`.

        The trunk runs once for a text. Tasks that are only a head share one branch for their family; a task with its
        own LoRA has a branch of its own.
        """
        chosen = chosen_tasks(tasks, self.tasks)
        found = self._run(texts, {name: range(len(texts)) for name in chosen}, mixed=False)
        rows = ({name: found[name][number] for name in chosen} for number in range(len(texts)))
        return list(self._decided(rows, chosen, **options))

    def _decided(
        self, rows: Iterable[dict[str, Any]], names: Iterable[str], **options: Any
    ) -> Iterable[dict[str, Any]]:
        """What is made of predictions, where something is asked for here or by the tasks' files."""
        tasks = {name: self.tasks[name] for name in names}
        asked = any(value is not None for value in options.values())
        if not asked and not any({"min_score", "other"} & task.decisions.keys() for task in tasks.values()):
            return iter(rows)
        from trunkline.heads.decisions import decider

        return map(decider(tasks, **options), rows)

    def predict_mixed(self, requests: Sequence[tuple[str, str]]) -> list[Any]:
        """Runs one task on each text, see `Model.predict_mixed`; tasks on the same adapter share their branch, too."""
        for number, request in enumerate(requests):
            if isinstance(request, str) or not isinstance(request, Sequence) or len(request) != 2:
                raise TrunklineError(f"request {number} is {request!r:.60}", expected="a pair (text, task)")
        chosen_tasks([name for _, name in requests], self.tasks)
        texts = list(texts_from([text for text, _ in requests]))
        numbers = {text: number for number, text in enumerate(dict.fromkeys(texts))}
        asked: dict[str, list[int]] = {}
        for text, name in requests:
            asked.setdefault(name, []).append(numbers[text])
        found = {name: iter(part) for name, part in self._run(list(numbers), asked, mixed=True).items()}
        rows = ({name: next(found[name])} for _, name in requests)
        return [prediction for row in self._decided(rows, asked) for prediction in row.values()]

    def _branches(self, names: Iterable[str]) -> list[Branch]:
        """The branches of tasks, each with all of the tasks that share it."""
        groups: dict[tuple[str, str, str], list[Task]] = {}
        # Another thread may change the tasks meanwhile.
        known = self.tasks
        for name in sorted(chosen_tasks(list(names), known)):
            task = known[name]
            family = BRANCHES.get(task.family, task.family)
            # No family's name has a slash, and no other content this hash.
            adapter = f"task/{name}/{hash(task.content):x}" if task.own_lora else family
            groups.setdefault((adapter, family, task.units), []).append(task)
        found = []
        for key, tasks in groups.items():
            inputs = tasks[0].inputs if tasks[0].own_lora else self._primaries.get(key[1], {})
            lora = {part: value for part, value in inputs.items() if part.startswith("lora.")}
            found.append(Branch(*key, lora, tuple(tasks)))
        return found

    def _run(self, texts: Sequence[str], asked: Mapping[str, Sequence[int]], mixed: bool) -> dict[str, list[Any]]:
        """The predictions of tasks, each for the texts of these numbers."""
        branches, read = self._branches(asked), self.tokenizer.encode(texts)
        wanted: list[dict[Branch, None]] = [{} for _ in texts]
        for branch in branches:
            for number in (number for task in branch.tasks for number in asked[task.name]):
                wanted[number][branch] = None
        logits = self.engine.run(read, [list(chosen) for chosen in wanted], mixed=mixed)
        scored: dict[str, dict[str, Scored]] = {}
        for branch in branches:
            begin, shapes = 0, dict[int, FloatArray]()
            for task in branch.tasks:
                end, numbers, bias = begin + len(task.labels), asked[task.name], task.inputs["head.bias"]
                said = [logits[number, branch][:, begin:end] + bias for number in numbers]
                worded = [(read[number].text, read[number].borders(task.units)) for number in numbers]
                if task.shapes is not None:
                    pairs = zip(numbers, worded, strict=True)
                    shapes |= {number: unit_shapes(*text) for number, text in pairs if number not in shapes}
                    said = [part + shapes[number] @ task.shapes for number, part in zip(numbers, said, strict=True)]
                probabilities = [FAMILIES[task.family].probabilities(part) for part in said]
                found = Scored(probabilities, worded, task.labels, task.transitions, task.decisions)
                scored.setdefault(task.family, {})[task.name] = found
                begin = end
        return {
            name: predictions
            for family, tasks in scored.items()
            for name, predictions in zip(tasks, FAMILIES[family].decode(list(tasks.values())), strict=True)
        }


def chosen_tasks(names: Sequence[str] | None, known: Iterable[str]) -> list[str]:
    """The tasks that are asked for, all by default; raises TrunklineError for one that is not in the bundle."""
    if isinstance(names, str):
        raise TrunklineError(f"tasks={names!r}", expected=f"a list of names, such as [{names!r}]")
    there = list(known)
    unknown = sorted({str(name) for name in names or ()} - set(there))
    if unknown:
        expected = "some of " + (", ".join(there) or "(none)")
        raise TrunklineError(f"tasks {unknown} are not in this bundle", expected=expected)
    return there if names is None else list(names)
