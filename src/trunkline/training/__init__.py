"""The one training loop, which pre-finetuning and adaptation share, and what a run reports and writes down.

This module needs no torch.
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from safetensors import SafetensorError

from trunkline.bundle.files import write_atomic
from trunkline.errors import TrunklineError

_KEPT = "checkpoints are intact"


@dataclass(frozen=True)
class Report:
    """`say` gets a line of text now and then; `progress` gets steps done, all steps and the last logged values."""

    say: Callable[[str], None] = lambda text: None
    progress: Callable[[int, int, dict[str, float]], None] = lambda done, steps, values: None


@contextmanager
def write_errors(path: Path, kept: str) -> Iterator[None]:
    """Says of `path`, where the disk is full or read-only, what to do, and what is `kept` all the same."""
    try:
        yield
    except (OSError, SafetensorError) as error:
        todo = f"Free some space in {path.parent} and run the same command again, to go on from the last checkpoint"
        raise TrunklineError(f"{path} could not be written ({error}); {kept}", todo=todo) from error


class MetricsLog:
    """Appends one JSON object a line to a file; lines of steps after `done` are of an interrupted attempt and go."""

    def __init__(self, path: Path, done: int = 0) -> None:
        self.path = path
        # A run that begins anew repeats what it measured before its first step, too.
        kept = [row for row in read_rows(path) if row["step"] <= done] if done else []
        with write_errors(path, _KEPT):
            write_rows(path, kept)

    def write(self, step: int, values: Mapping[str, Any]) -> None:
        """Appends a row and brings it to the disk, so that a power cut leaves no checkpoint without its rows."""
        with write_errors(self.path, _KEPT), self.path.open("a", encoding="utf-8") as file:
            file.write(json.dumps({"step": step, **values}) + "\n")
            file.flush()
            os.fsync(file.fileno())


def read_rows(path: Path) -> list[dict[str, Any]]:
    """The rows of a file of JSON lines, none if there is no file; what a crash cut off is left out."""
    rows: list[dict[str, Any]] = []
    # Not splitlines, which also splits at the line separators of Unicode that a text in a row may have.
    for line in path.read_text(encoding="utf-8").split("\n") if path.is_file() else []:
        try:
            rows.append(json.loads(line))
        except ValueError:
            break
    return rows


def write_rows(path: Path, rows: Iterable[Mapping[str, Any]]) -> None:
    """Writes JSON lines, complete or not at all."""
    write_atomic(path, "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows))
