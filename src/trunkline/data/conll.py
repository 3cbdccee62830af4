"""Tokens with tags: CoNLL files of any columns, and the scheme of tags, found by content."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from trunkline.data.files import read_lines
from trunkline.data.records import shorten
from trunkline.errors import DataError
from trunkline.text.examples import NerExample, Span, join_tokens
from trunkline.text.tags import Scheme, TagError, decode_with_repairs

_BLANKS = re.compile(r"[ \t]+")
_TAG = re.compile(r"O|[BIESLU]-.+")


@dataclass(frozen=True, slots=True)
class Sentence:
    """Tokens with the line of each (one line for all in JSON), and their tags."""

    tokens: tuple[str, ...]
    tags: tuple[str, ...]
    lines: tuple[int, ...]


def read_conll(path: str | Path, *, tags: bool = True) -> Iterator[Sentence]:
    """Yields the sentences of a file with one token a line and blank lines between sentences.

    Columns are parted by tabs where a line has one, else by blanks. `-DOCSTART-` lines end a sentence, lines that begin
    with `#` and have other columns than the rest are comments, and a first column that counts the tokens is passed
    over. The tag stands in the last column in which all rows up to a first tag other than O have one.

    Args:
        path: The file.
        tags: Whether tags are read; without them a sentence is yielded as it is met, with no tags.

    Raises:
        DataError: Rows of different widths, rows of one column, or no column of tags.
    """
    sentences = _sentences(path)
    if not tags:
        yield from (Sentence(tuple(row[_token(rows)] for _, row in rows), (), (rows[0][0],)) for rows in sentences)
        return
    held = list(sentences)
    column = _tag_column(held, path)
    for rows in held:
        lines, cells = zip(*rows, strict=True)
        token = _token(rows)
        yield Sentence(tuple(row[token] for row in cells), tuple(row[column] for row in cells), lines)


def _sentences(path: str | Path) -> Iterator[list[tuple[int, list[str]]]]:
    rows: list[tuple[int, list[str]]] = []
    width = 0
    for number, line in read_lines(path):
        if not line.strip() or line.lstrip().startswith("-DOCSTART-"):
            if rows:
                yield rows
            rows = []
            continue
        cells = [cell.strip() for cell in (line.split("\t") if "\t" in line else _BLANKS.split(line.strip()))]
        if line.startswith("#") and (len(cells) != width or len(cells) < 2):
            continue
        width = width or len(cells)
        if len(cells) != width or width < 2 or not all((cells[0], cells[-1])):
            raise DataError(
                f"{len(cells)} column{'s' if len(cells) != 1 else ''} in the row {shorten(line)}",
                path=path,
                line=number,
                expected=f"a token and its tag in {max(width, 2)} columns, as in the rows before",
                todo="Mend the row, and put a blank line between sentences",
            )
        rows.append((number, cells))
    if rows:
        yield rows


def _token(rows: Sequence[tuple[int, list[str]]]) -> int:
    """The column of the tokens: the second where the first counts them, as in CoNLL-U."""
    counted = len(rows[0][1]) > 2 and all(row[0] == str(number) for number, (_, row) in enumerate(rows, start=1))
    return int(counted)


def _tag_column(sentences: Sequence[Sequence[tuple[int, list[str]]]], path: str | Path) -> int:
    """The last column of tags with prefixes; else the last one that has O in it, for tags without prefixes."""
    if not sentences:
        raise DataError("the file is empty", path=path, expected="a token and its tag a line")
    columns = range(len(sentences[0][0][1]) - 1, 0, -1)
    values = {column: {row[column] for rows in sentences for _, row in rows} for column in columns}
    for column in columns:
        if len(values[column]) > 1 and all(map(_TAG.fullmatch, values[column])):
            return column
    for column in columns:
        if "O" in values[column]:
            return column
    raise DataError(
        f"no column has tags; the last one has {', '.join(sorted(values[columns[0]])[:5])}",
        path=path,
        line=sentences[0][0][0],
        expected="O for tokens outside of entities, and for the others B-label, I-label and their like, or the label",
    )


def find_scheme(sentences: Iterable[Sequence[str]]) -> Scheme:
    """The scheme of tag sequences: by their prefixes, and IOB1 where no entity after an O begins with B."""
    prefixes: set[str] = set()
    bare = begun_by_b = begun_by_i = False
    for tags in sentences:
        before = "O"
        for tag in tags:
            if tag != "O" and not _TAG.fullmatch(tag):
                bare = True
            elif tag != "O":
                prefixes.add(tag[0])
                begun_by_b |= tag[0] == "B" and before[2:] != tag[2:]
                begun_by_i |= tag[0] == "I" and before[2:] != tag[2:]
            before = tag
    if bare:
        return "IO"
    if prefixes & {"L", "U"}:
        return "BILOU"
    if prefixes & {"E", "S"}:
        return "BIOES"
    return "IOB1" if begun_by_i and not begun_by_b else "BIO"


def decode_sentences(
    sentences: Sequence[Sentence], path: str | Path, scheme: Scheme | None = None
) -> tuple[list[NerExample], str]:
    """Sentences as examples: tokens joined with single blanks, entities as character spans.

    Args:
        sentences: From a file.
        path: For errors.
        scheme: How tags mark borders; by default found by content.

    Returns:
        The examples, and what they were taken for: the scheme, and how many tags broke its rules and were repaired.

    Raises:
        DataError: A tag that does not fit the scheme.
    """
    chosen = scheme or find_scheme(sentence.tags for sentence in sentences)
    examples, repaired = [], 0
    for sentence in sentences:
        try:
            found, broken = decode_with_repairs(sentence.tags, chosen)
        except TagError as error:
            line = sentence.lines[error.index] if len(sentence.lines) > 1 else sentence.lines[0]
            raise DataError(error.given, path=path, line=line, expected=error.expected) from None
        repaired += len(broken)
        text, words = join_tokens(list(sentence.tokens))
        spans = tuple(Span(words[first][0], words[last - 1][1], label.strip()) for first, last, label in found)
        examples.append(NerExample(text, words, spans))
    return examples, f"tags in {chosen}{f', of which {repaired} broke its rules and were repaired' if repaired else ''}"
