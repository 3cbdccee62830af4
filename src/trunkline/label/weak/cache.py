"""Answers on disk, so that what was asked (and paid) once is not asked again: a JSON line for each sentence."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Iterable
from pathlib import Path
from types import TracebackType
from typing import Any

from trunkline.data.files import LINE_LIMIT
from trunkline.errors import DataError


def key_of(*parts: str) -> str:
    """SHA-256 of strings, in which no two different lists of strings meet."""
    return hashlib.sha256(json.dumps(parts).encode()).hexdigest()


class AnswerCache:
    """A file to which answers are appended, each call in one write; only keys and offsets are held in memory.

    A line that a crash left torn is passed over (its sentence is asked again). Several runs may share a file.

    Args:
        path: The file; made with its folder if it is missing.

    Raises:
        DataError: The file cannot be opened or written.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.damaged = 0
        self._offsets: dict[str, int] = {}
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            self._writer = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o666)
            self._reader = path.open("rb")
        except OSError as error:
            raise DataError(f"the cache cannot be opened ({error.strerror or error})", path=path) from error
        self._scan()

    def __enter__(self) -> AnswerCache:
        return self

    def __exit__(self, *error: type[BaseException] | BaseException | TracebackType | None) -> None:
        self._reader.close()
        os.close(self._writer)

    def __contains__(self, key: str) -> bool:
        return key in self._offsets

    def get(self, key: str) -> Any:
        """The answer of a key that is there."""
        self._reader.seek(self._offsets[key])
        return json.loads(self._reader.readline())["answer"]

    def add(self, answers: Iterable[tuple[str, Any]]) -> None:
        """Appends answers and makes sure that they are on disk."""
        lines = [(key, json.dumps({"key": key, "answer": answer}).encode() + b"\n") for key, answer in answers]
        self._append(b"".join(line for _, line in lines))
        # Where this write ended, whatever other runs have appended since.
        offset = os.lseek(self._writer, 0, os.SEEK_CUR) - sum(len(line) for _, line in lines)
        for key, line in lines:
            self._offsets[key] = offset
            offset += len(line)

    def _append(self, data: bytes) -> None:
        try:
            done = os.write(self._writer, data)
            os.fsync(self._writer)
        except OSError as error:
            raise DataError(f"the cache cannot be written ({error.strerror or error})", path=self.path) from error
        if done != len(data):
            raise DataError("the cache cannot be written in full; is the disk full?", path=self.path)

    def _scan(self) -> None:
        offset, line = 0, b"\n"
        while line_read := self._reader.readline(LINE_LIMIT):
            line = line_read
            key = _key_in(line)
            if key:
                self._offsets[key] = offset
            else:
                self.damaged += 1
            offset += len(line)
        if not line.endswith(b"\n"):
            self._append(b"\n")


def _key_in(line: bytes) -> str:
    if not line.endswith(b"\n"):
        return ""
    try:
        record = json.loads(line)
    except (ValueError, RecursionError):
        return ""
    whole = isinstance(record, dict) and "answer" in record and isinstance(record.get("key"), str)
    return str(record["key"]) if whole else ""
