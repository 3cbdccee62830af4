"""What the formats share: their common options, rows of tables, tokenised sentences and labelled texts."""

from __future__ import annotations

import codecs
import csv
import logging
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Literal

from pydantic import BaseModel, ConfigDict, Field, field_validator

from trunkline.data.load import read_lines
from trunkline.data.records import parse_json, read_json_lines
from trunkline.data.values import get_key, list_names, require_text, shorten
from trunkline.errors import DataError
from trunkline.text.examples import NerExample, Scheme, Span, TagError, TextExample, decode_with_repairs, join_tokens

__all__ = ["get_key", "parse_json", "read_json_lines", "require_text", "shorten"]

_log = logging.getLogger("trunkline.data")


class FileOptions(BaseModel):
    """Options of every format."""

    model_config = ConfigDict(frozen=True, extra="forbid", populate_by_name=True, allow_inf_nan=False)

    encoding: str = "utf-8"

    @field_validator("encoding")
    @classmethod
    def _has_lines(cls, encoding: str) -> str:
        try:
            fits = "\n".encode(encoding) == b"\n" and codecs.lookup(encoding).name not in (
                "utf-7",
                "raw-unicode-escape",
            )
        except (LookupError, ValueError):  # ValueError: a codec that encodes nothing, or a NUL in the name
            fits = False
        if not fits:
            raise ValueError("no encoding in which a line feed is one byte, such as utf-8, latin-1 or cp1252")
        return encoding


class TaggedOptions(FileOptions):
    """Options of the formats that hold one tag a token."""

    scheme: Scheme = "BIO"


class RowsOptions(FileOptions):
    """Options of the formats that hold rows of columns."""

    delimiter: str = Field(default=",", min_length=1, max_length=1)
    header: bool = True
    quoting: bool = Field(default=True, description="Whether double quotes enclose values.")


Column = str | int
"""A column by its name in the header, or by its position (counted from 0, negative from the end)."""


def read_rows(path: str | Path, options: RowsOptions) -> Iterator[tuple[int, list[str]]]:
    """Yields the rows of a CSV or TSV file, header included, with their first lines; a DataError for broken rows."""
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


def read_columns(path: str | Path, options: RowsOptions, columns: Sequence[Column]) -> Iterator[tuple[int, list[str]]]:
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

    def __init__(self, path: str | Path, scheme: Scheme) -> None:
        self._path = path
        self._scheme = scheme
        self.repaired = 0

    def build(self, tokens: list[str], tags: list[str], lines: Sequence[int]) -> NerExample:
        """One sentence; `lines` has the line of each token, or one line for all.

        Raises:
            DataError: A tag that does not fit the scheme.
        """
        try:
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


class LabelOptions(FileOptions):
    """Options of the formats that hold one label a text."""

    label_names: dict[str, str] = Field(default={}, description="Labels by what stands in the file.")
    empty_texts: Literal["error", "skip"] = Field(
        default="error", description="With `skip`, labelled texts that are blank are dropped and counted in the log."
    )


class TextBuilder:
    """Turns texts and labels into examples, and reports once how many blank texts of a file were dropped."""

    def __init__(self, path: str | Path, options: LabelOptions, *, label_path: str | Path | None = None) -> None:
        self._path = path
        self._label_path = label_path or path
        self._options = options
        self.dropped = 0

    def build(self, text: object, label: object, line: int, *, path: str | Path | None = None) -> TextExample | None:
        """One example, or None for a blank text that is to be skipped.

        Args:
            text: The text of the file.
            label: What the file has as its label.
            line: Where both stand.
            path: The member of an archive that they come from, if it is one.

        Raises:
            DataError: A blank text (unless it is skipped), a blank label, or a value that is no text.
        """
        if self._options.empty_texts == "skip" and isinstance(text, str) and not text.strip():
            self.dropped += 1
            return None
        content = require_text(text, "text", path or self._path, line)
        name = require_text(label, "label", path or self._label_path, line)
        return TextExample(content, self._options.label_names.get(name, name))

    def report(self) -> None:
        """Logs the number of dropped texts, if there were any."""
        if self.dropped:
            _log.warning("%s: %d blank texts were dropped (empty_texts: skip)", self._path, self.dropped)
