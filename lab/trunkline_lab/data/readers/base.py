"""What the formats share: their common options, rows of tables, JSON lines and tokenised sentences."""

from __future__ import annotations

import csv
import json
import logging
import re
import reprlib
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any, TypeVar

from pydantic import BaseModel, ConfigDict, Field

from trunkline.data.files import read_lines
from trunkline.errors import DataError
from trunkline.text.examples import NerExample, Span, join_tokens
from trunkline.text.tags import Scheme, TagError, decode_tags, decode_with_repairs

_log = logging.getLogger("trunkline.data")

_SURROGATE = re.compile(r"\\u[dD][89a-fA-F]")
_SHORT = reprlib.Repr()
_SHORT.maxstring = _SHORT.maxlong = _SHORT.maxother = 80
_SHORT.maxlevel = 3

T = TypeVar("T")


class FileOptions(BaseModel):
    """Options of every format."""

    model_config = ConfigDict(frozen=True, extra="forbid", populate_by_name=True, allow_inf_nan=False)

    encoding: str = "utf-8"


class TaggedOptions(FileOptions):
    """Options of the formats that hold one tag a token."""

    scheme: Scheme = "BIO"
    strict: bool = Field(default=False, description="Whether tags that break the scheme's rules are errors.")


class TableOptions(FileOptions):
    """Options of the formats that hold rows of columns."""

    delimiter: str = Field(default=",", min_length=1, max_length=1)
    header: bool = True
    quoting: bool = Field(default=True, description="Whether double quotes enclose values.")


Column = str | int
"""A column by its name in the header, or by its position (counted from 0, negative from the end)."""


def shorten(value: object) -> str:
    """A value for a message: its `repr`, with what is long or deep left out of the middle."""
    return _SHORT.repr(value)


def list_names(names: Iterable[object], *, most: int = 12) -> str:
    """Names for a message, the first `most` of them."""
    found = list(names)
    listed = ", ".join(map(shorten, found[:most])) or "none"
    return f"{listed} and {len(found) - most} more" if len(found) > most else listed


def require_some(examples: Iterable[T], path: str | Path, *, what: str = "example") -> Iterator[T]:
    """Passes the examples on and raises a DataError if there is none."""
    empty = True
    for example in examples:
        empty = False
        yield example
    if empty:
        raise DataError(
            f"the file has no {what}",
            path=path,
            expected=f"at least one {what}",
            todo="Check that it is the right file, and the reader's options",
        )


def read_json_lines(path: str | Path, options: FileOptions) -> Iterator[tuple[int, dict[str, Any]]]:
    """Yields the objects of a JSON-lines file with their line numbers; lines without any text are passed over."""
    for number, line in read_lines(path, encoding=options.encoding):
        if not line.strip():
            continue
        try:
            record = parse_json(line)
        except ValueError as error:
            message = error.msg if isinstance(error, json.JSONDecodeError) else error
            raise DataError(
                f"the line is not JSON ({message})", path=path, line=number, expected="one JSON object a line"
            ) from None
        if not isinstance(record, dict):
            raise DataError(
                f"the line holds {type(record).__name__}", path=path, line=number, expected="a JSON object with keys"
            )
        yield number, record


def parse_json(text: str) -> Any:
    """The value of a JSON text.

    Raises:
        ValueError: Text that is no JSON (a `json.JSONDecodeError`), a whole number of thousands of digits, nesting that
            is too deep, or half of a surrogate pair, which no tokenizer and no UTF-8 file takes.
    """
    try:
        value = json.loads(text)
        if _SURROGATE.search(text):
            json.dumps(value, ensure_ascii=False).encode()
    except RecursionError:
        raise ValueError("nested too deeply") from None
    except UnicodeEncodeError as error:
        raise ValueError(f"\\u{ord(error.object[error.start]):04x} is half of a surrogate pair") from None
    return value


def get_key(record: dict[str, Any], key: str, path: str | Path, line: int) -> Any:
    """The value of a key; a DataError that lists the keys if it is missing."""
    if key not in record:
        raise DataError(
            f"no key {key!r}; the keys are {list_names(record)}",
            path=path,
            line=line,
            expected=f"the key {key!r}",
            todo="Name the right key in the reader's options",
        )
    return record[key]


