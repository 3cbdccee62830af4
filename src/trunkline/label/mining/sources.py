"""Where pairs are mined: documents of plain text, and rows of tables."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from trunkline.data.files import read_lines, read_member_lines
from trunkline.data.load import load_examples
from trunkline.data.readers.base import FileOptions, TableOptions, get_key, read_columns, read_json_lines
from trunkline.errors import DataError
from trunkline.label.mining.options import MinePairsConfig
from trunkline.label.mining.passages import without_code

MARKDOWN = (".md", ".markdown")
PLAIN = (".txt", ".text", *MARKDOWN)
ROWS = (".csv", ".tsv", ".jsonl", ".ndjson")
ARCHIVES = (".zip", ".tar", ".tar.gz", ".tgz", ".tar.bz2", ".tar.xz")
_ARCHIVED = "*.txt"


@dataclass(frozen=True, slots=True)
class Document:
    """A text whose passages may be paired; `lines` can be walked once, before the next document is asked for."""

    lines: Iterable[str]


def read_documents(sources: Sequence[str | Path], config: MinePairsConfig) -> Iterator[Document]:
    """Yields the documents of the sources, one at a time.

    A plain text file is a document, and so is each `.txt` file of an archive, each row of a table and each text of
    `card:NAME@SPLIT`. A folder is walked in alphabetical order.

    Raises:
        DataError: A file that is missing, malformed or of a form that is not known.
    """
    for source in sources:
        if str(source).startswith(("card:", "hub:")):
            for example in load_examples(source, "plain"):
                yield Document(getattr(example, "text", "").split("\n"))
            continue
        for path in _files(Path(source), ROWS if config.text_column else PLAIN, (*PLAIN, *ROWS, *ARCHIVES)):
            yield from _documents_of(path, config)


def read_table(
    sources: Sequence[str | Path], columns: Sequence[str], config: MinePairsConfig
) -> Iterator[tuple[int, list[str]]]:
    """Yields the rows of CSV, TSV and JSON-lines files, or of all such files of a folder.

    Yields:
        The number of the file, and the stripped values of `columns`; a JSON null is an empty string.

    Raises:
        DataError: A file that is missing or malformed, a column that is not there, or a value that is no text.
    """
    paths = (path for source in sources for path in _files(Path(source), ROWS, ROWS))
    for number, path in enumerate(paths):
        for _, values in _rows_of(path, columns, config):
            yield number, values


def _documents_of(path: Path, config: MinePairsConfig) -> Iterator[Document]:
    if _has(path, ARCHIVES):
        for _, lines in read_member_lines(path, _ARCHIVED, encoding=config.encoding):
            yield Document(line for _, line in lines)
    elif _has(path, PLAIN):
        plain = (line for _, line in read_lines(path, encoding=config.encoding))
        yield Document(without_code(plain) if _has(path, MARKDOWN) else plain)
    else:
        for _, (text,) in _rows_of(path, (config.text,), config):
            yield Document(text.split("\n"))


def _rows_of(path: Path, columns: Sequence[str], config: MinePairsConfig) -> Iterator[tuple[int, list[str]]]:
    if _has(path, (".csv", ".tsv")):
        delimiter = "\t" if _has(path, (".tsv",)) else ","
        yield from read_columns(path, TableOptions(encoding=config.encoding, delimiter=delimiter), columns)
        return
    for line, record in read_json_lines(path, FileOptions(encoding=config.encoding)):
        yield line, [_text(get_key(record, column, path, line), column, path, line) for column in columns]


def _text(value: Any, column: str, path: Path, line: int) -> str:
    if value is None:
        return ""
    if isinstance(value, int) and not isinstance(value, bool):
        return str(value)
    if not isinstance(value, str):
        raise DataError(
            f"the value of {column!r} is {str(value)[:60]}",
            path=path,
            line=line,
            expected="a string",
            todo="Name another column, or turn the values into strings",
        )
    return value.strip()


def _files(path: Path, wanted: Sequence[str], known: Sequence[str]) -> list[Path]:
    """The file itself, or those of a folder whose name ends as wanted."""
    if not path.is_dir():
        if path.exists() and not _has(path, known):
            raise DataError(
                "pairs are not mined from files of this form",
                path=path,
                expected=f"a folder, or a file that ends in {', '.join(known)} (or those with .gz)",
                todo="Give the file the ending of its form, or choose another method",
            )
        return [path]
    inside = sorted(file for file in path.rglob("*") if file.is_file() and not file.name.startswith("."))
    files = [file for file in inside if _has(file, wanted)]
    if not files:
        raise DataError(
            f"none of the {len(inside)} files of the folder has the right form",
            path=path,
            expected=f"files that end in {', '.join(wanted)} (or those with .gz)",
        )
    return files


def _has(path: Path, endings: Sequence[str]) -> bool:
    name = path.name.lower()
    return name.endswith(tuple(endings)) or name.removesuffix(".gz").endswith(tuple(endings))
