"""CoNLL-like files: one token and its tag a line, a blank line between sentences."""

from __future__ import annotations

import logging
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Literal

from pydantic import Field

from trunkline.data.load import read_lines
from trunkline.errors import DataError
from trunkline.text.examples import NerExample
from trunkline_lab.data.readers.base import SentenceBuilder, TaggedOptions, shorten

_log = logging.getLogger("trunkline.data")
_BLANKS = re.compile(r"[ \t]+")


class ConllOptions(TaggedOptions):
    """Options of CoNLL-like files."""

    token_column: int = Field(default=0, description="Counted from 0, negative from the end.")
    tag_column: int = -1
    separator: str | None = Field(
        default=None, min_length=1, description="None: tabs where a line has one, else runs of blanks."
    )
    drop_sentences: tuple[str, ...] = Field(
        default=(), description="Sentences that begin with one of these tokens are no text and are dropped."
    )
    malformed: Literal["error", "skip"] = Field(
        default="error",
        description="With `skip`, rows that are no token with a tag are dropped and counted in the log.",
    )


def read_conll(path: str | Path, options: ConllOptions) -> Iterator[NerExample]:
    """Yields the sentences; a row that is no token with a tag is a DataError unless `malformed` is `skip`."""
    builder = SentenceBuilder(path, options.scheme)
    rows: list[tuple[int, str, str]] = []
    for row in _rows(path, options):
        if row is not None:
            rows.append(row)
            continue
        if rows and rows[0][1] not in options.drop_sentences:
            lines, tokens, tags = zip(*rows, strict=True)
            yield builder.build(list(tokens), list(tags), lines)
        rows = []
    builder.report()


def _rows(path: str | Path, options: ConllOptions) -> Iterator[tuple[int, str, str] | None]:
    """Yields line, token and tag of each row, and None after each sentence."""
    width, dropped = 0, 0
    for number, line in read_lines(path, encoding=options.encoding):
        if not line.strip() or line.lstrip().startswith("-DOCSTART-"):
            yield None
            continue
        cells = _split(line, options.separator)
        problem = _problem(cells, options, width)
        if not problem:
            width = len(cells)
            yield number, cells[options.token_column].strip(), cells[options.tag_column].strip()
        elif options.malformed == "error":
            raise DataError(
                f"{problem} in the row {shorten(line)}",
                path=path,
                line=number,
                expected="a token and its tag" + (f" in {width} columns, as in the rows before" if width else ""),
                todo="Mend the row, or check separator, token_column and tag_column",
            )
        else:
            dropped += 1
    if dropped:
        _log.warning("%s: %d rows that are no token with a tag were dropped (malformed: skip)", path, dropped)
    yield None


def _split(line: str, separator: str | None) -> list[str]:
    if separator is not None:
        return line.split(separator)
    return line.split("\t") if "\t" in line else _BLANKS.split(line.strip())


def _problem(cells: list[str], options: ConllOptions, width: int) -> str:
    least = max(_needed(options.token_column), _needed(options.tag_column), 2)
    if len(cells) < least or (width and len(cells) != width):
        return f"{len(cells)} column" + ("s" if len(cells) != 1 else "")
    if not cells[options.token_column].strip():
        return "no token"
    if not cells[options.tag_column].strip():
        return "no tag"
    return ""


def _needed(column: int) -> int:
    return column + 1 if column >= 0 else -column