def require_text(value: object, what: str, path: str | Path, line: int) -> str:
    """The stripped text, or a DataError if it is blank or no text; whole numbers pass as labels."""
    if isinstance(value, int) and not isinstance(value, bool) and what == "label":
        return str(value)
    if not isinstance(value, str):
        raise DataError(f"the {what} is {shorten(value)}", path=path, line=line, expected=f"a {what} as a string")
    if not value.strip():
        raise DataError(
            f"the {what} is empty", path=path, line=line, expected=f"a {what}", todo="Fill it in or remove the row"
        )
    return value.strip()


def read_rows(path: str | Path, options: TableOptions) -> Iterator[tuple[int, list[str]]]:
    """Yields the rows of a CSV or TSV file with the line on which each begins, the header included.

    Raises:
        DataError: A row with another number of columns than the first, or quotes that do not close.
    """
    lines = read_lines(path, encoding=options.encoding)
    rows = csv.reader(
        (f"{line}\n" for _, line in lines),
        delimiter=options.delimiter,
        quoting=csv.QUOTE_MINIMAL if options.quoting else csv.QUOTE_NONE,
        strict=True,
    )
    width, begin = 0, 1
    while True:
        try:
            row = next(rows)
        except StopIteration:
            return
        except csv.Error as error:
            raise DataError(
                f"the row cannot be parsed ({error})",
                path=path,
                line=begin,
                expected=f"columns separated by {options.delimiter!r}",
                todo="Mend the quotes, or set quoting: false if they are part of the text",
            ) from None
        line, begin = begin, rows.line_num + 1
        if not row or not any(cell.strip() for cell in row):
            continue
        width = width or len(row)
        if len(row) != width:
            raise DataError(
                f"{len(row)} column{'s' if len(row) != 1 else ''}",
                path=path,
                line=line,
                expected=f"{width} columns, as in the first row",
            )
        yield line, row


def read_columns(path: str | Path, options: TableOptions, columns: Sequence[Column]) -> Iterator[tuple[int, list[str]]]:
    """Yields line and the values of the asked columns, stripped; the header is used up."""
    positions: list[int] | None = None
    for line, row in read_rows(path, options):
        if positions is None:
            positions = [_position(column, row, options.header, path, line) for column in columns]
            if options.header:
                continue
        yield line, [row[position].strip() for position in positions]


def _position(column: Column, first: list[str], header: bool, path: str | Path, line: int) -> int:
    names = [cell.strip() for cell in first]
    if isinstance(column, int):
        if -len(first) <= column < len(first):
            return column
        raise DataError(f"no column {column}", path=path, line=line, expected=f"a column from 0 to {len(first) - 1}")
    if not header:
        raise DataError(
            f"the column {column!r} is asked for by name, but the file is read without a header",
            path=path,
            line=line,
            expected="columns by number, or a header",
        )
    if names.count(column) == 1:
        return names.index(column)
    problem = f"{names.count(column)} columns {column!r}" if column in names else f"no column {column!r}"
    raise DataError(
        f"{problem}; the header is {list_names(names)}",
        path=path,
        line=line,
        expected=f"one column {column!r}",
        todo="Name the column in the reader's options, or set header: false and give numbers",
    )


class SentenceBuilder:
    """Turns tokens and tags into examples, and reports once how many tags of a file had to be repaired."""

    def __init__(self, path: str | Path, scheme: Scheme, strict: bool) -> None:
        self._path = path
        self._scheme = scheme
        self._strict = strict
        self.repaired = 0

    def build(self, tokens: list[str], tags: list[str], lines: Sequence[int]) -> NerExample:
        """One sentence; `lines` has the line of each token, or one line for all.

        Raises:
            DataError: A tag that does not fit the scheme.
        """
        try:
            if self._strict:
                found = decode_tags(tags, self._scheme, strict=True)
            else:
                found, broken = decode_with_repairs(tags, self._scheme)
                self.repaired += len(broken)
        except TagError as error:
            line = lines[error.index] if len(lines) > 1 else lines[0]
            raise DataError(error.given, path=self._path, line=line, expected=error.expected, todo=error.todo) from None
        text, words = join_tokens(tokens)
        spans = tuple(Span(words[first][0], words[last - 1][1], label.strip()) for first, last, label in found)
        return NerExample(text, words, spans)

    def report(self) -> None:
        """Logs the number of repaired tags, if there were any."""
        if self.repaired:
            _log.warning("%s: %d tags broke the rules of %s and were repaired", self._path, self.repaired, self._scheme)
