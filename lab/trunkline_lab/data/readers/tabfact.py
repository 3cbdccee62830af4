"""TabFact: statements about tables whose links to cells are written as `#words;row,column#`, in one JSON file.

The file maps a table's name to a list that begins with its statements; the tables are `#`-separated files in a tar
archive, with their headers in the first line. A link to a cell becomes an entity whose label is the column's header.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from pydantic import Field

from trunkline.errors import DataError
from trunkline.text.examples import NerExample, Span
from trunkline.text.words import split_words
from trunkline_lab.data.archives import decode_text, read_bytes, read_members
from trunkline_lab.data.headers import normalise_header
from trunkline_lab.data.readers.base import FileOptions, parse_json, shorten

_LINK = re.compile(r"#([^#]*);(-?\d{1,9}),(-?\d{1,9})#")
_SIZE_LIMIT = 512 * 1024**2
_GENITIVE = re.compile(r"(?<=\w) (?=['’]s\b)")
_ORDINAL = re.compile(r"\d+(?:st|nd|rd|th)\b")
_LETTERS = re.compile(r"[^\W\d_]{2}")
_ANSWERS = frozenset(("total", "totals", "yes", "no", "none"))


class TabfactOptions(FileOptions):
    """Options of linked statements; the archive of the tables is named from the folder of the statements."""

    tables: str = "tabfact_head.tar.gz"
    pattern: str = Field(default="data/all_csv/*", description="Shell pattern of the tables in the archive.")


def read_tabfact(path: str | Path, options: TabfactOptions) -> Iterator[NerExample]:
    """Yields the statements that mention a cell of a column whose header is a concept.

    Left out are links to headers and captions (rows up to 0), mentions that only repeat the header (`club` in the
    column `club`), mentions such as `total` and `yes`, and bare numbers: what a number counts is said by
    its column, not by itself.
    """
    tables = _load(path, options)
    headers = _headers(Path(path).parent / options.tables, options, tables)
    for name, statements in tables.items():
        if name not in headers:
            raise DataError(
                f"the table {shorten(name)} is not in {options.tables}",
                path=path,
                expected="a table for each statement",
                todo="Name the archive of the same release, or set `pattern`",
            )
        for statement in statements:
            example = _example(statement, headers[name], options, path)
            if example.spans:
                yield example


def _load(path: str | Path, options: TabfactOptions) -> dict[str, list[str]]:
    content = read_bytes(path, limit=_SIZE_LIMIT)
    try:
        raw: Any = parse_json(decode_text(content, options.encoding, path))
    except json.JSONDecodeError as error:
        raise _no_json(error.msg, path, error.lineno) from None
    except ValueError as error:  # nested too deeply, or a number of thousands of digits
        raise _no_json(str(error), path, None) from None
    if not isinstance(raw, dict):
        raise DataError(f"the file holds {type(raw).__name__}", path=path, expected="a JSON object with tables as keys")
    tables = {}
    for name, entry in raw.items():
        statements = entry[0] if isinstance(entry, list) and entry else None
        if not isinstance(statements, list) or not all(isinstance(text, str) for text in statements):
            raise DataError(
                f"the entry of {shorten(name)} does not begin with statements",
                path=path,
                expected="a list whose first item is a list of strings",
            )
        tables[name] = statements
    return tables


def _no_json(problem: str, path: str | Path, line: int | None) -> DataError:
    return DataError(f"the file is not JSON ({problem})", path=path, line=line, expected="one JSON object")


def _headers(path: Path, options: TabfactOptions, wanted: dict[str, list[str]]) -> dict[str, list[str]]:
    found = {}
    for member, content in read_members(path, options.pattern):
        name = member.rpartition("/")[2]
        if name in wanted:
            first = content.partition(b"\n")[0].removesuffix(b"\r")
            found[name] = decode_text(first, "utf-8", f"{path}!{member}").split("#")
    return found


def _example(statement: str, headers: list[str], options: TabfactOptions, path: str | Path) -> NerExample:
    statement = statement.strip()
    pieces: list[str] = []
    spans: dict[Span, None] = {}
    position = length = 0
    for match in _LINK.finditer(statement):
        pieces += [statement[position : match.start()], match[1]]
        begin = length + match.start() - position
        length, position = begin + len(match[1]), match.end()
        row, column = int(match[2]), int(match[3])
        if column >= len(headers):
            raise DataError(
                f"the link {shorten(match[0])} names column {column}",
                path=path,
                expected=f"a column from 0 to {len(headers) - 1}, as the table has",
            )
        label = _concept(headers[column]) if row > 0 and column >= 0 else ""
        if label and _is_mention(match[1], label):
            words = match[1].strip()
            first = begin + match[1].index(words)
            spans[Span(first, first + len(words), label)] = None
    pieces.append(statement[position:])
    text = "".join(pieces)
    if "#" in text:
        raise DataError(
            f"a link of the statement {statement[:80]!r} is not whole", path=path, expected="#words;row,column#"
        )
    return NerExample(text, split_words(text), tuple(spans))


def _concept(header: str) -> str:
    return normalise_header(_GENITIVE.sub("", header), strict=True)


def _is_mention(words: str, label: str) -> bool:
    plain = words.strip()
    # Statements are lemmatised and headers are not, so that plurals have to be seen as one word.
    if not plain or plain in _ANSWERS or _singular(plain) == _singular(label):
        return False
    return _LETTERS.search(_ORDINAL.sub(" ", plain)) is not None


def _singular(words: str) -> list[str]:
    return [word.removesuffix("s") for word in words.split()]
