"""The items of a list inside a JSON document, each with the line on which it begins."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from trunkline.data.files import decode_text, read_bytes
from trunkline.errors import DataError
from trunkline_lab.data.readers.base import FileOptions, list_names, parse_json

DOCUMENT_LIMIT = 256 * 1024**2
"""Bytes of a JSON document, which is parsed as a whole; larger data belongs into JSON lines."""

_BLANKS = " \t\r\n"


def read_json_items(path: str | Path, keys: Sequence[str], options: FileOptions) -> Iterator[tuple[int, Any]]:
    """Yields the items of one list of a JSON document with their line numbers, counted from 1.

    Args:
        path: The file.
        keys: The keys that lead from the document's object to the list; none if the document is the list.
        options: Encoding and archive member.

    Raises:
        DataError: Text that is not JSON, a key that is missing, or a value at the keys that is no list.
    """
    content = read_bytes(path, limit=DOCUMENT_LIMIT)
    text = decode_text(content, options.encoding, path)
    value = _parse(text, path)
    position = _skip(text, 0)
    for depth, key in enumerate(keys):
        if not isinstance(value, dict) or key not in value:
            keyed = f"; the keys are {list_names(value)}" if isinstance(value, dict) else ""
            raise DataError(
                f"no key {key!r}{keyed or f', because this is a {type(value).__name__}'}",
                path=path,
                line=_line(text, position),
                expected=f"a list at {'.'.join(keys[: depth + 1])}" if depth + 1 == len(keys) else f"the key {key!r}",
                todo="Name the right key in the reader's options",
            )
        value, position = value[key], _value_position(text, position, key)
    if not isinstance(value, list):
        raise DataError(
            f"{'.'.join(keys) or 'the document'} is a {type(value).__name__}",
            path=path,
            line=_line(text, position),
            expected="a list",
        )
    yield from _items(text, position)


def _parse(text: str, path: str | Path) -> Any:
    try:
        return parse_json(text)
    except ValueError as error:
        syntax = error if isinstance(error, json.JSONDecodeError) else None
        raise DataError(
            f"the file is not JSON ({syntax.msg if syntax else error})",
            path=path,
            line=syntax.lineno if syntax else None,
            expected="one JSON document",
            todo="Use a reader of JSON lines if the file has one object a line",
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
