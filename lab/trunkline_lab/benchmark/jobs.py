"""Running a job: the task and the encoder are loaded and the features computed once, then its cells one by one."""

from __future__ import annotations

import time
import traceback
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from typing import Any, cast

import torch

from trunkline.bundle.parts import Head
from trunkline.encoder.bundle_files import Loaded, manifest_of
from trunkline.encoder.encoder import Features
from trunkline.encoder.lora import LoraAdapter
from trunkline.encoder.resolve import resolve
from trunkline.errors import TrunklineError
from trunkline.tasks import FAMILIES, Family
from trunkline.training.loop import Interrupted, keep_freed_memory, resolve_precision
from trunkline.versions import versions
from trunkline_lab import fitting
from trunkline_lab.benchmark.cells import Cell, Job
from trunkline_lab.benchmark.inputs import Drawn, draw_cell, load_start, load_task, short_classes
from trunkline_lab.benchmark.results import Result
from trunkline_lab.benchmark.suite import AdaptSection
from trunkline_lab.fitting import TaskData
from trunkline_lab.resampling import counts_of

TIMED_TEXTS = 100

Part = Mapping[int, Any]
Encoded = tuple[Sequence[Features], float]


@dataclass(frozen=True)
class Outcome:
    """What became of a cell."""

    result: Result
    predictions: Sequence[Any] | None = None
    traceback: str = ""


@dataclass(frozen=True)
class Shared:
    """What the cells of a job share: the task, the encoder and the features of the examples that some cell needs.

    `encoded` are the features of the first texts of test, in float32, with the seconds that they took.
    """

    task: TaskData
    aside: bool
    start: Loaded | None = None
    features: Mapping[str, Part] = field(default_factory=dict)
    encoded: Encoded | None = None


def run_job(job: Job) -> Iterator[Outcome]:
    """Runs the cells of a job; what fails becomes a result with an error and does not stop the others."""
    keep_freed_memory()
    try:
        drawn, shared = _prepare(job)
    except Interrupted:
        raise
    except Exception as error:
        for cell in job.cells:
            yield failed(cell, error)
        return
    repeated: dict[Any, Outcome] = {}
    for cell in job.cells:
        # On all labels only the folds of cross-validation depend on the seed: a head is fitted once for all of them.
        same = (cell.method, cell.section) if cell.method == "head" and cell.budget.all else None
        if same is not None and same in repeated:
            before = repeated[same]
            info = {**before.result.info, "repeats": before.result.seed}
            yield replace(before, result=replace(before.result, key=cell.key, seed=cell.seed, info=info))
            continue
        try:
            outcome = _run_cell(cell, drawn[cell.key], shared)
        except Interrupted:
            raise
        except Exception as error:
            # A boundary: whatever goes wrong in one cell, of a peer's library or of ours, is recorded with the cell.
            outcome = failed(cell, error)
        if same is not None and not outcome.result.error:
            repeated[same] = outcome
        yield outcome


def failed(cell: Cell, error: Exception) -> Outcome:
    """The outcome of a cell that raised an error."""
    text = "".join(traceback.format_exception(error))
    info = {**cell.identity, "at": _now()}
    return Outcome(cell.result(error=f"{type(error).__name__}: {error}", info=info), traceback=text)


def _prepare(job: Job) -> tuple[dict[str, Drawn], Shared]:
    first = job.cells[0]
    task, aside = load_task(first.card, first.max_chars)
    drawn = {cell.key: draw_cell(task, cell) for cell in job.cells}
    if first.section is None:
        return drawn, Shared(task, aside)
    start = load_start(first.source, first.family, first.section.max_length)
    bf16 = resolve_precision(first.section.precision) == "bf16"
    family = FAMILIES[first.family]

    def features(part: Sequence[Any], indices: set[int]) -> Part:
        order = sorted(indices)
        found = fitting.example_features(
            family,
            [part[i] for i in order],
            start.encoder,
            start.tokenizer,
            start.primaries.get(first.family),
            bf16=bf16,
        )
        return dict(zip(order, found, strict=True))

    test = set(range(len(task.test)))
    parts = {
        "train": features(task.train, {i for one in drawn.values() for i in one.train}),
        "dev": features(task.dev, {i for one in drawn.values() for i in one.dev}),
        "test": features(task.test, test),
    }
    timed = any(cell.method == "head" for cell in job.cells)
    return drawn, Shared(
        task, aside, start, parts, _encode(task, start, start.primaries.get(first.family)) if timed else None
    )


