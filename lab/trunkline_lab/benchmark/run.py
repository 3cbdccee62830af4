"""Running a suite: what is missing is run, stored as it comes, and can be stopped at any moment."""

from __future__ import annotations

import signal
import threading
from collections import defaultdict
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from trunkline_lab.benchmark.cells import Cell, Identity, expand, group_jobs, select
from trunkline_lab.benchmark.executors import execute, workers_for
from trunkline_lab.benchmark.inputs import identify_encoder
from trunkline_lab.benchmark.results import Result
from trunkline_lab.benchmark.store import ResultStore
from trunkline_lab.benchmark.suite import SuiteRecipe


@dataclass(frozen=True)
class RunOptions:
    """How a suite is run.

    Attributes:
        workers: Processes at once; one for every two cores by default.
        threads: Threads of each; the cores divided by the workers by default.
        only: Names of the tasks to run; all if empty.
        budgets: Label budgets to run, as `LabelBudget.short` writes them; all if empty.
        methods: Names of the methods to run; all if empty.
        encoders: Names of the encoders to run; all if empty.
    """

    workers: int | None = None
    threads: int | None = None
    only: Collection[str] = ()
    budgets: Collection[str] = ()
    methods: Collection[str] = ()
    encoders: Collection[str] = ()


@dataclass(frozen=True)
class Status:
    """Where a run stands.

    Attributes:
        total: Cells of the suite.
        done: Those that are stored, without failures.
        failed: Those that failed in this run.
        seconds_left: An estimate.
        last: The cell that has just been finished or has failed.
    """

    total: int
    done: int
    failed: int
    seconds_left: float
    last: Result


@dataclass(frozen=True)
class Summary:
    """What a run has come to: all results of the suite, `ran` of them in this run, and damaged files that it found."""

    folder: Path
    results: Sequence[Result]
    ran: int
    damaged: Sequence[str] = ()

    @property
    def failures(self) -> list[Result]:
        """The cells that failed."""
        return [result for result in self.results if result.error]

    def to_json(self) -> dict[str, Any]:
        """Counts, and the cells that failed with their errors."""
        return {
            "folder": str(self.folder),
            "cells": len(self.results),
            "done": len(self.results) - len(self.failures),
            "ran": self.ran,
            "damaged": list(self.damaged),
            "failed": [
                {"task": r.task, "encoder": r.encoder, "method": r.method, "budget": r.budget, "seed": r.seed}
                | {"error": r.error}
                for r in self.failures
            ],
        }


def list_cells(recipe: SuiteRecipe, only: Collection[str] = ()) -> list[Cell]:
    """The cells of a suite with their keys; loads each encoder once."""
    known: dict[str, Identity] = {}
    return expand(recipe, lambda source, family: identify_encoder(source, family, known), only)


def _chosen(cells: Sequence[Cell], options: RunOptions) -> list[Cell]:
    return select(
        cells,
        ("budget", options.budgets, lambda cell: cell.budget.short()),
        ("method", options.methods, lambda cell: cell.method),
        ("encoder", options.encoders, lambda cell: cell.encoder),
    )


def count_cells(recipe: SuiteRecipe, folder: Path, only: Collection[str] = ()) -> list[dict[str, Any]]:
    """For each task and method of a suite how many cells it has, and how many of them are done and failed."""
    stored = ResultStore(folder).stored()
    rows: dict[tuple[str, str], dict[str, Any]] = {}
    for cell in list_cells(recipe, only):
        empty = {"task": cell.task, "method": cell.method, "cells": 0, "done": 0, "failed": 0}
        row = rows.setdefault((cell.task, cell.method), empty)
        result = stored.get(cell.key)
        row["cells"] += 1
        row["done"] += result is not None and not result.error
        row["failed"] += result is not None and bool(result.error)
    return list(rows.values())


def run_suite(
    recipe: SuiteRecipe,
    folder: Path,
    options: RunOptions = RunOptions(),
    *,
    say: Callable[[str], None] = lambda text: None,
    watch: Callable[[Status], None] = lambda status: None,
) -> Summary:
    """Runs the cells of a suite that are not in a folder yet, or failed there.

    Args:
        recipe: The suite.
        folder: Of the results, see `trunkline_lab.benchmark.store`.
        options: Workers, and which cells.
        say: Receives lines about what was found.
        watch: Receives the status after each cell.

    Raises:
        TrunklineError: Another run uses the folder, the disk is full, or the suite has no such task, budget or method.
            What was stored is intact.
        KeyboardInterrupt: Ctrl-C or SIGTERM; what is finished is stored, and the same call goes on from there.
    """
    store = ResultStore(folder)
    with store.lock(), _sigterm_interrupts():
        cells = _chosen(list_cells(recipe, options.only), options)
        stored = store.keep_current(cells)
        for name in store.damaged:
            say(f"{name} is damaged and counts as missing")
        results = {key: result for key, result in stored.items() if not result.error}
        missing = [cell for cell in cells if cell.key not in results]
        say(f"{recipe.name}: {len(cells)} cells, {len(results)} done, {len(missing)} to run")
        store.write_suite({"name": recipe.name, "baseline": recipe.baseline, "recipe": recipe.model_dump(mode="json")})
        workers = workers_for(options.workers, options.threads)
        left, failed = {cell.key: cell for cell in missing}, 0
        with closing(execute(group_jobs(missing), workers)) as outcomes:
            for outcome in outcomes:
                result = outcome.result
                store.write(result, outcome.predictions, outcome.traceback)
                results[result.key] = result
                failed += bool(result.error)
                del left[result.key]
                seconds = seconds_left(results.values(), left.values()) / workers.count
                watch(Status(len(cells), len(cells) - len(left) - failed, failed, seconds, result))
    return Summary(folder, [results[cell.key] for cell in cells if cell.key in results], len(missing), store.damaged)


def seconds_left(results: Iterable[Result], left: Iterable[Cell]) -> float:
    """What the cells that are left will take one after the other, by those of the same method that are finished."""
    spent: dict[str, list[float]] = defaultdict(list)
    for result in results:
        if not result.error:
            spent[result.method].append(result.seconds)
    means = {method: sum(values) / len(values) for method, values in spent.items()}
    other = sum(means.values()) / len(means) if means else 0.0
    return sum(means.get(cell.method, other) for cell in left)


@contextmanager
def _sigterm_interrupts() -> Iterator[None]:
    """Makes SIGTERM end a run as Ctrl-C does, so that its workers and its lock do not outlive it."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return

    def handle(number: int, frame: Any) -> None:
        raise KeyboardInterrupt

    before = signal.signal(signal.SIGTERM, handle)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)
