"""Entities as character spans, from offsets or from tags; whether they begin and end where words do."""

from __future__ import annotations

import operator
import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from itertools import accumulate, chain, pairwise
from pathlib import Path
from typing import Any, NamedTuple

from trunkline.data.formats import ACCEPTED
from trunkline.data.load import read_lines
from trunkline.data.values import Loaded, data_error, require_text, shorten
from trunkline.tasks.ner import unheld_spans
from trunkline.text.examples import NerExample, Scheme, Span, TagError, decode_with_repairs, join_tokens
from trunkline.text.words import split_words

STARTS = ("start", "start_offset", "begin")
ENDS = ("end", "end_offset", "stop")
LABELS = ("label", "entity", "labels", "type", "tag", "entity_group")
_NAMED = 3
"""Misses that a message lists; as many that another unit explains are taken for offsets in that unit."""

_BLANKS = re.compile(r"[ \t]+")
TAG = re.compile(r"O|[BIESLU]-.+")

_Rows = Sequence[tuple[int, list[str]]]


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
        DataError: Offsets in another unit, which is named, explain most of those that miss; or inclusive ends do.
    """
    total = sum(len(row.entities) for row in rows)
    missed = [(row, entity) for row in rows for entity in _missed(row)]
    if not missed:
        return ""
    shown = [
        f"{shorten(row.text[max(start, 0) : max(end, 0)])} at {start}..{end} ({label})"
        + (f" in line {row.line}" if row.line else "")
        for row, (start, end, label, _) in missed[:_NAMED]
    ]
    listed = ", ".join(shown) + (f" and {len(missed) - _NAMED} more" if len(missed) > _NAMED else "")
    what = f"{len(missed)} of {total} entities do not begin and end where words do: {listed}"
    expected = "offsets that count characters, `end` exclusive"
    ends = [row._replace(entities=tuple(one._replace(end=one.end + 1) for one in row.entities)) for row in rows]
    if 10 * len(missed) > 8 * total and 10 * sum(len(_missed(row)) for row in ends) < total:
        raise data_error(path, missed[0][0].line, what, expected, "The ends seem to be inclusive: add 1 to each")
    others = {unit: sum(count(row) for row in rows) for unit, count in _UNITS.items()}
    unit = min(others, key=lambda name: others[name])
    if 2 * others[unit] < len(missed) and (2 * len(missed) > total or len(missed) >= _NAMED):
        todo = f"The offsets seem to count {unit}: convert them"
        raise data_error(path, missed[0][0].line, what, expected, todo)
    return what


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


def read_tagged(path: str | Path, form: str, family: str | None) -> Loaded:
    """The sentences of a CoNLL file, with the errors of `read_examples`; one for other forms and families, too."""
    if form == "text" or family not in (None, "ner"):
        given = "no form of labelled data that is known" if form == "text" else "tokens with tags, one a line"
        raise data_error(path, None, given, f"data for {family}: {ACCEPTED}" if family else ACCEPTED)
    examples, kind = decode_sentences(list(read_conll(path)), path)
    return Loaded("ner", list(examples), f"CoNLL with {kind}")


class Sentence(NamedTuple):
    """Tokens with their tags and the line of each; one line for all where a record has them."""

    tokens: tuple[str, ...]
    tags: tuple[str, ...]
    lines: tuple[int, ...]


def read_conll(path: str | Path, *, tags: bool = True) -> Iterator[Sentence]:
    """Yields the sentences of a file with one token a line and blank lines between sentences.

    Columns are parted by tabs where a line has one, else by blanks. `-DOCSTART-` lines end a sentence, lines that begin
    with `#` and have other columns than the rest are comments, and a first column that counts the tokens is passed
    over. Tags stand in the last column that has nothing but O and tags with prefixes, else in the last that has an O;
    without `tags` none are read, and sentences come as they are met. Rows of different widths raise a DataError.
    """
    sentences: Iterable[_Rows] = _sentences(path)
    column = 0
    if tags:
        sentences = list(sentences)
        column = _tag_column(sentences, path)
    for rows in sentences:
        lines, cells = zip(*rows, strict=True)
        counted = len(cells[0]) > 2 and all(row[0] == str(number) for number, row in enumerate(cells, start=1))
        marks = tuple(row[column] for row in cells) if tags else ()
        yield Sentence(tuple(row[int(counted)] for row in cells), marks, lines)


def _sentences(path: str | Path) -> Iterator[_Rows]:
    rows: list[tuple[int, list[str]]] = []
    width = 0
    for number, line in chain(read_lines(path), [(0, "")]):
        if not line.strip() or line.lstrip().startswith("-DOCSTART-"):
            if rows:
                yield rows
            rows = []
            continue
        cells = [cell.strip() for cell in (line.split("\t") if "\t" in line else _BLANKS.split(line.strip()))]
        if line.startswith("#") and (len(cells) != width or len(cells) < 2):
            continue
        width = width or len(cells)
        if len(cells) != width or width < 2 or not cells[0] or not cells[-1]:
            given = f"{len(cells)} column{'s' if len(cells) != 1 else ''} in the row {shorten(line)}"
            expected = f"a token and its tag in {max(width, 2)} columns, as in the rows before"
            raise data_error(path, number, given, expected, "Mend the row, and put a blank line between sentences")
        rows.append((number, cells))


def _tag_column(sentences: Sequence[_Rows], path: str | Path) -> int:
    if not sentences:
        raise data_error(path, None, "the file is empty", "a token and its tag a line")
    columns = range(len(sentences[0][0][1]) - 1, 0, -1)
    tags = {column: {row[column] for rows in sentences for _, row in rows} for column in columns}
    tagged = [column for column in columns if len(tags[column]) > 1 and all(map(TAG.fullmatch, tags[column]))]
    if found := tagged or [column for column in columns if "O" in tags[column]]:
        return found[0]
    given = f"no column has tags; the last one has {', '.join(sorted(tags[columns[0]])[:5])}"
    expected = "O for tokens outside of entities, and for the others B-label, I-label and their like, or the label"
    raise data_error(path, sentences[0][0][0], given, expected)


def find_scheme(sentences: Iterable[Sequence[str]]) -> Scheme:
    """The scheme of tag sequences: by their prefixes, and IOB1 where no entity after another label begins with B."""
    pairs = [pair for tags in sentences for pair in pairwise(["O", *tags]) if pair[1] != "O"]
    if not all(TAG.fullmatch(tag) for _, tag in pairs):
        return "IO"
    prefixes = {tag[0] for _, tag in pairs}
    begun = {tag[0] for before, tag in pairs if before[2:] != tag[2:]}
    if prefixes & {"L", "U"}:
        return "BILOU"
    if prefixes & {"E", "S"}:
        return "BIOES"
    return "IOB1" if "I" in begun and "B" not in begun else "BIO"


def decode_sentences(sentences: Sequence[Sentence], path: str | Path) -> tuple[list[NerExample], str]:
    """Sentences as examples, and what their tags were taken for; one that does not fit the others is a DataError."""
    chosen = find_scheme(sentence.tags for sentence in sentences)
    examples, repaired = [], 0
    for sentence in sentences:
        try:
            found, broken = decode_with_repairs(sentence.tags, chosen)
        except TagError as error:
            line = sentence.lines[error.index if len(sentence.lines) > 1 else 0]
            raise data_error(path, line, error.given, error.expected) from None
        repaired += len(broken)
        text, words = join_tokens(list(sentence.tokens))
        spans = tuple(Span(words[first][0], words[last - 1][1], label.strip()) for first, last, label in found)
        examples.append(NerExample(text, words, spans))
    return examples, f"tags in {chosen}{f', of which {repaired} broke its rules and were repaired' if repaired else ''}"
