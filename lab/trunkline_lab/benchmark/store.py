"""Results on disk: one file a finished cell, so that a run can be stopped, killed and continued at any time.

suite.json             the recipe of the last run
cells/KEY.json         the result of a cell; the packed form has cells/TASK.jsonl instead
predictions/KEY.json.gz
superseded/KEY.json    results of cells that the suite has with another key now; they come back if it changes back
failures.log           tracebacks
run.lock               held while a run is going on
"""

from __future__ import annotations

import gzip
import json
import logging
import os
from collections import defaultdict
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from trunkline.bundle.files import write_atomic
from trunkline.data.load import read_lines
from trunkline.errors import DataError, TrunklineError
from trunkline_lab.benchmark.cells import Cell, Place, place_of, select
from trunkline_lab.benchmark.results import Result
from trunkline_lab.data.archives import read_bytes

MAX_CELL_BYTES = 2**26

_log = logging.getLogger(__name__)


class ResultStore:
    """The folder of a run's results. Only the process that holds its lock writes.

    Attributes:
        damaged: Names of cell files that could not be read, which count as missing.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.damaged: list[str] = []

    @contextmanager
    def lock(self) -> Iterator[None]:
        """Keeps other runs out of the folder (TrunklineError), until this process ends, however it ends."""
        import fcntl

        path = self.folder / "run.lock"
        with self._disk(path):
            self.folder.mkdir(parents=True, exist_ok=True)
            file = path.open("a+", encoding="utf-8")
        with file:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except OSError:
                file.seek(0)
                raise TrunklineError(
                    f"{self.folder} is in use: {_holder(file.read())}",
                    expected="one run at a time in a folder of results",
                    todo="Wait until it is done, stop it, or choose another folder with --out",
                ) from None
            with self._disk(path):
                file.truncate(0)
                now = datetime.now(UTC).isoformat(timespec="seconds")
                file.write(json.dumps({"pid": os.getpid(), "since": now}))
                file.flush()
            yield
            file.truncate(0)

    def keep_current(self, cells: Sequence[Cell]) -> dict[str, Result]:
        """The stored results of these cells.

        Results of the same places with other keys are set aside, and those set aside earlier come back where the
        suite has their key again. Failures are among what is returned only if they have the cell's key.
        """
        wanted: dict[Place, str] = {cell.place: cell.key for cell in cells}
        with self._disk(self.folder):
            for cell in cells:
                aside = self._aside(cell.key)
                if aside.is_file() and not self._cell(cell.key).is_file():
                    aside.rename(self._cell(cell.key))
            found = {}
            for result in self.stored().values():
                key = wanted.get(place_of(result))
                path = self._cell(result.key)
                if key == result.key:
                    found[key] = result
                elif key is not None and result.error:
                    path.unlink()
                elif key is not None:
                    self._aside(result.key).parent.mkdir(exist_ok=True)
                    path.rename(self._aside(result.key))
        return found

    def write(self, result: Result, predictions: Sequence[Any] | None = None, traceback: str = "") -> None:
        """Stores a result, its predictions first; where the disk is full (TrunklineError) all else is as it was."""
        with self._disk(self._cell(result.key)):
            if predictions is not None:
                content = json.dumps(compact(predictions), ensure_ascii=False).encode()
                write_atomic(self._predictions(result.key), gzip.compress(content, 6, mtime=0))
            write_atomic(self._cell(result.key), json.dumps(result.to_json()) + "\n")
            if traceback:
                with (self.folder / "failures.log").open("a", encoding="utf-8") as file:
                    file.write(f"{datetime.now(UTC).isoformat(timespec='seconds')} {result.key}\n{traceback}\n")

    def write_suite(self, content: Mapping[str, Any]) -> None:
        """Writes down which suite the results are of."""
        with self._disk(self.folder / "suite.json"):
            write_atomic(self.folder / "suite.json", json.dumps(content, indent=2) + "\n")

    def predictions(self, key: str) -> list[Any]:
        """A finished cell's predictions on test, as `compact` made them; a DataError if damaged or not there."""
        path = self._predictions(key)
        try:
            found = json.loads(read_bytes(path, limit=2**30))
        except ValueError as error:
            raise DataError(f"the predictions are damaged ({error})", path=path) from None
        return list(found)

    def stored(self) -> dict[str, Result]:
        """All results that can be read, by key; the names of the others are in `damaged`."""
        self.damaged = []
        found = {}
        for path in sorted((self.folder / "cells").glob("*.json")):
            try:
                found[path.stem] = read_cell(path)
            except DataError as error:
                _log.warning("%s Its cell counts as missing.", error)
                self.damaged.append(path.name)
        return found

    def _cell(self, key: str) -> Path:
        return self.folder / "cells" / f"{key}.json"

    def _aside(self, key: str) -> Path:
        return self.folder / "superseded" / f"{key}.json"

    def _predictions(self, key: str) -> Path:
        return self.folder / "predictions" / f"{key}.json.gz"

    @contextmanager
    def _disk(self, path: Path) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            raise TrunklineError(
                f"{path} could not be written ({error}); the results stored before are intact",
                todo=f"Make room in {self.folder} or mend its rights, and run the same command again to go on",
            ) from error


