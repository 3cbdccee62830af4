"""What is compared: each method fits draws of a task and predicts its test part."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
import time
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

import trunkline
from trunkline.errors import TrunklineError
from trunkline_lab.few_labels.draws import Draw

FloatArray = npt.NDArray[np.floating[Any]]
WORKERS = Path(__file__).parent / "workers"


@dataclass(frozen=True)
class Answer:
    """What a method gave for a draw.

    Attributes:
        predictions: Of test, in the family's decoded form; `probabilities` only where the method has them.
        seconds: Processor time of the fit, features of its texts included.
        bytes: What the task adds to what is deployed.
        about: How it was fitted, as plain data.
    """

    predictions: Sequence[Any]
    seconds: float
    bytes: int
    about: Mapping[str, Any] = field(default_factory=dict)


Method = Callable[[Sequence[Draw], Sequence[Any]], Iterator[tuple[Draw, Answer]]]
"""Fits draws of one task, and predicts test for each."""


@dataclass(frozen=True)
class Options:
    """Of methods.

    Attributes:
        name: What results call the encoder.
        encoder: A bundle or folder; None is the default encoder.
        build: A checkout of build d62e5f2.
        pythons: Interpreters of peers, by method.
        threads: Of a worker.
    """

    name: str = "default"
    encoder: str | None = None
    build: Path | None = None
    pythons: Mapping[str, str] = field(default_factory=dict)
    threads: int = 1


def ours(mode: str, options: Options) -> Method:
    """`Model.fit`; what is scored is what a saved bundle predicts in its default engine."""

    def run(draws: Sequence[Draw], test: Sequence[Any]) -> Iterator[tuple[Draw, Answer]]:
        # Heads share the branch of their family, so that all of them cost hardly more than one. Each LoRA has its own.
        size = len(draws) if mode == "head" else 1
        for begin in range(0, len(draws), max(size, 1)):
            part, model, reports, seconds = draws[begin : begin + size], trunkline.load(options.encoder), [], []
            for number, found in enumerate(part):
                began = time.process_time()
                reports.append(model.fit(f"t{number}", list(found.train), family=found.family, mode=mode))
                seconds.append(time.process_time() - began)
            with tempfile.TemporaryDirectory(prefix="few-labels-") as folder:
                saved = trunkline.load(model.save(Path(folder) / "bundle"))
                rows = saved.predict([example.text for example in test])
            for number, (found, report) in enumerate(zip(part, reports, strict=True)):
                predictions = [row[f"t{number}"] for row in rows]
                about = {"mode": report.mode, **{k: report.cross_validation[k] for k in ("log_loss", "scores")}}
                yield found, Answer(predictions, seconds[number], report.bytes, about)

    return run


class EmbeddingRegression:
    """scikit-learn's LogisticRegressionCV, 5 folds, on the same encoder's mean-pooled last layer, rows of length 1."""

    def __init__(self, options: Options) -> None:
        from trunkline.encoder.bundle_files import embedder

        self._embed = embedder(options.encoder or "default", 256)
        self._known: dict[str, FloatArray] = {}

    def __call__(self, draws: Sequence[Draw], test: Sequence[Any]) -> Iterator[tuple[Draw, Answer]]:
        """See `Method`; test is embedded once."""
        rows = self._rows(test)
        self._known.clear()
        for found in draws:
            began = time.process_time()
            model = _regression(self._rows(found.train), found, np.logspace(-2, 3, 6))
            seconds = time.process_time() - began
            yield found, Answer(_ranked(model, rows), seconds, 4 * (model.coef_.size + len(model.classes_)))

    def _rows(self, examples: Sequence[Any]) -> FloatArray:
        rows = np.asarray(self._embed([example.text for example in examples]))
        return np.asarray(rows / np.linalg.norm(rows, axis=1, keepdims=True))


def tf_idf(draws: Sequence[Draw], test: Sequence[Any]) -> Iterator[tuple[Draw, Answer]]:
    """scikit-learn's logistic regression on TF-IDF of words, one and two, and of 2 to 5 characters within words."""
    from sklearn.feature_extraction.text import TfidfVectorizer
    from sklearn.pipeline import make_union

    for found in draws:
        began = time.process_time()
        characters = TfidfVectorizer(analyzer="char_wb", ngram_range=(2, 5), sublinear_tf=True)
        vectors = make_union(TfidfVectorizer(ngram_range=(1, 2), sublinear_tf=True), characters)
        model = _regression(vectors.fit_transform([e.text for e in found.train]), found, np.logspace(-1, 3, 5))
        seconds = time.process_time() - began
        rows = vectors.transform([example.text for example in test])
        yield found, Answer(_ranked(model, rows), seconds, 4 * (model.coef_.size + len(model.classes_)))


def _regression(x: Any, found: Draw, penalties: FloatArray) -> Any:
    """C by accuracy in 5 stratified folds, scikit-learn's default score, where a class has 5 texts; else C = 1."""
    from sklearn.linear_model import LogisticRegression
    from sklearn.model_selection import GridSearchCV, StratifiedKFold

    labels, y = np.unique([example.label for example in found.train], return_inverse=True)
    model: Any = LogisticRegression(max_iter=500)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        if np.bincount(y).max() >= 5:
            folds = StratifiedKFold(5, shuffle=True, random_state=found.seed)
            model = GridSearchCV(model, {"C": penalties}, cv=folds).fit(x, labels[y]).best_estimator_
        else:
            model.fit(x, labels[y])
    return model


