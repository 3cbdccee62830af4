"""What a format is, and how rows become bytes."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from hypothesis import strategies as st

from properties.disk import ARCHIVES, PLAIN, Sample
from trunkline_lab.data.readers import READERS


@dataclass(frozen=True, slots=True)
class Format:
    """How examples are written for a reader.

    `expect` turns what was written into what is read, where the format cannot carry everything;
    `reduce` takes from an example that is read what its reader chose by chance. With `rows` every
    line of the file is one example, so that shuffled lines are shuffled examples; with `ordered` the examples come in
    the order of the file. `json` says whether each line or the whole file is a JSON value.
    """

    name: str
    reader: str
    examples: st.SearchStrategy[list[Any]]
    encode: Callable[[list[Any]], Sample]
    packings: tuple[str, ...] = PLAIN
    expect: Callable[[list[Any]], list[Any]] = list
    reduce: Callable[[Any], Any] | None = None
    rows: bool = False
    ordered: bool = True
    json: Literal["", "lines", "file"] = ""

    def read(self, path: Path, options: dict[str, Any]) -> list[Any]:
        """What the reader gives, reduced."""
        return self.reduced(READERS[self.reader].read(path, options))

    def reduced(self, examples: Iterable[Any]) -> list[Any]:
        return list(map(self.reduce, examples)) if self.reduce else list(examples)

    @property
    def archive(self) -> bool:
        """Whether the format is a kind of archive."""
        return self.packings is ARCHIVES


def to_lines(rows: Sequence[str], end: str = "\n") -> bytes:
    return "".join(row + end for row in rows).encode()


def to_json_lines(records: Sequence[Any], *, ascii_only: bool = True) -> bytes:
    return to_lines([json.dumps(record, ensure_ascii=ascii_only) for record in records])


def to_csv(rows: Sequence[Sequence[Any]], delimiter: str = ",", quoting: int = csv.QUOTE_MINIMAL) -> bytes:
    buffer = io.StringIO()
    csv.writer(buffer, delimiter=delimiter, quoting=quoting).writerows(rows)
    return buffer.getvalue().encode()