def _run_cell(cell: Cell, drawn: Drawn, shared: Shared) -> Outcome:
    began = time.perf_counter()
    whole = shared.task
    task = TaskData(
        whole.name, whole.family, [whole.train[i] for i in drawn.train], [whole.dev[i] for i in drawn.dev], whole.test
    )
    run = _peer if cell.section is None else _adapted
    values, predictions, info = run(cell, task, drawn, shared)
    info |= {
        **cell.identity,
        "n_dev": len(drawn.dev),
        "dev": "a tenth of train" if shared.aside else "the card's",
        "threads": torch.get_num_threads(),
        "versions": versions(),
        "at": _now(),
    }
    short = short_classes(whole, cell)
    result = cell.result(
        **values,
        n_train=len(drawn.train),
        counts=counts_of(cell.family, whole.test, predictions),
        seconds=round(time.perf_counter() - began, 3),
        info={**info, **({"short_classes": short} if short else {})},
    )
    return Outcome(result, predictions)


Ran = tuple[dict[str, Any], Sequence[Any], dict[str, Any]]


def _adapted(cell: Cell, task: TaskData, drawn: Drawn, shared: Shared) -> Ran:
    start, section = cast(Loaded, shared.start), cast(AdaptSection, cell.section)
    bf16 = resolve_precision(section.precision) == "bf16"
    known = {**_chosen(shared.features, drawn), "dev": []}
    task = replace(task, dev=())
    done = fitting.fit(task, start, mode=section.mode, lora=section.lora(), seed=cell.seed, features=known, bf16=bf16)
    lora = done.lora
    texts = task.test[:TIMED_TEXTS]
    encoded = _encode(task, start, lora) if lora is not None else cast(Encoded, shared.encoded)
    values = {
        "dev": done.held_out,
        "test": done.test,
        "n_bytes": len(fitting.file_of(done, replace(manifest_of(start), adapters={}))),
        "ms_per_text": _ms_per_text(texts, FAMILIES[cell.family], encoded, done.head, done.labels),
    }
    kept = {key: value for key, value in done.chosen.items() if key != "scores"}
    return values, done.predictions, {**kept, "device": str(next(start.encoder.parameters()).device)}


def _peer(cell: Cell, task: TaskData, drawn: Drawn, shared: Shared) -> Ran:
    from trunkline_lab.benchmark.peers import get_peer

    done = get_peer(cell.method).fit_predict(task, resolve(cell.source).folder, seed=cell.seed)
    family = FAMILIES[cell.family]
    for part, found in (("test", done.predictions), ("dev", done.dev_predictions)):
        if len(found) != len(getattr(task, part)):
            raise TrunklineError(
                f"{cell.method} gave {len(found)} predictions on {part}", expected=f"{len(getattr(task, part))}"
            )
    values = {
        "dev": family.score(task.dev, done.dev_predictions),
        "test": family.score(task.test, done.predictions),
        "n_bytes": done.n_bytes,
        "ms_per_text": done.ms_per_text,
    }
    return values, done.predictions, {}


def _chosen(features: Mapping[str, Part], drawn: Drawn) -> dict[str, Sequence[Features]]:
    return {
        "train": [features["train"][i] for i in drawn.train],
        "dev": [features["dev"][i] for i in drawn.dev],
        "test": list(features["test"].values()),
    }


def _encode(task: TaskData, start: Loaded, deltas: LoraAdapter | None) -> Encoded:
    texts = task.test[:TIMED_TEXTS]
    began = time.perf_counter()
    found = fitting.example_features(FAMILIES[task.family], texts, start.encoder, start.tokenizer, deltas)
    return found, time.perf_counter() - began


def _ms_per_text(texts: Sequence[Any], family: Family, encoded: Encoded, head: Head, labels: tuple[str, ...]) -> float:
    """Milliseconds a text from text to prediction, in float32, in batches, over the first texts of test."""
    features, seconds = encoded
    began = time.perf_counter()
    fitting.predict(family, head, features, texts, labels)
    return round(1000 * (seconds + time.perf_counter() - began) / len(texts), 4)


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="seconds")