def read_cell(path: Path) -> Result:
    """The result in a cell's file; a DataError if it is damaged, or under another cell's name."""
    result = _parse(read_bytes(path, limit=MAX_CELL_BYTES).decode("utf-8", "replace"), path, None)
    if result.key != path.stem:
        raise DataError(f"the file holds the cell {result.key}", path=path, expected="the cell that it is named after")
    return result


def read_results(folder: Path) -> list[Result]:
    """All results in a folder, packed or not, failures too; damaged ones are logged, none is a TrunklineError."""
    cells = folder / "cells"
    found: dict[str, Result] = {}
    for path in sorted(cells.glob("*.jsonl")):
        for line, text in read_lines(path):
            try:
                result = _parse(text, path, line)
            except DataError as error:
                _log.warning("%s It is left out.", error)
                continue
            found[result.key] = result
    for path in sorted(cells.glob("*.json")):
        try:
            result = read_cell(path)
        except DataError as error:
            _log.warning("%s It is left out.", error)
            continue
        found[result.key] = result
    if not found:
        raise TrunklineError(
            f"{folder} holds no results of a benchmark",
            expected="the folder of a run, with cells/",
            todo="`trunkline-lab benchmark run SUITE --out FOLDER` makes one",
        )
    return sorted(found.values(), key=_order)


def read_suite(folder: Path) -> dict[str, Any]:
    """What `ResultStore.write_suite` wrote, empty if it did not."""
    path = folder / "suite.json"
    if not path.is_file():
        return {}
    try:
        content = json.loads(read_bytes(path, limit=MAX_CELL_BYTES))
    except ValueError as error:
        raise DataError(f"not JSON ({error})", path=path, expected="the suite of the results") from None
    return content if isinstance(content, dict) else {}


def baseline_of(folder: Path) -> str:
    """The baseline of the suite whose results a folder has; a TrunklineError if it does not say which it was."""
    name = read_suite(folder).get("baseline")
    if not isinstance(name, str):
        raise TrunklineError(
            f"{folder} has no suite.json that names the baseline",
            expected="the name of the encoder with which the others are compared",
            todo="Give it as --baseline",
        )
    return name


def pack(
    folder: Path, out: Path, *, encoders: Collection[str] = (), methods: Collection[str] = (), complete: bool = False
) -> list[Path]:
    """Writes the finished cells of a folder as one JSONL file a task, sorted, without predictions; to be committed.

    Args:
        folder: The folder of a run.
        out: Where to write `cells/TASK.jsonl` and `suite.json`. Files of tasks that are not among the cells stay.
        encoders: Names of encoders; all if empty.
        methods: Names of methods; all if empty. The folder has to have cells of each name.
        complete: Whether a task's cells with a method and a label budget are left out where an encoder or a seed is
            missing that the method has with another task or budget.
    """
    by_task: dict[str, list[Result]] = defaultdict(list)
    chosen = select(
        [result for result in read_results(folder) if not result.error],
        ("encoder", encoders, lambda result: result.encoder),
        ("method", methods, lambda result: result.method),
    )
    for result in _complete(chosen) if complete else chosen:
        by_task[result.task].append(result)
    paths = []
    for task, results in sorted(by_task.items()):
        path = out / "cells" / f"{task}.jsonl"
        write_atomic(path, "".join(json.dumps(result.to_json()) + "\n" for result in results))
        paths.append(path)
    suite = read_suite(folder)
    if suite:
        write_atomic(out / "suite.json", json.dumps(suite, indent=2) + "\n")
    return paths


def _complete(results: Sequence[Result]) -> list[Result]:
    wanted: dict[str, set[tuple[str, int]]] = defaultdict(set)
    there: dict[tuple[str, str, str], set[tuple[str, int]]] = defaultdict(set)
    for result in results:
        wanted[result.method].add((result.encoder, result.seed))
        there[result.task, result.method, result.budget].add((result.encoder, result.seed))
    return [row for row in results if there[row.task, row.method, row.budget] == wanted[row.method]]


def compact(predictions: Sequence[Any]) -> list[Any]:
    """Predictions without what their text or the labels' other probabilities would repeat; scores stay computable."""
    return [
        {"label": item["label"], "score": item["score"]}
        if isinstance(item, Mapping)
        else [{key: entity[key] for key in ("start", "end", "label", "score") if key in entity} for entity in item]
        for item in predictions
    ]


def _parse(text: str, path: Path, line: int | None) -> Result:
    try:
        raw = json.loads(text)
        if not isinstance(raw, dict):
            raise ValueError(f"{type(raw).__name__} instead of keys and values")
        result = Result.from_json(raw)
        if not result.error and not (result.counts and result.measure in result.test):
            raise ValueError("scores or counts are missing")
        return result
    except (ValueError, TypeError, RecursionError) as error:
        raise DataError(
            f"the cell is damaged ({error})", path=path, line=line, expected="the result of a cell"
        ) from None


def _holder(content: str) -> str:
    try:
        raw = json.loads(content)
        return f"process {raw['pid']} runs here since {raw['since']}"
    except (ValueError, KeyError, TypeError):
        return "another process has just started here"


def _order(result: Result) -> tuple[Any, ...]:
    return result.task, result.encoder, result.method, result.budget, result.seed, result.key
