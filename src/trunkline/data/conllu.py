"""CoNLL-U: sentences as they were written, with tags of entities in MISC or in a column of their own."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from itertools import groupby
from pathlib import Path

from trunkline.data.load import read_lines
from trunkline.data.spans import TAG, find_scheme
from trunkline.data.values import Record, data_error, shorten
from trunkline.text.examples import TagError, decode_with_repairs, join_tokens

_NUMBER, _FORM, _MISC, _COLUMNS = 0, 1, 9, 10
_NER = re.compile(r"(?:^|\|)(?i:ner|ne|netype)=([^|]+)")
_COMMENT = re.compile(r"#\s*(\w+)\s*=\s*(.*)")
_Token = list[list[str]]
"""The cells of a token's row, and of its words if it has several."""


def read_conllu(path: str | Path, asked: Sequence[str | None], notes: list[str]) -> Iterator[tuple[int, Record]]:
    """The sentences with their entities and comments; tags stand in MISC, as `ner=B-PER`, or in a column of tags.

    A token of several words has the tag of the first of these that is in an entity.
    """
    sentences = list(_sentences(path))
    rows = [cells for *_, tokens in sentences for token in tokens for cells in token[1:] or token]
    column = next((c for c in (9, 8, 4, 3) if rows and all(TAG.fullmatch(cells[c]) for cells in rows)), 0)

    def tag(cells: list[str]) -> str:
        match = None if column else _NER.search(cells[_MISC])
        return cells[column] if column else match[1] if match else ""

    tags = [
        [next((t for t in map(tag, token) if t not in ("", "O", "_")), "O") for token in own] for *_, own in sentences
    ]
    labelled, scheme, repaired = any(map(tag, rows)), find_scheme(tags), 0
    for (line, comments, tokens), own in zip(sentences, tags, strict=True):
        text, places = _joined(comments.pop("text", ""), [token[0] for token in tokens])
        try:
            found, broken = decode_with_repairs(own, scheme)
        except TagError as error:
            raise data_error(path, line, error.given, error.expected) from None
        repaired += len(broken)
        marks = [[places[first][0], places[last - 1][1], label] for first, last, label in found]
        yield line, {"text": text, **({"entities": marks} if labelled else {}), **comments}
    notes += [f"{repaired} tags broke the rules of {scheme} and were repaired"] if repaired else []


def _sentences(path: str | Path) -> Iterator[tuple[int, dict[str, str], list[_Token]]]:
    for blank, lines in groupby(read_lines(path), lambda pair: not pair[1].strip()):
        comments, tokens, last, number = dict[str, str](), list[_Token](), 0, 0
        for number, line in () if blank else lines:
            if line.startswith("#"):
                comments |= {match[1]: match[2]} if (match := _COMMENT.match(line)) else {}
                continue
            cells = line.split("\t")
            if len(cells) != _COLUMNS or not re.fullmatch(r"\d+(-\d+|\.\d+)?", cells[_NUMBER]):
                expected = f"a number and {_COLUMNS} columns parted by tabs"
                raise data_error(path, number, f"the row {shorten(line)}", expected, "Mend the row")
            first, _, until = cells[_NUMBER].partition("-")
            if "." not in first and (until or int(first) > last):  # with a dot it is not in the text
                tokens.append([cells])
                last = int(until or first)
            elif "." not in first:
                tokens[-1].append(cells)
        if tokens:
            yield number, comments, tokens


def _joined(said: str, rows: Sequence[list[str]]) -> tuple[str, Sequence[tuple[int, int]]]:
    """The text, as `said` if all tokens stand there, else as `SpaceAfter` says; and where they are in it."""
    pattern = r"\s*".join(f"({re.escape(cells[_FORM])})" for cells in rows)
    if match := re.fullmatch(rf"\s*{pattern}\s*", said):
        return said, [match.span(number) for number in range(1, len(rows) + 1)]
    if not any("SpaceAfter=No" in cells[_MISC] for cells in rows):
        return join_tokens([cells[_FORM] for cells in rows])
    text, places = "", []
    for cells in rows:
        places.append((len(text), len(text) + len(cells[_FORM])))
        text += cells[_FORM] + " " * ("SpaceAfter=No" not in cells[_MISC])
    return text, places
