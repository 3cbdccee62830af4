"""Records of JSON and JSON-lines files with their lines, and what all formats share: values and their messages."""

from __future__ import annotations

import json
import re
import reprlib
from collections.abc import Iterable, Iterator, Sequence
from itertools import chain
from pathlib import Path
from typing import Any, TypeVar

from trunkline.data.files import data_error, decode_text, read_bytes, read_lines

DOCUMENT_LIMIT = 256 * 1024**2
"""Bytes of a JSON document, which is parsed as a whole; larger data belongs into JSON lines."""

_LISTS = (("rasa_nlu_data", "common_examples"), ("data",), ("examples",), ("records",), ("rows",))
"""Keys that lead to the list of records of a JSON document that is an object."""

_BETWEEN = re.compile(r"[ \t\r\n]*")
_SURROGATE = re.compile(r"\\u[dD][89a-fA-F]")
_SHORT = reprlib.Repr()
_SHORT.maxstring = _SHORT.maxlong = _SHORT.maxother = 80
_SHORT.maxlevel = 3

Record = dict[str, Any]
Records = Iterable[tuple[int, Record]]
T = TypeVar("T")


def shorten(value: object) -> str:
    """A value for a message: its `repr`, with what is long or deep left out of the middle."""
    return _SHORT.repr(value)


def list_names(names: Iterable[object], *, most: int = 12) -> str:
    """Names for a message, the first `most` of them."""
    found = list(names)
    listed = ", ".join(map(shorten, found[:most])) or "none"
    return f"{listed} and {len(found) - most} more" if len(found) > most else listed


def require_some(items: Iterable[T], path: str | Path, *, what: str = "example") -> Iterator[T]:
    """Passes the items on and raises a DataError if there is none."""
    empty = True
    for item in items:
        empty = False
        yield item
    if empty:
        todo = "Check that it is the right file, and the names of columns or keys"
        raise data_error(path, None, f"the file has no {what}", f"at least one {what}", todo)


def get_key(record: Record, key: str, path: str | Path, line: int | None) -> Any:
    """The value of a key; a DataError that lists the keys if it is missing."""
    if key not in record:
        raise data_error(path, line, f"no key {key!r}; the keys are {list_names(record)}", f"the key {key!r}")
    return record[key]


def require_text(value: object, what: str, path: str | Path, line: int | None) -> str:
    """The stripped text, or a DataError if it is blank or no text; whole numbers pass as labels."""
    if isinstance(value, int) and not isinstance(value, bool) and what == "label":
        return str(value)
    if not isinstance(value, str):
        raise data_error(path, line, f"the {what} is {shorten(value)}", f"a {what} as a string")
    if not value.strip():
        raise data_error(path, line, f"the {what} is empty", f"a {what}", "Fill it in or remove the row")
    return value.strip()


