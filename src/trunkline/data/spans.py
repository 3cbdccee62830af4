"""Entities as character spans: from what files and callers give, and whether their borders are those of words."""

from __future__ import annotations

import operator
from collections.abc import Callable, Mapping, Sequence
from itertools import accumulate, pairwise
from pathlib import Path
from typing import Any, NamedTuple

from trunkline.data.values import data_error, require_text, shorten
from trunkline.tasks.ner import unheld_spans
from trunkline.text.examples import NerExample, Span
from trunkline.text.words import split_words

STARTS = ("start", "start_offset", "begin")
ENDS = ("end", "end_offset", "stop")
LABELS = ("label", "entity", "labels", "type", "tag", "entity_group")
_NAMED = 3
"""Misses that a message lists; as many that another unit explains are taken for offsets in that unit."""


class Entity(NamedTuple):
    """An entity as it was given: offsets that may be wrong, its label, and its text where that was given, too."""

    start: int
    end: int
    label: str
    text: str | None = None


class Row(NamedTuple):
    """A text with its entities as they were given, and the line; None where there are no lines."""

    line: int | None
    text: str
    entities: tuple[Entity, ...]


def parse_entities(values: Sequence[Any], path: str | Path, line: int | None) -> tuple[Entity, ...]:
    """Entities from `[start, end, label]` each, or from objects with these under `STARTS`, `ENDS` and `LABELS`.

    Raises:
        DataError: Entities of another form, offsets that are no whole numbers, or empty labels.
    """
    found = []
    for value in values:
        parts: Sequence[Any] = value if isinstance(value, list | tuple) else ()
        if isinstance(value, Mapping):
            parts = [next((value[key] for key in keys if key in value), None) for keys in (STARTS, ENDS, LABELS)]
        try:
            start, end, label = parts
            first, last = (-1 if isinstance(number, bool) else operator.index(number) for number in (start, end))
        except (TypeError, ValueError):
            expected = "(start, end, label), or an object with start, end and label; offsets are whole numbers"
            raise data_error(path, line, f"the entity is {shorten(value)}", expected) from None
        label = require_text(label[0] if isinstance(label, list) and len(label) == 1 else label, "label", path, line)
        claimed = value.get("text") if isinstance(value, Mapping) else None
        found.append(Entity(first, last, label, claimed if isinstance(claimed, str) else None))
    return tuple(found)


def build_example(row: Row, path: str | Path, *, overlap: bool = False) -> NerExample:
    """A row as an example; blanks at the ends of the text and of entities are cut off.

    Raises:
        DataError: Entities that lie outside, cover only blanks, are not the text given for them, or overlap unallowed.
    """
    stripped = require_text(row.text, "text", path, row.line)
    spans = sorted((_trim(row, one, path) for one in row.entities), key=lambda span: (span.start, span.end, span.label))
    for left, right in pairwise(() if overlap else spans):
        if right.start < left.end:
            pair = " and ".join(f"{shorten(span.label)} at {span.start}..{span.end}" for span in (left, right))
            expected = "entities that do not overlap"
            raise data_error(path, row.line, f"the entities {pair} overlap", expected, "Keep one of the two")
    shift = len(row.text) - len(row.text.lstrip())
    moved = tuple(Span(span.start - shift, span.end - shift, span.label) for span in spans)
    return NerExample(stripped, split_words(stripped), moved)


def _trim(row: Row, entity: Entity, path: str | Path) -> Span:
    start, end, label, claimed = entity
    piece = row.text[max(start, 0) : end]
    given, expected = "", "offsets that count characters, `end` exclusive"
    if not 0 <= start < end <= len(row.text):
        given = f"the entity {shorten(label)} has the offsets {start}..{end}"
        expected = f"0 <= start < end <= {len(row.text)}, the length of the text in characters"
    elif not piece.strip():
        given = f"the entity {shorten(label)} at {start}..{end} covers only blanks"
    elif claimed is not None and claimed.split() != piece.split():
        given = f"the entity {shorten(claimed)} is not what stands at {start}..{end}: {shorten(piece)}"
    if given:
        raise data_error(path, row.line, given, expected, "Check that the offsets do not count bytes or words")
    return Span(*_bare(row.text, entity), label)


def _bare(text: str, entity: Entity) -> tuple[int, int]:
    """Offsets without the blanks at both ends."""
    piece = text[max(entity.start, 0) : entity.end]
    return entity.start + len(piece) - len(piece.lstrip()), entity.end - len(piece) + len(piece.rstrip())


def check_borders(rows: Sequence[Row], path: str | Path) -> str:
    """What to tell the user of entities that do not begin and end where words do; empty if there are none.

    Raises:
        DataError: Offsets in another unit, which is named, explain most of those that miss.
    """
    total = sum(len(row.entities) for row in rows)
    missed = [(row, entity) for row in rows for entity in _missed(row)]
    if not missed:
        return ""
    shown = [f"{_quote(row, entity)}{f' in line {row.line}' if row.line else ''}" for row, entity in missed[:_NAMED]]
    listed = ", ".join(shown) + (f" and {len(missed) - _NAMED} more" if len(missed) > _NAMED else "")
    what = f"{len(missed)} of {total} entities do not begin and end where words do: {listed}"
    others = {unit: sum(count(row) for row in rows) for unit, count in _UNITS.items()}
    unit = min(others, key=lambda name: others[name])
    if 2 * others[unit] < len(missed) and (2 * len(missed) > total or len(missed) >= _NAMED):
        todo = f"The offsets seem to count {unit}: convert them"
        raise data_error(path, missed[0][0].line, what, "offsets that count characters, `end` exclusive", todo)
    return what


def _quote(row: Row, entity: Entity) -> str:
    piece = shorten(row.text[entity.start : entity.end]) if 0 <= entity.start < entity.end else "offsets"
    return f"{piece} at {entity.start}..{entity.end} ({entity.label})"


def _missed(row: Row) -> list[Entity]:
    """The entities outside of the text, and those whose borders without blanks are not those of words."""
    words, missed = split_words(row.text), []
    for entity in row.entities:
        start, end = _bare(row.text, entity)
        example = NerExample(row.text, words, (Span(start, end, entity.label),))
        if not 0 <= start < end <= len(row.text) or unheld_spans(example, words):
            missed.append(entity)
    return missed


def _counter(size: Callable[[str], int]) -> Callable[[Row], int]:
    """Counts the entities of a row that miss the borders of words if offsets are sums of characters' sizes."""

    def count(row: Row) -> int:
        at = {offset: number for number, offset in enumerate(accumulate(map(size, row.text), initial=0))}
        moved = [entity._replace(start=at.get(entity.start, -1), end=at.get(entity.end, -1)) for entity in row.entities]
        return len(_missed(row._replace(entities=tuple(moved))))

    return count


_UNITS: dict[str, Callable[[Row], int]] = {
    "UTF-8 bytes": _counter(lambda character: len(character.encode("utf-8", "replace"))),
    "UTF-16 units": _counter(lambda character: 1 + (character > "\uffff")),
    "words": lambda row: sum(not 0 <= entity.start < entity.end <= len(row.text.split()) for entity in row.entities),
}
