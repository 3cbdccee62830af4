"""CoNLL-U: sentences as they were written, with tags of entities in MISC or in a column of their own."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from itertools import groupby
from pathlib import Path
from typing import NamedTuple

from trunkline.data.load import read_lines
from trunkline.data.spans import TAG, find_scheme
from trunkline.data.values import Record, data_error, shorten
from trunkline.text.examples import TagError, decode_with_repairs, join_tokens

_COLUMNS, _MISC = 10, 9
_NER = re.compile(r"(?:^|\|)(?i:ner|ne|netype)=([^|]+)")
_COMMENT = re.compile(r"#\s*(\w+)\s*=\s*(.*)")


class _Token(NamedTuple):
    """What stands in the text: the cells of its row, and those of its words if it has several."""

    line: int
    cells: list[str]
    words: list[list[str]]

    def tag(self, column: int) -> str:
        """The tag of the token in a column, 0 for MISC; of several words that of the first one in an entity."""
        for cells in (self.cells, *self.words):
            match = None if column else _NER.search(cells[_MISC])
            if (found := cells[column] if column else match[1] if match else "O") not in ("O", "_"):
                return found
        return "O"


def read_conllu(path: str | Path, asked: Sequence[str | None], notes: list[str]) -> Iterator[tuple[int, Record]]:
    """The sentences with their entities and comments; tags stand in MISC, as `ner=B-PER`, or in a column of tags."""
    sentences = list(_sentences(path))
    rows = [cells for _, tokens in sentences for token in tokens for cells in token.words or [token.cells]]
    column = next((c for c in (9, 8, 4, 3) if rows and all(TAG.fullmatch(cells[c]) for cells in rows)), 0)
    labelled = column or any(_NER.search(token.cells[_MISC]) for _, tokens in sentences for token in tokens)
    tags = [[token.tag(column) for token in tokens] for _, tokens in sentences]
    scheme, repaired = find_scheme(tags), 0
    for (comments, tokens), own in zip(sentences, tags, strict=True):
        text, places = _joined(comments.pop("text", ""), tokens)
        try:
            found, broken = decode_with_repairs(own, scheme)
        except TagError as error:
            raise data_error(path, tokens[error.index].line, error.given, error.expected) from None
        repaired += len(broken)
        marks = [[places[first][0], places[last - 1][1], label] for first, last, label in found]
        yield tokens[0].line, {"text": text, **({"entities": marks} if labelled else {}), **comments}
    if repaired:
        notes.append(f"{repaired} tags broke the rules of {scheme} and were repaired")


def _sentences(path: str | Path) -> Iterator[tuple[dict[str, str], list[_Token]]]:
    for blank, lines in groupby(read_lines(path), lambda pair: not pair[1].strip()):
        comments, tokens, last = dict[str, str](), list[_Token](), 0
        for number, line in () if blank else lines:
            if line.startswith("#"):
                comments |= {match[1]: match[2]} if (match := _COMMENT.match(line)) else {}
                continue
            cells = line.split("\t")
            first, _, until = cells[0].partition("-")
            if len(cells) != _COLUMNS or not re.fullmatch(r"\d+(-\d+|\.\d+)?", cells[0]):
                expected = f"a number and {_COLUMNS} columns parted by tabs"
                raise data_error(path, number, f"the row {shorten(line)}", expected, "Mend the row")
            if "." in first:  # a word that is not in the text
                continue
            if until or int(first) > last:
                tokens.append(_Token(number, cells, []))
                last = int(until or first)
            else:
                tokens[-1].words.append(cells)
        if tokens:
            yield comments, tokens


def _joined(said: str, tokens: Sequence[_Token]) -> tuple[str, Sequence[tuple[int, int]]]:
    """The text, as `said` if all tokens stand there, else as `SpaceAfter` says; and where they are in it."""
    forms, places, end = [token.cells[1] for token in tokens], [], 0
    for form in forms:
        start = said.find(form, end)
        if start < 0 or said[end:start].strip():
            break
        end = start + len(form)
        places.append((start, end))
    if len(places) == len(forms):
        return said, places
    if not any("SpaceAfter=No" in token.cells[_MISC] for token in tokens):
        return join_tokens(forms)
    text, places = "", []
    for token, form in zip(tokens, forms, strict=True):
        places.append((len(text), len(text) + len(form)))
        text += form + " " * ("SpaceAfter=No" not in token.cells[_MISC])
    return text, places