def parse_json(text: str) -> Any:
    """The value of a JSON text.

    Raises a ValueError for what is no JSON, numbers of thousands of digits, deep nesting, halves of surrogate pairs,
    which no tokenizer and no UTF-8 file takes.
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


def read_json_lines(path: str | Path, *, encoding: str = "utf-8") -> Iterator[tuple[int, Record]]:
    """Yields the objects of a JSON-lines file with their line numbers; lines without any text are passed over."""
    return _parse_lines(read_lines(path, encoding=encoding), path)


def _parse_lines(lines: Iterable[tuple[int, str]], path: str | Path) -> Iterator[tuple[int, Record]]:
    for number, line in lines:
        if not line.strip():
            continue
        try:
            record = parse_json(line)
        except ValueError as error:
            message = error.msg if isinstance(error, json.JSONDecodeError) else error
            raise data_error(path, number, f"the line is not JSON ({message})", "one JSON object a line") from None
        if not isinstance(record, dict):
            raise data_error(path, number, f"the line holds {type(record).__name__}", "a JSON object with keys")
        yield number, record


def read_json_records(path: str | Path) -> tuple[str, Iterator[tuple[int, Record]]]:
    """What a JSON file was taken for, and its records with the lines on which they begin, counted from 1.

    Found by content: one object a line, read as asked for; or a document, parsed whole, that is a list of objects or an
    object with one. Items `[text, {...}]` become objects with the key `text`. Anything else raises a DataError.
    """
    lines = ((number, line) for number, line in read_lines(path) if line.strip())
    first = next(lines, (1, ""))
    try:
        value = parse_json(first[1])
    except ValueError:
        value = None
    more = next(lines, None) if value is not None else None
    if isinstance(value, dict) and (more is not None or not _list_keys(value)):
        return "JSON lines", _parse_lines(chain([first], [more] if more else [], lines), path)
    return "a JSON document", (_as_record(line, item, path) for line, item in read_json_items(path))


def read_json_items(
    path: str | Path, keys: Sequence[str] | None = None, *, encoding: str = "utf-8"
) -> Iterator[tuple[int, Any]]:
    """Yields the items of one list of a JSON document with the lines on which they begin.

    `keys` lead from the document to the list, by default those of `_LISTS` that do. Text that is not JSON raises a
    DataError, and so does the lack of a list there.
    """
    text = decode_text(read_bytes(path, limit=DOCUMENT_LIMIT), encoding, path)
    try:
        value = parse_json(text)
    except ValueError as error:
        at, message = (error.lineno, error.msg) if isinstance(error, json.JSONDecodeError) else (None, str(error))
        given = f"the file is not JSON ({message})"
        raise data_error(path, at, given, "one JSON document, or one object a line") from None
    keys = _list_keys(value) if keys is None else keys
    for key in keys:
        if not isinstance(value, dict) or key not in value:
            there = (
                f"; the keys are {list_names(value)}" if isinstance(value, dict) else f" in a {type(value).__name__}"
            )
            raise data_error(path, None, f"no key {key!r}{there}", f"a list at {'.'.join(keys)}")
        value = value[key]
    if not isinstance(value, list):
        given = f"{'.'.join(keys) or 'the document'} is a {type(value).__name__}"
        raise data_error(path, None, given, f"a list, or one at {', '.join(map('.'.join, _LISTS))}")
    yield from zip(_item_lines(text, keys, value), value, strict=True)


def _item_lines(text: str, keys: Sequence[str], items: Sequence[Any]) -> Iterator[int]:
    """The lines on which the items of a list of a JSON document begin; the list is found by its last key."""
    decoder, line, counted = json.JSONDecoder(), 1, 0
    named = re.finditer(rf"{re.escape(json.dumps(keys[-1]))}\s*:\s*(?=\[)", text) if keys else re.finditer("", text)
    starts = (text.index("[", match.end()) for match in named)
    position = next((start for start in starts if len(decoder.raw_decode(text, start)[0]) == len(items)), None)
    if position is None:  # the key is written with escapes
        yield from (1 for _ in items)
        return
    for _ in items:
        position = _BETWEEN.match(text, position + 1).end()  # type: ignore[union-attr]
        line, counted = line + text.count("\n", counted, position), position
        yield line
        position = _BETWEEN.match(text, decoder.raw_decode(text, position)[1]).end()  # type: ignore[union-attr]


def _list_keys(value: Any) -> tuple[str, ...]:
    """The keys of `_LISTS` that lead to a list in the value; none if there are none."""
    for keys in _LISTS:
        found = value
        for key in keys:
            found = found.get(key) if isinstance(found, dict) else None
        if isinstance(found, list):
            return keys
    return ()


def _as_record(line: int, item: Any, path: str | Path) -> tuple[int, Record]:
    if isinstance(item, list) and len(item) == 2 and isinstance(item[0], str) and isinstance(item[1], dict):
        item = {"text": item[0], **item[1]}
    if not isinstance(item, dict):
        raise data_error(path, line, f"the item is {shorten(item)}", "a list of JSON objects")
    return line, item