def _ranked(model: Any, rows: Any) -> list[dict[str, Any]]:
    labels = [str(name) for name in model.classes_]
    return [
        {"label": labels[part.argmax()], "probabilities": dict(zip(labels, part.tolist(), strict=True))}
        for part in model.predict_proba(rows)
    ]


class Worker:
    """A method in a process of its own, with its own packages: a request as a line of JSON, an answer as another.

    A request has `family`, `train` (texts with labels or with spans), `test` (texts), `seed` and `encoder`; an answer
    has the fields of `Answer`. See `trunkline_lab/few_labels/workers`.
    """

    def __init__(self, name: str, python: str, options: Options, path: str = "") -> None:
        self._name, self._encoder = name, options.encoder
        count = str(options.threads)
        threads = dict.fromkeys(("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"), count)
        quiet = {"TOKENIZERS_PARALLELISM": "false", "HF_HUB_OFFLINE": "1", "PYTHONPATH": path}
        command = [python, str(WORKERS / f"{name}.py")]
        environment = {**os.environ, **threads, **quiet}
        self._process = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=environment, encoding="utf-8"
        )

    def __call__(self, draws: Sequence[Draw], test: Sequence[Any]) -> Iterator[tuple[Draw, Answer]]:
        """See `Method`."""
        texts = [example.text for example in test]
        for found in draws:
            train = [[example.text, _marks(example)] for example in found.train]
            request = {"family": found.family, "train": train, "test": texts, "seed": found.seed}
            yield found, self._ask({**request, "encoder": self._folder()})

    def _ask(self, request: Mapping[str, Any]) -> Answer:
        assert self._process.stdin and self._process.stdout
        try:
            self._process.stdin.write(json.dumps(request) + "\n")
            self._process.stdin.flush()
            line = self._process.stdout.readline()
        except BrokenPipeError:
            line = ""
        if not line:
            given = f"the worker of {self._name} ended with code {self._process.wait()}"
            raise TrunklineError(given, expected="its packages in its interpreter", todo="See lab/docs/few-labels.md")
        return Answer(**json.loads(line))

    def _folder(self) -> str:
        from trunkline.encoder.resolve import resolve

        return self._encoder or str(resolve("default").folder)


def of_benchmark(name: str, options: Options, **settings: Any) -> Method:
    """A peer of the benchmark; the state that is kept is the best on what it is trained on, as there is no dev part."""

    def run(draws: Sequence[Draw], test: Sequence[Any]) -> Iterator[tuple[Draw, Answer]]:
        from importlib import import_module

        from trunkline.encoder.resolve import resolve
        from trunkline_lab.fitting import TaskData

        peer = import_module(f"trunkline_lab.benchmark.peers.{name}")
        for found in draws:
            task, began = TaskData(found.task, found.family, found.train, found.train, test), time.process_time()
            chosen, folder = peer.Settings(**settings), resolve(options.encoder or "default").folder
            done = peer.fit_predict(task, folder, seed=found.seed, settings=chosen)
            about = {"settings": vars(chosen), "with": "predictions of test"}
            yield found, Answer(done.predictions, time.process_time() - began, done.n_bytes, about)

    return run


def _marks(example: Any) -> Any:
    return example.label if hasattr(example, "label") else [[s.start, s.end, s.label] for s in example.spans]


def method_of(name: str, options: Options) -> Method:
    """A method by its name, see `METHODS`; a TrunklineError if it is not known, or something is missing for it."""
    if name not in METHODS:
        raise TrunklineError(f"method {name!r}", expected=f"one of {', '.join(METHODS)}")
    return METHODS[name][1](options)


def _build(options: Options) -> Method:
    if options.build is None:
        todo = "git worktree add /tmp/build d62e5f2, then --build /tmp/build"
        raise TrunklineError("build d62e5f2 is not there", expected="a checkout of it", todo=todo)
    return Worker("build", sys.executable, options, str(options.build / "src"))


def _peer(name: str) -> Callable[[Options], Method]:
    return lambda options: Worker(name, options.pythons.get(name, sys.executable), options)


BOTH = ("classification", "ner")
METHODS: Mapping[str, tuple[Sequence[str], Callable[[Options], Method]]] = {
    "head": (BOTH, lambda options: ours("head", options)),
    "auto": (BOTH, lambda options: ours("auto", options)),
    "build": (BOTH, _build),
    "regression": (("classification",), EmbeddingRegression),
    "tf_idf": (("classification",), lambda options: tf_idf),
    "setfit": (("classification",), _peer("setfit")),
    "hf_full": (("ner",), lambda options: of_benchmark("hf_full", options)),
    "spacy": (("ner",), lambda options: of_benchmark("spacy", options, max_steps=400)),
}
"""Families that a method serves, and how it is made."""
