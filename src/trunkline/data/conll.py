"""Tokens with tags: CoNLL files of any columns, and the scheme of tags, found by content."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Sequence
from itertools import chain
from pathlib import Path
from typing import NamedTuple

from trunkline.data.load import read_lines
from trunkline.data.values import data_error, shorten
from trunkline.text.examples import NerExample, Scheme, Span, TagError, decode_with_repairs, join_tokens

_BLANKS = re.compile(r"[ \t]+")
_TAG = re.compile(r"O|[BIESLU]-.+")

_Rows = Sequence[tuple[int, list[str]]]


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
    values = {column: {row[column] for rows in sentences for _, row in rows} for column in columns}
    tagged = [column for column in columns if len(values[column]) > 1 and all(map(_TAG.fullmatch, values[column]))]
    outside = [column for column in columns if "O" in values[column]]
    if not tagged and not outside:
        given = f"no column has tags; the last one has {', '.join(sorted(values[columns[0]])[:5])}"
        expected = "O for tokens outside of entities, and for the others B-label, I-label and their like, or the label"
        raise data_error(path, sentences[0][0][0], given, expected)
    return (tagged or outside)[0]


def find_scheme(sentences: Iterable[Sequence[str]]) -> Scheme:
    """The scheme of tag sequences: by their prefixes, and IOB1 where no entity after another label begins with B."""
    prefixes: set[str] = set()
    begun: set[str] = set()
    for tags in sentences:
        for before, tag in zip(["O", *tags], tags, strict=False):
            if not _TAG.fullmatch(tag):
                return "IO"
            if tag != "O":
                prefixes.add(tag[0])
                if before[2:] != tag[2:]:
                    begun.add(tag[0])
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
