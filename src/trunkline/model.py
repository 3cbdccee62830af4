"""The one door: load a model, fit tasks from few labels, predict, evaluate, save. Python and the commands share it."""

from __future__ import annotations

import dataclasses
import itertools
import time
from collections.abc import Iterator, Mapping, Sequence
from functools import partial
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from trunkline.bundle.edit import write_bundle
from trunkline.bundle.files import Bundle, change_tasks, is_bundle, open_bundle, read_sibling, unless_bundle
from trunkline.bundle.manifest import check_name, name_of
from trunkline.bundle.parts import Task, read_task, task_bytes
from trunkline.data.inputs import EXAMPLES, check_learnable, examples_from, texts_from
from trunkline.engine.base import Predictor, chosen_tasks, open_engine, open_source, open_tokenizer
from trunkline.errors import TrunklineError, needs
from trunkline.heads.fit import LabelledFeatures, check_settings, fit_head
from trunkline.results import Evaluation, FitReport
from trunkline.tasks import FAMILIES, Labels
from trunkline.text.tokens import TextTokenizer, UnitText

UNKNOWN = 0.05
"""Share of unknown tokens above which a task is likely to be in another language than the encoder."""


class Model:
    """An encoder with its tasks. Make one with `trunkline.load`.

    Tasks that are fitted, added or removed are in memory until `save` writes them. Several threads may predict at the
    same time. A model that was saved can be pickled: the pickle names its folder.
    """

    def __init__(self, bundle: Bundle, engine: str | None = None, threads: int = 1) -> None:
        self._bundle, self._asked, self._threads = bundle, engine, threads
        computes = open_engine(bundle, engine, threads)
        tokenizer = open_tokenizer(bundle.tokenizer, bundle.manifest.encoder, threads)
        primaries = {family: adapter.inputs for family, adapter in bundle.primaries.items()}
        self._predictor = Predictor(tokenizer, computes, primaries, bundle.tasks.values())
        self._saved: dict[str, Task] = dict(bundle.tasks)

    def __repr__(self) -> str:
        tasks = ", ".join(f"{name} ({family})" for name, family in self.tasks.items()) or "no tasks yet"
        return f"<trunkline model {self.name!r}, engine {self.engine}, {self.precision}: {tasks}>"

    def __reduce__(self) -> Any:
        return partial(load, self._saved_folder().absolute(), engine=self._asked, threads=self._threads), ()

    @property
    def name(self) -> str:
        """The bundle's name."""
        return self._bundle.manifest.name

    @property
    def folder(self) -> Path:
        """Where the bundle lies that was opened or saved last."""
        return self._bundle.folder

    @property
    def tasks(self) -> dict[str, str]:
        """The tasks, name -> family."""
        return {name: task.family for name, task in self._predictor.tasks.items()}

    @property
    def engine(self) -> str:
        """What computes: `onnx` or `torch`."""
        return self._predictor.engine.name

    @property
    def precision(self) -> str:
        """Of the weights that compute: `float32`, `int8` or `int4`."""
        return "float32" if self.engine == "torch" else str(self._bundle.manifest.weights["kind"])

    def fit(
        self,
        name: str,
        texts: Any,
        labels: Any = None,
        *,
        family: str | None = None,
        mode: str = "head",
        dev: Any = None,
        test: Any = None,
        replace: bool = False,
        **settings: Any,
    ) -> FitReport:
        """Learns a task from labelled texts and adds it to the model.

        Settings are chosen by cross-validation within the labels, and the task is then fitted on all of them.

        Args:
            name: The task's name: letters, digits, '.', '_' and '-'.
            texts: The texts: a list, tuple, generator, numpy array, pandas Series or column of `datasets`; or with
                `labels` left out one dict {label: [texts]}, or a list of examples from `trunkline.data`.
            labels: For each text a label, or (NER) a list of spans (start, end, label) in characters, end exclusive.
            family: `ner` or `classification`; only needed where the labels do not tell, as where all are empty.
            mode: `head` fits a linear head on frozen features; `lora` trains low-rank updates besides, with the extra
                `[train]`; `auto` tries these where it is there, and keeps them only if they are better held out.
            dev: `(texts, labels)` on which settings are chosen, instead of by cross-validation; not trained on.
            test: `(texts, labels)` that are only scored.
            replace: Whether a task of this name may be there already.
            settings: `seed` of the folds, `class_weight`; those of `trunkline.heads.decisions.learn`; mode `lora` has
                those of `trunkline.adapt.LoraSettings`.

        Raises:
            TrunklineError: Labels that cannot be learnt, with what to do; a task that is there already.
        """
        began = time.perf_counter()
        self._check_new(name, replace)
        family, parts = _parts(texts, labels, family, {"dev": dev, "test": test})
        task, chosen = self._learnt(name, family, (parts["train"], parts["dev"]), mode, settings)
        before = self._predictor.tasks.get(name)
        self._predictor.add(task)
        tested = parts["test"]
        return FitReport(
            task=name,
            family=family,
            mode=task.info["mode"],
            labels=list(task.types),
            examples={part: len(examples) for part, examples in parts.items()},
            cross_validation=chosen,
            test=FAMILIES[family].score(tested, self._predictions(name, tested)) if tested else {},
            engine=self.engine,
            precision=self.precision,
            bytes=len(task.content),
            seconds=round(time.perf_counter() - began, 3),
            replaced=before.info.get("cross_validation", {}).get("scores") if before else None,
            warnings=[*self._warnings(task, parts, chosen["never_predicted"]), *chosen.pop("notes", ())],
        )

    def predict(
        self,
        texts: Any,
        tasks: Sequence[str] | None = None,
        *,
        top_k: int | None = None,
        min_score: float | Mapping[str, float] | None = None,
        coverage: float | None = None,
    ) -> list[dict[str, Any]]:
        """Runs tasks on texts; longer ones than the window are read in overlapping windows.

        Args:
            texts: Any iterable of texts; see `predict_iter` for many.
            tasks: Names of tasks; all by default.
            top_k: How many labels have their probability shown, the best ones.
            min_score: Least score of what is said, for all tasks or by task: below it the label of a text is None, and
                an entity is left out. By default what a task's file says, see `fit`.
            coverage: Share of texts whose right label is to be in `set`, a list of labels, likely ones first; it is
                empty where none is likely enough.

        Returns:
            For each text a dict from task to prediction: for NER a list of entities with `start`, `end` (character
            offsets, end exclusive), `text`, `label` and `score`; for classification `label`, `score` and
            `probabilities`; for question answering, whose texts are a question, a line feed and the context, `answer`,
            `start` and `end` (in the context; None if there is no answer) and `score`.

        Raises:
            TrunklineError: An unknown task, something that is no text, a text of more than a million characters, or one
                without a context for question answering.
        """
        return list(self.predict_iter(texts, tasks, top_k=top_k, min_score=min_score, coverage=coverage))

    def predict_iter(
        self, texts: Any, tasks: Sequence[str] | None = None, *, batch: int = 256, **options: Any
    ) -> Iterator[dict[str, Any]]:
        """Like `predict`, but yields predictions as texts come, in bounded memory: at most `batch` texts are held."""
        chosen = chosen_tasks(tasks, self.tasks)
        if not self.tasks:
            raise TrunklineError(f"{self.name} has no tasks yet", todo="Add one with fit(name, texts, labels)")
        if not isinstance(batch, int) or batch < 1:
            raise TrunklineError(f"batch={batch!r}", expected="a whole number from 1")
        stream = texts_from(texts)
        parts = iter(lambda: list(itertools.islice(stream, batch)), [])
        return (row for part in parts for row in self._predictor.predict(part, chosen, **options))

    def predict_mixed(self, requests: Sequence[tuple[str, str]]) -> list[Any]:
        """One prediction for each `(text, task)`; requests of several tasks share batches.

        A text that comes several times runs through the trunk once. Where the bundle has the graph `branch-bank`, rows
        of several adapters go through the branch together. Errors as for `predict`.
        """
        return self._predictor.predict_mixed(requests)

    def evaluate(self, name: str, texts: Any, labels: Any = None) -> Evaluation:
        """Scores a task on labelled texts: overall, a row a label, the confusion matrix and the wrong examples.

        Texts and labels are given as for `fit`.

        Raises:
            TrunklineError: There is no such task, no example, or the labels are of another family.
        """
        chosen_tasks([name], self.tasks)
        kind = self.tasks[name]
        _, examples = _examples(texts, labels, kind)
        if not examples:
            raise TrunklineError("there are no examples", expected="at least one labelled text")
        task = self._predictor.tasks[name]
        return Evaluation.of(name, FAMILIES[kind], examples, self._predictions(name, examples), task.types, self.name)

    def add(self, name: str, source: str | Path | bytes, *, replace: bool = False) -> None:
        """Adds a task from its file.

        Raises:
            TrunklineError: The file is damaged, belongs to another backbone or primary adapter, or the name is taken.
        """
        self._check_new(name, replace)
        content = source if isinstance(source, bytes) else Path(source).expanduser()
        self._predictor.add(read_task(content, dataclasses.replace(self._bundle.manifest, tasks={}), name))

    def remove(self, name: str) -> None:
        """Removes a task; raises TrunklineError if there is none of this name."""
        self._predictor.remove(name)

    def save(self, folder: str | Path, *, tasks: Sequence[str] | None = None, replace_tasks: bool = False) -> Path:
        """Writes the model as a bundle, whole or not at all.

        Into the bundle that was opened go the changes: tasks that were fitted, added, replaced or removed; tasks that
        others added meanwhile stay. Into another bundle of the same encoder go the tasks.

        Args:
            folder: One of these, or a new or empty folder.
            tasks: Names; all by default.
            replace_tasks: Whether other tasks of these names, which this model does not know, may be there.

        Raises:
            TrunklineError: The place is taken by something else, or cannot be written to.
        """
        path, chosen = Path(folder).expanduser(), chosen_tasks(tasks, self.tasks)
        contents = {name: self._predictor.tasks[name].content for name in chosen}
        manifest, written = self._bundle.manifest, None
        if not is_bundle(path):
            of_tasks = {task.file for task in manifest.tasks.values()}
            files = {file: self.folder / file for file in manifest.files if file not in of_tasks}
            named = dataclasses.replace(manifest, name=name_of(path, manifest.name))
            with unless_bundle(path):
                written = write_bundle(path, named, files, contents)
        if not written:
            there = read_sibling(path, manifest)
            before = self._saved if path.resolve() == self.folder.resolve() else {}
            changed = {n: c for n, c in contents.items() if n not in before or before[n].content != c}
            gone = (before.keys() - self.tasks.keys()) & there.tasks.keys() if tasks is None else ()
            change_tasks(path, changed, gone, replace=contents if replace_tasks else before)
        if tasks is None:
            self._bundle, self._saved = open_bundle(path, verify=False), dict(self._predictor.tasks)
        return path

    def export(self, folder: str | Path, **options: Any) -> dict[str, Any]:
        """Writes a bundle with ONNX graphs; needs the extra `[train]` and a bundle with weights for torch.

        `folder` is new or empty; options are those of `trunkline.export.bundle.ExportOptions`, as `weights="int8"`.
        Returns what the command prints with `--json`.
        """
        with needs("train", "export"):
            from trunkline.export.bundle import ExportOptions, export_bundle
        return export_bundle(self._saved_folder(), folder, ExportOptions(**options))

    def push_to_hub(self, repository: str, *, private: bool = True, token: str | None = None) -> str:
        """Uploads the saved bundle to a model repository of the Hugging Face hub; needs the extra `[hub]`.

        `repository` is `owner/name`; it is made if it is missing, `private` or not. `token` is of access, by default
        the one that `hf auth login` keeps. Returns the repository's address.
        """
        from trunkline.hub import push

        return push(self._saved_folder(), repository, private=private, token=token)

    @property
    def bundle(self) -> Bundle:
        """The bundle that was opened or saved last."""
        return self._bundle

    @property
    def tokenizer(self) -> TextTokenizer:
        """The encoder's tokenizer with its windows."""
        return self._predictor.tokenizer

    def labelled(
        self, examples: Sequence[Any], family: str, units: str, labels: Labels, *, features: bool = False
    ) -> tuple[LabelledFeatures, list[UnitText]]:
        """What fitting needs of examples: texts with the borders of their units, targets, features; and their units.

        Targets count in `labels`, which may lack some of dev. Features are left empty where they are not asked for.
        """
        kind, read = FAMILIES[family], self.tokenizer.encode([example.text for example in examples])
        texts = [(part.text, part.borders(units)) for part in read]
        targets = [kind.unit_targets(e, labels, own) for e, (_, own) in zip(examples, texts, strict=True)]
        if features:
            return LabelledFeatures(examples, texts, self._predictor.features(read, family, units), targets), []
        tokenised = [kind.units(part, own) for part, (_, own) in zip(read, texts, strict=True)]
        return LabelledFeatures(examples, texts, [], targets), tokenised

    def _learnt(
        self, name: str, family: str, parts: tuple[Sequence[Any], Sequence[Any]], mode: str, settings: dict[str, Any]
    ) -> tuple[Task, dict[str, Any]]:
        if settings.keys() & {"precision", "other", "unlabelled"}:
            from trunkline.heads.decisions import learn

            return learn(self, name, family, parts, mode, **settings)
        if mode not in ("head", "lora", "auto"):
            raise TrunklineError(f"mode {mode!r}", expected="one of head, lora, auto")
        check_settings(FAMILIES[family], settings.get("class_weight"), settings.get("seed", 0))
        if mode == "lora" or (mode == "auto" and find_spec("torch")):
            with needs("train", f"mode {mode}"):
                from trunkline.adapt import fit_lora
            return fit_lora(self, name, family, parts, only_if_better=mode == "auto", **settings)
        for other in settings.keys() - {"seed", "class_weight"}:
            todo = "Others go with mode lora or auto: mode='lora' in Python, --mode lora on the command line"
            raise TrunklineError(f"mode head has no setting {other!r}", expected="seed or class_weight", todo=todo)
        task, chosen = self._fit_head(name, family, parts, **settings)
        return task, {**chosen, "lora": {"not_tried": "no extra [train]"}} if mode == "auto" else chosen

    def _warnings(self, task: Task, parts: dict[str, list[Any]], never_predicted: Sequence[str]) -> list[str]:
        """What a user should know of a fit; `never_predicted` as for `Classification.doubts`."""
        read = self.tokenizer.encode([example.text for example in parts["train"]])
        found = FAMILIES[task.family].doubts(parts, [part.borders(task.units) for part in read], never_predicted)
        if (share := self.tokenizer.unknown_share(read)) > UNKNOWN:
            found.append(f"the encoder does not know {share:.0%} of the tokens: take one for this language")
        return found

    def _fit_head(
        self, name: str, family: str, parts: tuple[Sequence[Any], Sequence[Any]], seed: int = 0, **weights: Any
    ) -> tuple[Task, dict[str, Any]]:
        """A task with a head on frozen features, from train and dev examples, and how it was chosen; see `fit`."""
        (train, dev), kind = parts, FAMILIES[family]
        units, labels = kind.choose_units(train, self.tokenizer), kind.labels(train)
        data, _ = self.labelled([*train, *dev], family, units, labels, features=True)
        fitted = fit_head(kind, data, labels, n_dev=len(dev), seed=seed, **weights)
        info = {"mode": "head", "examples": len(train), "cross_validation": fitted.record()}
        info |= {"engine": self.engine, "precision": self.precision}
        return self._task(name, family, labels, fitted.head, units=units, info=info), fitted.record()

    def _task(self, name: str, *parts: Any, **more: Any) -> Task:
        """A task of these parts, which are those of `task_bytes`; it is not added."""
        # A task more, or another one of this name, maybe of another family.
        manifest = dataclasses.replace(self._bundle.manifest, tasks={})
        return read_task(task_bytes(manifest, *parts, **more), manifest, name)

    def _check_new(self, name: str, replace: bool) -> None:
        check_name(name)
        if name in self.tasks and not replace:
            todo = "Pass replace=True (--replace), or take another name"
            raise TrunklineError(f"there is a task {name} already", todo=todo)

    def _predictions(self, name: str, examples: Sequence[Any]) -> list[Any]:
        return [found[name] for found in self.predict_iter((example.text for example in examples), [name])]

    def _saved_folder(self) -> Path:
        contents = ({n: t.content for n, t in tasks.items()} for tasks in (self._predictor.tasks, self._saved))
        if next(contents) != next(contents):
            raise TrunklineError("this model has tasks that are not saved", todo="Call save(folder) first")
        return self.folder


