"""JSON lines with a text, cut into passages."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from trunkline.data.examples import PlainExample
from trunkline.data.readers.base import get_key, read_json_lines, require_some, shorten
from trunkline.data.readers.corpus import Passages, cut_text
from trunkline.errors import DataError


class Options(Passages):
    """Options of texts in JSON lines."""

    text_key: str = "text"


def read(path: str | Path, options: Options) -> Iterator[PlainExample]:
    """Yields the passages of each line's text; lines whose text is blank are passed over."""
    return require_some(_passages(path, options), path, what=f"text of {options.min_words} words or more")


def _passages(path: str | Path, options: Options) -> Iterator[PlainExample]:
    for line, record in read_json_lines(path, options):
        text = get_key(record, options.text_key, path, line)
        if not isinstance(text, str):
            raise DataError(f"the text is {shorten(text)}", path=path, line=line, expected="a text as a string")
        yield from cut_text(text, options)
