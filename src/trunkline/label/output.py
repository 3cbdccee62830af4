"""What labelling leaves on disk: JSON lines that appear when they are complete, their source card, cached answers."""

from __future__ import annotations

import json
import os
import re
import secrets
import sqlite3
import threading
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO, Any, Literal

from trunkline.data.source_card import SourceCard, write_source_card
from trunkline.errors import DataError

MADE_BY = "Made by trunkline label"


def card_path(out: Path, inputs: Iterable[Path]) -> Path:
    """Where the source card of an output goes.

    Raises:
        DataError: An output that is no `.jsonl` file, that would overwrite an input, or beside which lies a YAML file
            that was not made here.
    """
    card = out.with_suffix(".yaml")
    if out.suffix != ".jsonl" or out.is_dir() or not _card_name(out):
        raise DataError("no output of this name can be written", path=out, expected="a file such as my_notes.jsonl")
    clash = next((path for path in inputs if path.resolve() in (out.resolve(), card.resolve())), None)
    if clash is not None:
        raise DataError("the output would overwrite an input", path=clash, todo="Name another output")
    if card.exists() and MADE_BY not in card.read_text(encoding="utf-8", errors="replace"):
        raise DataError("this file is not ours and would be overwritten", path=card, todo="Name another output")
    return card


def _card_name(out: Path) -> str:
    return re.sub(r"[^a-z0-9]+", "_", out.stem.lower()).strip("_")


def write_card(
    path: Path, family: Literal["ner", "classification"], title: str, licence: str, how: Sequence[str], count: int
) -> None:
    """Writes the source card of an output: an open source, as what is unlabelled there is unknown."""
    quirks, counts = (f"{MADE_BY}, by no person.", *how), {"train": count}
    card = SourceCard(name=_card_name(path), title=title, family=family, licence=licence, quirks=quirks, counts=counts)
    write_source_card(card, path)


@contextmanager
def open_atomic(path: Path) -> Iterator[IO[str]]:
    """A text file (UTF-8) that takes its name when it is complete; an error leaves the old one.

    Raises:
        DataError: The file cannot be written.
    """
    part = path.parent / f".{path.name}.{secrets.token_hex(4)}.part"
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with part.open("x", encoding="utf-8", newline="\n") as stream:
            yield stream
            stream.flush()
            os.fsync(stream.fileno())
        part.replace(path)
    except OSError as error:
        raise DataError(f"the file cannot be written ({error.strerror or error})", path=path) from error
    finally:
        with suppress(OSError):
            part.unlink(missing_ok=True)


class AnswerCache:
    """Answers by question in a SQLite file, so that what was asked (and paid) once is not asked again.

    What `add` was given is on disk when it returns, whole or not at all. Several runs may share a file; `kind` says
    what answers depend on besides the question.

    Raises:
        DataError: The file cannot be opened.
    """

    def __init__(self, path: Path, *kind: str) -> None:
        self._kind = kind
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            self._database = sqlite3.connect(path, timeout=60, check_same_thread=False)
            self._database.execute("CREATE TABLE IF NOT EXISTS answers (key TEXT PRIMARY KEY, answer TEXT NOT NULL)")
        except (OSError, sqlite3.Error) as error:
            raise DataError(f"the cache cannot be opened ({error})", path=path) from error
        self._lock, self.close = threading.Lock(), self._database.close

    def get(self, question: str) -> Any:
        """The answer of a question, or None."""
        key = json.dumps([*self._kind, question])
        row = self._database.execute("SELECT answer FROM answers WHERE key = ?", (key,)).fetchone()
        return json.loads(row[0]) if row else None

    def add(self, answers: Iterable[tuple[str, Any]]) -> None:
        """Keeps questions with their answers; may be called by several threads."""
        rows = [(json.dumps([*self._kind, question]), json.dumps(answer)) for question, answer in answers]
        with self._lock, self._database:
            self._database.executemany("INSERT OR REPLACE INTO answers VALUES (?, ?)", rows)
