"""Records of JSON and JSON-lines files with their lines, and what all formats share: values and their messages."""

from __future__ import annotations

import json
import re
import reprlib
from collections.abc import Iterable, Iterator, Sequence
from itertools import chain
from pathlib import Path
from typing import Any, TypeVar

from trunkline.data.files import decode_text, read_bytes, read_lines
from trunkline.errors import DataError

DOCUMENT_LIMIT = 256 * 1024**2
"""Bytes of a JSON document, which is parsed as a whole; larger data belongs into JSON lines."""

LISTS = (("rasa_nlu_data", "common_examples"), ("data",), ("examples",), ("records",), ("rows",))
"""Keys that lead to the list of records of a JSON document that is an object."""

_BLANKS = " \t\r\n"
_SURROGATE = re.compile(r"\\u[dD][89a-fA-F]")
_SHORT = reprlib.Repr()
_SHORT.maxstring = _SHORT.maxlong = _SHORT.maxother = 80
_SHORT.maxlevel = 3

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
        raise DataError(
            f"the file has no {what}",
            path=path,
            expected=f"at least one {what}",
            todo="Check that it is the right file, and the names of columns or keys",
        )


def get_key(record: dict[str, Any], key: str, path: str | Path, line: int | None) -> Any:
    """The value of a key; a DataError that lists the keys if it is missing."""
    if key not in record:
        raise DataError(
            f"no key {key!r}; the keys are {list_names(record)}", path=path, line=line, expected=f"the key {key!r}"
        )
    return record[key]


def require_text(value: object, what: str, path: str | Path, line: int | None) -> str:
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


def read_json_lines(path: str | Path, *, encoding: str = "utf-8") -> Iterator[tuple[int, dict[str, Any]]]:
    """Yields the objects of a JSON-lines file with their line numbers; lines without any text are passed over."""
    return _parse_lines(read_lines(path, encoding=encoding), path)


def _parse_lines(lines: Iterable[tuple[int, str]], path: str | Path) -> Iterator[tuple[int, dict[str, Any]]]:
    for number, line in lines:
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


def read_json_records(path: str | Path) -> tuple[str, Iterator[tuple[int, dict[str, Any]]]]:
    """The records of a JSON file, told apart by content: one object a line, a list of objects, or an object with one.

    Returns:
        What the file was taken for, and the records with the lines on which they begin, counted from 1. Lines are read
        as they are asked for; a document is parsed whole. Items `[text, {...}]` become objects with the key `text`.

    Raises:
        DataError: Text that is not JSON, or no list of records in it.
    """
    lines = ((number, line) for number, line in read_lines(path) if line.strip())
    first = next(lines, None)
    if first is None:
        raise DataError("the file is empty", path=path, expected="JSON")
    try:
        value = parse_json(first[1])
    except ValueError:
        value = None
    more = next(lines, None) if value is not None else None
    if isinstance(value, dict) and (more is not None or not _keys_of_list(value)):
        return "JSON lines", _parse_lines(chain([first], [more] if more else [], lines), path)
    return "a JSON document", _objects(read_json_items(path), path)


def read_json_items(
    path: str | Path, keys: Sequence[str] | None = None, *, encoding: str = "utf-8"
) -> Iterator[tuple[int, Any]]:
    """Yields the items of one list of a JSON document with their line numbers, counted from 1.

    Args:
        path: The file.
        keys: The keys that lead from the document's object to the list, none if the document is the list; by default
            those of `LISTS`.
        encoding: Of the file.

    Raises:
        DataError: Text that is not JSON, a key that is missing, or a value at the keys that is no list.
    """
    text = decode_text(read_bytes(path, limit=DOCUMENT_LIMIT), encoding, path)
    value = _parse_document(text, path)
    position = _skip(text, 0)
    for depth, key in enumerate(_keys_of_list(value) if keys is None else keys):
        if not isinstance(value, dict) or key not in value:
            keyed = f"; the keys are {list_names(value)}" if isinstance(value, dict) else ""
            last = keys is None or depth + 1 == len(keys)
            raise DataError(
                f"no key {key!r}{keyed or f', because this is a {type(value).__name__}'}",
                path=path,
                line=_line(text, position),
                expected=f"a list at {'.'.join([*(keys or [key])][: depth + 1])}" if last else f"the key {key!r}",
            )
        value, position = value[key], _value_position(text, position, key)
    if not isinstance(value, list):
        raise DataError(
            f"{'.'.join(keys or ()) or 'the document'} is a {type(value).__name__}",
            path=path,
            line=_line(text, position),
            expected="a list",
        )
    yield from _items(text, position)


def _keys_of_list(value: Any) -> tuple[str, ...]:
    """The keys of `LISTS` that lead to a list in the value; none if there are none."""
    for keys in LISTS:
        found = value
        for key in keys:
            found = found.get(key) if isinstance(found, dict) else None
        if isinstance(found, list):
            return keys
    return ()


def _objects(items: Iterable[tuple[int, Any]], path: str | Path) -> Iterator[tuple[int, dict[str, Any]]]:
    for line, item in items:
        if isinstance(item, list) and len(item) == 2 and isinstance(item[0], str) and isinstance(item[1], dict):
            yield line, {"text": item[0], **item[1]}
        elif isinstance(item, dict):
            yield line, item
        else:
            raise DataError(f"the item is {shorten(item)}", path=path, line=line, expected="a list of JSON objects")


def _parse_document(text: str, path: str | Path) -> Any:
    try:
        return parse_json(text)
    except ValueError as error:
        syntax = error if isinstance(error, json.JSONDecodeError) else None
        raise DataError(
            f"the file is not JSON ({syntax.msg if syntax else error})",
            path=path,
            line=syntax.lineno if syntax else None,
            expected="one JSON document, or one object a line",
        ) from None


def _items(text: str, position: int) -> Iterator[tuple[int, Any]]:
    """The items of the list that begins at `position`; the text is known to be JSON."""
    decoder = json.JSONDecoder()
    line, counted = _line(text, position), position
    position = _skip(text, position + 1)
    while text[position] != "]":
        line, counted = line + text.count("\n", counted, position), position
        item, position = decoder.raw_decode(text, position)
        yield line, item
        position = _skip(text, position)
        if text[position] == ",":
            position = _skip(text, position + 1)


def _value_position(text: str, position: int, key: str) -> int:
    """Where the last value of `key` begins in the object at `position`, as the parser takes the last one, too."""
    decoder = json.JSONDecoder()
    found = position
    position = _skip(text, position + 1)
    while text[position] != "}":
        name, position = decoder.raw_decode(text, position)
        position = _skip(text, _skip(text, position) + 1)
        if name == key:
            found = position
        _, position = decoder.raw_decode(text, position)
        position = _skip(text, position)
        if text[position] == ",":
            position = _skip(text, position + 1)
    return found


def _skip(text: str, position: int) -> int:
    while position < len(text) and text[position] in _BLANKS:
        position += 1
    return position


def _line(text: str, position: int) -> int:
    return text.count("\n", 0, position) + 1
