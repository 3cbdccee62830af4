"""JSON lines with a text, cut into passages."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from pydantic import Field

from trunkline.errors import DataError
from trunkline.text.examples import PlainExample
from trunkline_lab.data.readers.base import get_key, read_json_lines, require_some, shorten
from trunkline_lab.data.readers.corpus import Passages, cut_text


class Options(Passages):
    """Options of texts in JSON lines."""

    text_key: str = "text"
    list_key: str | None = Field(default=None, description="Where a line has a list of objects, each with a text.")


def read(path: str | Path, options: Options) -> Iterator[PlainExample]:
    """Yields the passages of each line's text; lines whose text is blank are passed over."""
    return require_some(_passages(path, options), path, what=f"text of {options.min_words} words or more")


def _passages(path: str | Path, options: Options) -> Iterator[PlainExample]:
    for line, record in read_json_lines(path, options):
        for part in _records(record, options, path, line):
            text = get_key(part, options.text_key, path, line)
            if not isinstance(text, str):
                raise DataError(f"the text is {shorten(text)}", path=path, line=line, expected="a text as a string")
            yield from cut_text(text, options)


def _records(record: dict[str, Any], options: Options, path: str | Path, line: int) -> list[dict[str, Any]]:
    if options.list_key is None:
        return [record]
    parts = get_key(record, options.list_key, path, line)
    if not isinstance(parts, list) or not all(isinstance(part, dict) for part in parts):
        raise DataError(
            f"{options.list_key} is {shorten(parts)}", path=path, line=line, expected="a list of objects with a text"
        )
    return parts
