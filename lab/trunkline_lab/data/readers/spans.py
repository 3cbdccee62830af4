"""JSON lines with a text and its entities as character offsets."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from trunkline.data.spans import Row, build_example, parse_entities
from trunkline.errors import DataError
from trunkline.text.examples import NerExample, Span
from trunkline.text.words import split_words
from trunkline_lab.data.readers.base import FileOptions, get_key, read_json_lines, require_text, shorten


class SpansOptions(FileOptions):
    """Options of span files."""


def read_spans(path: str | Path, options: SpansOptions) -> Iterator[NerExample]:
    """Yields a text a line, as the product reads them: keys `text` and `entities`, blanks around both cut off."""
    for line, record in read_json_lines(path, encoding=options.encoding):
        text, entities = (get_key(record, key, path, line) for key in ("text", "entities"))
        if not isinstance(entities, list):
            given = f"the entities are {shorten(entities)}"
            raise DataError(given, path=path, line=line, expected="a list of entities")
        require_text(text, "text", path, line)
        example = build_example(Row(line, text, parse_entities(entities, path, line)), path)
        if not all(split_words(example.text[span.start : span.end]) for span in example.spans):
            raise DataError("an entity covers no word", path=path, line=line, expected="text")
        yield example


def trim_span(text: str, start: Any, end: Any, label: Any, path: str | Path, line: int) -> Span:
    """A span of `text` without blanks at its ends; a DataError if nothing or no label is left, or it lies outside."""
    numbers = all(isinstance(value, int) and not isinstance(value, bool) for value in (start, end))
    if not numbers or not 0 <= start < end <= len(text):
        raise DataError(
            f"the entity {shorten(label)} has the offsets {shorten(start)}..{shorten(end)}",
            path=path,
            line=line,
            expected=f"0 <= start < end <= {len(text)}, the length of the text in characters",
            todo="Check that the offsets count characters, not bytes or words, and that `end` is exclusive",
        )
    label = require_text(label, "label", path, line)
    piece = text[start:end]
    if not split_words(piece):
        raise DataError(
            f"the entity {shorten(label)} at {start}..{end} covers no word", path=path, line=line, expected="text"
        )
    return Span(start + len(piece) - len(piece.lstrip()), end - len(piece) + len(piece.rstrip()), label)
