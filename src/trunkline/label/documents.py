"""What is labelled and mined: documents of plain text and rows of tables, and the passages of a document."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from itertools import chain, islice
from pathlib import Path
from statistics import median
from typing import Any, Literal

from trunkline.data.files import read_lines
from trunkline.data.readers.base import FileOptions, TableOptions, get_key, read_columns, read_json_lines
from trunkline.errors import DataError

MARKDOWN = (".md", ".markdown")
PLAIN = (".txt", ".text", *MARKDOWN)
ROWS = (".csv", ".tsv", ".jsonl", ".ndjson")
Separation = Literal["auto", "paragraphs", "lines"]

_PEEK = 1000
"""Lines in which a blank line is looked for; a document need not fit the memory."""

_WRAPPED = 120
"""Characters; where half of the lines are longer, a line is a whole paragraph."""

_LONGEST = 1_000_000
"""Characters after which a passage is cut; no side of a pair is that long."""

_QUESTION_END = re.compile(r"[?？؟՞፧\u037e][\"'”’»)\]]*$")
_FENCE = re.compile(r"\s*(```+|~~~+)([^`]*)$")
_HEADING = re.compile(r"#{1,6}\s+(\S.*?)\s*#*$")


def read_documents(sources: Iterable[Path], text_column: str | None, encoding: str) -> Iterator[Iterable[str]]:
    """Yields the lines of each document; they can be walked once, before the next document is asked for.

    A text file is a document, and so is each row of a table. A folder is walked in alphabetical order: its text files,
    or with a `text_column` its tables.

    Raises:
        DataError: A file that is missing, malformed or of a form that is not known.
    """
    for path in chain.from_iterable(_files(source, ROWS if text_column else PLAIN, PLAIN + ROWS) for source in sources):
        if _ends_in(path, PLAIN):
            plain = (line for _, line in read_lines(path, encoding=encoding))
            yield without_code(plain) if _ends_in(path, MARKDOWN) else plain
        else:
            for (text,) in _rows_of(path, (text_column or "text",), encoding):
                yield text.split("\n")


def read_table(sources: Iterable[Path], columns: Sequence[str], encoding: str) -> Iterator[tuple[int, list[str]]]:
    """Yields the rows of CSV, TSV and JSON-lines files, or of all such files of a folder.

    Yields:
        The number of the file, and the stripped values of `columns`; a JSON null is an empty string.

    Raises:
        DataError: A file that is missing or malformed, a column that is not there, or a value that is no text.
    """
    for number, path in enumerate(chain.from_iterable(_files(source, ROWS, ROWS) for source in sources)):
        for values in _rows_of(path, columns, encoding):
            yield number, values


def _rows_of(path: Path, columns: Sequence[str], encoding: str) -> Iterator[list[str]]:
    if _ends_in(path, (".csv", ".tsv")):
        options = TableOptions(encoding=encoding, delimiter="\t" if _ends_in(path, (".tsv",)) else ",")
        for _, values in read_columns(path, options, columns):
            yield values
    else:
        for line, record in read_json_lines(path, FileOptions(encoding=encoding)):
            yield [_text(get_key(record, column, path, line), column, path, line) for column in columns]


def _text(value: Any, column: str, path: Path, line: int) -> str:
    if value is None:
        return ""
    if isinstance(value, int) and not isinstance(value, bool):
        return str(value)
    if isinstance(value, str):
        return value.strip()
    raise DataError(
        f"the value of {column!r} is {str(value)[:60]}",
        path=path,
        line=line,
        expected="a string",
        todo="Name another column, or turn the values into strings",
    )


def _files(path: Path, wanted: Sequence[str], known: Sequence[str]) -> list[Path]:
    """The file itself, or those of a folder whose name ends as wanted."""
    if path.is_dir():
        inside = sorted(file for file in path.rglob("*") if file.is_file() and not file.name.startswith("."))
        files = [file for file in inside if _ends_in(file, wanted)]
        problem, expected = f"none of the {len(inside)} files of the folder has the right form", wanted
    else:
        files = [path] if not path.exists() or _ends_in(path, known) else []
        problem, expected = "files of this form are not read here", known
    if not files:
        raise DataError(problem, path=path, expected=f"files that end in {', '.join(expected)} (or those with .gz)")
    return files


def _ends_in(path: Path, endings: Sequence[str]) -> bool:
    return path.name.lower().removesuffix(".gz").endswith(tuple(endings))


def find_separation(lines: Iterable[str], how: Separation) -> tuple[Separation, Iterator[str]]:
    """Decides by its first lines what separates the passages of a document.

    It is blank lines where there are any and the lines are no longer than a text is wrapped at; else each line is a
    passage.

    Returns:
        `paragraphs` or `lines`, and all the lines, stripped.
    """
    stripped = (line.strip() for line in lines)
    if how != "auto":
        return how, stripped
    head = list(islice(stripped, _PEEK))
    has_blank = "\n\n" in "\n".join(head).strip("\n")
    wrapped = has_blank and median(len(line) for line in head if line) <= _WRAPPED
    return "paragraphs" if wrapped else "lines", chain(head, stripped)


def split_passages(
    lines: Iterable[str],
    how: Separation = "auto",
    *,
    starts: Callable[[str], bool] = lambda line: False,
    ends: Callable[[str], bool] = lambda line: False,
) -> Iterator[str]:
    """Yields the passages of a document; the lines of a paragraph are joined by blanks.

    Args:
        lines: The lines of one document.
        how: What separates passages.
        starts: Whether a line begins a passage in any case.
        ends: Whether a line ends its passage in any case.
    """
    how, lines = find_separation(lines, how)
    held: list[str] = []
    length = 0
    for line in lines:
        if held and (not line or how == "lines" or length > _LONGEST or starts(line)):
            yield " ".join(held)
            held, length = [], 0
        if line:
            held.append(line)
            length += len(line)
            if ends(line):
                yield " ".join(held)
                held, length = [], 0
    if held:
        yield " ".join(held)


def without_code(lines: Iterable[str]) -> Iterator[str]:
    """The lines of a Markdown text, each fenced block of code as one blank line."""
    fence = ""
    for line in lines:
        match = _FENCE.match(line)
        if not fence and match:
            fence = match.group(1)
            yield ""
        elif not fence:
            yield line
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


def speaker_mark(words: Sequence[str]) -> re.Pattern[str]:
    """Matches one of the words, a number perhaps and a colon, as in `Q3: `, and what follows."""
    either = "|".join(re.escape(word) for word in words)
    return re.compile(rf"(?:{either})\s*\d*\s*[:：]\s*(.*)$", re.IGNORECASE | re.DOTALL)