def load(
    source: str | Path | None = None,
    *,
    engine: str | None = None,
    threads: int = 1,
    verify: bool = True,
    public_key: str | bytes | None = None,
) -> Model:
    """Opens a model.

    Args:
        source: A bundle's folder, a repository `owner/name` of the Hugging Face hub, or the folder of a plain encoder
            (extra `[train]`); by default the default model, which has no tasks yet.
        engine: `onnx`, `torch`, or None for the one that fits: onnx where the bundle has graphs, otherwise torch.
        threads: Threads inside an operator. With 1, everything runs on the caller's thread.
        verify: Whether the SHA-256 of every file is checked; the default model is checked when it is made.
        public_key: If given, the bundle's signature must be by this Ed25519 key.

    Raises:
        TrunklineError: There is no such model, its parts are damaged or do not belong together, or an extra is missing.
    """
    return Model(open_source(source, verify=verify, public_key=public_key), engine, threads)


def _parts(texts: Any, labels: Any, family: str | None, others: dict[str, Any]) -> tuple[str, dict[str, list[Any]]]:
    """The family, and the examples of each part, `others` as for `fit`; refused if train teaches nothing."""
    family, train = _examples(texts, labels, family)
    parts = {"train": train}
    for part, given in others.items():
        own, marks = given if isinstance(given, tuple) and len(given) == 2 else (given, None)
        parts[part] = [] if given is None else _examples(own, marks, family, part)[1]
    classes = set().union(*map(FAMILIES[family].classes, train))
    if len(classes) < 2 or len({" ".join(one.text.split()) for one in train}) < 2:
        check_learnable(family, train)
    return family, parts


def _examples(texts: Any, labels: Any, family: str | None, part: str = "") -> tuple[str, list[Any]]:
    """As `examples_from`; a list of examples of the family, as the readers give it, is taken as it is."""
    kind = EXAMPLES.get(family or "")
    if family and kind and labels is None and isinstance(texts, list) and all(isinstance(one, kind) for one in texts):
        return family, texts
    return examples_from(texts, labels, family, part)
