"""JSON lines with a text and its entities as character offsets."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path
from typing import Any, Literal

from trunkline.errors import DataError
from trunkline.text.examples import NerExample, Span
from trunkline.text.words import split_words
from trunkline_lab.data.readers.base import FileOptions, get_key, read_json_lines, require_text, shorten


class SpansOptions(FileOptions):
    """Options of span files; an entity is an object with these keys or a list of start, end and label."""

    text_key: str = "text"
    entities_key: str = "entities"
    start_key: str = "start"
    end_key: str = "end"
    label_key: str = "label"
    overlap: Literal["error", "keep"] = "error"


def read_spans(path: str | Path, options: SpansOptions) -> Iterator[NerExample]:
    """Yields a text a line; blanks around texts and entities are cut off and the offsets moved along."""
    for line, record in read_json_lines(path, encoding=options.encoding):
        yield build_example(record, options, path, line)


def build_example(record: dict[str, Any], options: SpansOptions, path: str | Path, line: int) -> NerExample:
    """A record with a text and its entities as an example, blanks cut off; a DataError if it is malformed."""
    raw = get_key(record, options.text_key, path, line)
    text = require_text(raw, "text", path, line)
    entities = get_key(record, options.entities_key, path, line)
    if not isinstance(entities, list):
        raise DataError(f"the entities are {shorten(entities)}", path=path, line=line, expected="a list of entities")
    spans = [trim_span(raw, *_parts(entity, options, path, line), path, line) for entity in entities]
    spans.sort(key=lambda span: (span.start, span.end, span.label))
    if options.overlap == "error":
        _refuse_overlap(spans, path, line)
    shift = len(raw) - len(raw.lstrip())
    moved = tuple(Span(span.start - shift, span.end - shift, span.label) for span in spans)
    return NerExample(text, split_words(text), moved)


def _parts(entity: Any, options: SpansOptions, path: str | Path, line: int) -> tuple[Any, Any, Any]:
    if isinstance(entity, dict):
        keys = (options.start_key, options.end_key, options.label_key)
        start, end, label = (get_key(entity, key, path, line) for key in keys)
        return start, end, label
    if isinstance(entity, list) and len(entity) == 3:
        return entity[0], entity[1], entity[2]
    raise DataError(
        f"the entity is {shorten(entity)}",
        path=path,
        line=line,
        expected=f"[start, end, label] or an object with {options.start_key}, {options.end_key}, {options.label_key}",
    )


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


def _refuse_overlap(spans: list[Span], path: str | Path, line: int) -> None:
    for left, right in pairwise(spans):
        if right.start < left.end:
            raise DataError(
                f"the entities {shorten(left.label)} at {left.start}..{left.end} and {shorten(right.label)} at "
                f"{right.start}..{right.end} overlap",
                path=path,
                line=line,
                expected="entities that do not overlap",
                todo="Keep one of the two, or set overlap: keep for a pre-finetuning source",
            )
