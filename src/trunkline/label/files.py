"""What labelling reads and writes: documents, rows of tables, passages; outputs with their source card."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from itertools import chain, islice
from pathlib import Path
from statistics import median
from typing import Any

from trunkline.bundle.files import check_writable, open_atomic
from trunkline.data.load import find_columns, read_lines, read_table
from trunkline.data.records import read_json_lines
from trunkline.data.source_card import SourceCard, write_source_card
from trunkline.data.stream import ends_in, find_files
from trunkline.data.values import data_error, get_key, shorten
from trunkline.errors import DataError
from trunkline.label.options import PairOptions, TextOptions

MARKDOWN = (".md", ".markdown")
PLAIN = (".txt", ".text", *MARKDOWN)
ROWS = (".csv", ".tsv", ".jsonl", ".ndjson")
MADE_BY = "Made by trunkline label"

_PEEK, _WRAPPED, _LONGEST = 1000, 120, 1_000_000
"""Lines that are looked at first; characters of a line that a text is wrapped at; of a passage, which is cut then."""

_QUESTION_END = re.compile(r"[?？؟՞፧\u037e][\"'”’»)\]]*$")
_FENCE = re.compile(r"\s*(```+|~~~+)([^`]*)$")
_HEADING = re.compile(r"#{1,6}\s+(\S.*?)\s*#*$")


def read_documents(sources: Iterable[Path], text_column: str | None) -> Iterator[Iterable[str]]:
    """Yields the lines of each document; they can be walked once, before the next document; errors of `read_columns`.

    A text file is a document, and so is each row of a table (its `text_column`, or `text`). A folder is walked in
    alphabetical order: its text files, or with a `text_column` its tables.
    """
    inside = ROWS if text_column else PLAIN
    for path in chain.from_iterable(find_files(path, inside if path.is_dir() else PLAIN + ROWS) for path in sources):
        if ends_in(path, PLAIN):
            plain = (line for _, line in read_lines(path))
            yield without_code(plain) if ends_in(path, MARKDOWN) else plain
        else:
            yield from (
                text.split("\n") for *_, (text,) in read_columns([path], (text_column or "text",), ["--text-column"])
            )


def read_columns(
    sources: Iterable[Path], columns: Sequence[str], options: Sequence[str] = ()
) -> Iterator[tuple[Path, int, list[str]]]:
    """Yields file, line and stripped values of `columns` for rows of CSV, TSV and JSON-lines files, or of folders.

    `options` are those that name the columns, for errors.
    """
    for path in chain.from_iterable(find_files(path, ROWS) for path in sources):
        for line, record in read_table(path)[1] if ends_in(path, (".csv", ".tsv")) else read_json_lines(path):
            for column, option in zip(columns, options, strict=False):
                find_columns(list(record), column, option, path, line)
            values = [get_key(record, column, path, line) for column in columns]
            for column, value in zip(columns, values, strict=True):
                if isinstance(value, bool) or not isinstance(value, str | int | None):
                    raise data_error(path, line, f"the value of {column!r} is {shorten(value)}", "a string")
            yield path, line, ["" if value is None else str(value).strip() for value in values]


def split_passages(
    lines: Iterable[str],
    *,
    starts: Callable[[str], object] = lambda line: False,
    ends: Callable[[str], object] = lambda line: False,
) -> Iterator[str]:
    """Yields the passages of a document; the lines of one are joined by blanks.

    Blank lines part them where the first lines have any and are no longer than a text is wrapped at, else line ends do.
    A line for which `starts` holds begins a passage in any case, and one for which `ends` holds ends its passage.
    """
    stripped = (line.strip() for line in lines)
    head = list(islice(stripped, _PEEK))
    wrapped = "\n\n" in "\n".join(head).strip("\n") and median(len(line) for line in head if line) <= _WRAPPED
    held: list[str] = []
    ended = False
    for line in chain(head, stripped):
        if held and (ended or not line or not wrapped or sum(map(len, held)) > _LONGEST or starts(line)):
            yield " ".join(held)
            held = []
        if line:
            held.append(line)
            ended = bool(ends(line))
    if held:
        yield " ".join(held)


def without_code(lines: Iterable[str]) -> Iterator[str]:
    """The lines of a Markdown text, each fenced block of code as one blank line."""
    fence = ""
    for line in lines:
        match = _FENCE.match(line)
        if not fence:
            fence = match.group(1) if match else ""
            yield "" if match else line
        elif match and match.group(1).startswith(fence) and not match.group(2).strip():
            fence = ""


def heading(line: str) -> str:
    """The text of a Markdown heading, or nothing if the line is none."""
    match = _HEADING.match(line)
    return match.group(1) if match else ""


def is_question(line: str) -> bool:
    """Whether a text ends in a question mark of any script, quotes and brackets after it aside."""
    return _QUESTION_END.search(without_marks(line)) is not None


def without_marks(line: str) -> str:
    """A line without the marks of a Markdown heading or of bold type around its beginning."""
    text = heading(line) or line
    return text.replace("**", "", 2).strip() if text.startswith("**") else text


def check_output(out: Path, inputs: Iterable[Path]) -> None:
    """Raises a DataError for an output that cannot be written or would, with its source card, do harm."""
    card = out.with_suffix(".yaml")
    if out.suffix != ".jsonl" or out.is_dir() or not _card_name(out):
        raise data_error(out, None, "no output of this name can be written", "a file such as my_notes.jsonl")
    # What is in a folder of inputs and has no card is no former output.
    places = [out.resolve(), card.resolve(), *(out.resolve().parents if out.exists() and not card.exists() else ())]
    clash = next((path for path in inputs if path.resolve() in places), None)
    if clash is not None:
        raise DataError("the output would overwrite an input", path=clash, todo="Name another output")
    if card.exists() and MADE_BY not in card.read_text(encoding="utf-8", errors="replace"):
        raise DataError("this file is not ours and would be overwritten", path=card, todo="Name another output")
    check_writable(out)


def _card_name(out: Path) -> str:
    return re.sub(r"[^a-z0-9]+", "_", out.stem.lower()).strip("_")


def write_source(
    out: Path, rows: Iterable[Any], family: str, title: str, method: str, options: TextOptions | PairOptions
) -> dict[str, Any]:
    """Writes JSON lines as they come and, beside them, an open source's card: what is unlabelled there is unknown.

    An error on the way leaves what was there. Returns paths `out` and `card`, and the number of `rows`.
    """
    number, path = 0, out.with_suffix(".yaml")
    with open_atomic(out) as stream:
        for row in rows:
            stream.write(f"{json.dumps(row, ensure_ascii=False)}\n".encode())
            number += 1
    settings = options.model_dump(exclude_defaults=True, exclude={"licence", "cache", "key_variable"})
    shown = ", ".join(f"{key} {value.name if isinstance(value, Path) else value}" for key, value in settings.items())
    quirks = (f"{MADE_BY}, by no person.", f"Method {method}{shown and ': '}{shown}.")
    what = {"name": _card_name(out), "family": family, "title": title, "licence": options.licence}
    write_source_card(SourceCard.model_validate({**what, "quirks": quirks, "counts": {"train": number}}), path)
    return {"out": str(out), "card": str(path), "rows": number}
