"""Rows of CSV and TSV files: the delimiter found by content, quotes that never swallow rows, values as text."""

from __future__ import annotations

import csv
from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from itertools import chain, islice
from pathlib import Path

from trunkline.data.files import data_error, read_lines
from trunkline.data.records import Record, list_names
from trunkline.errors import DataError

DELIMITERS = (",", ";", "\t", "|")
_NAMED = {"tab": "\t", "\\t": "\t", "comma": ",", "semicolon": ";"}
_HEAD = 20
_MOST_VALUES = 1_000
"""Distinct values of a column that are remembered, so as to know a swallowed row by its label."""

Row = tuple[int, list[str]]


def read_table(
    path: str | Path, *, delimiter: str | None = None, header: bool = True
) -> tuple[str, list[str], Iterator[tuple[int, Record]]]:
    """The delimiter, the columns, and the rows of a table as records with the lines on which they begin.

    The delimiter is one character or `tab`, by default the one of `DELIMITERS` that gives the first rows most columns.
    Without a `header` the columns are `0`, `1`, ... Values are text as it stands, `001` too.

    Raises:
        DataError: Rows of different widths, quotes that do not close, a header that names a column twice.
    """
    lines = read_lines(path)
    head = list(islice(lines, _HEAD))
    chosen = _NAMED.get(delimiter, delimiter) if delimiter is not None else find_delimiter([line for _, line in head])
    if len(chosen) != 1:
        raise data_error(path, None, f"the delimiter {delimiter!r}", "one character, or tab")
    rows = read_rows(chain(head, lines), chosen, path)
    first = next(rows, None)
    if first is None:
        raise data_error(path, None, "the file is empty", "a header and rows")
    names = [cell.strip() or f"column {number}" for number, cell in enumerate(first[1], start=1)]
    if not header:
        names, rows = [str(number) for number in range(len(names))], chain([first], rows)
    if len(set(names)) < len(names):
        raise data_error(path, first[0], f"the header is {list_names(names)}", "each column named once")
    return chosen, names, ((line, dict(zip(names, row, strict=True))) for line, row in rows)


def find_delimiter(lines: Sequence[str]) -> str:
    """The delimiter that divides the first line into most columns and the lines after it most evenly."""
    full = [line for line in lines if line.strip()]
    if not full:
        return ","

    def fit(delimiter: str) -> tuple[float, int]:
        widths = [len(_cells(line, delimiter)) for line in full]
        even = sum(width == widths[0] for width in widths) / len(widths)
        return (even if widths[0] > 1 else 0.0), widths[0]

    return max(DELIMITERS, key=fit)


def read_rows(lines: Iterable[tuple[int, str]], delimiter: str, path: str | Path) -> Iterator[Row]:
    """Yields rows of cells with the line on which each begins; rows without any text are passed over.

    In tables with tabs a line with as many tabs as the first is a row, whatever quotes it has. Rows of another width
    than the first and quotes that open where none closes raise a DataError.
    """
    width = 0
    for line, row in _tabbed(lines, path) if delimiter == "\t" else _quoted(lines, delimiter, path):
        if not any(cell.strip() for cell in row):
            continue
        width = width or len(row)
        if len(row) != width:
            expected = f"{width} columns separated by {delimiter!r}, as in the first row"
            todo = "Put quotes around values that hold the delimiter, or name another one (--delimiter)"
            raise data_error(path, line, f"{len(row)} column{'s' if len(row) != 1 else ''}", expected, todo)
        yield line, row


def _tabbed(lines: Iterable[tuple[int, str]], path: str | Path) -> Iterator[Row]:
    """Rows of a table with tabs; a quoted cell goes over several lines only if the first has too few tabs."""
    width, held, begin = 0, "", 0
    for number, line in lines:
        held, begin = (f"{held}\n{line}", begin) if held else (line, number)
        cells = held.split("\t")
        if len(cells) < width and cells[-1].startswith('"') and not _closed(cells[-1]):
            continue
        if "\n" in held and not all(_closed(cell) for cell in cells if "\n" in cell):
            raise _open_quote(path, begin, number)
        width, held = width or len(cells), ""
        yield begin, [cell[1:-1].replace('""', '"') if _closed(cell) else cell for cell in cells]
    if held:
        raise _open_quote(path, begin, None)


def _closed(cell: str) -> bool:
    """Whether a cell is one whole quoted value."""
    return len(cell) > 1 and cell[0] == cell[-1] == '"' and '"' not in cell[1:-1].replace('""', "")


def _quoted(lines: Iterable[tuple[int, str]], delimiter: str, path: str | Path) -> Iterator[Row]:
    """Rows as `csv` parses them. Lines between quotes that are rows by themselves raise an error."""
    seen: defaultdict[int, set[str]] = defaultdict(set)
    suspects: list[tuple[int, list[list[str]]]] = []
    held: list[tuple[int, str]] = []

    def hold() -> Iterator[str]:
        for item in lines:
            held.append(item)
            yield f"{item[1]}\n"

    rows = csv.reader(hold(), delimiter=delimiter, strict=True)
    while True:
        held.clear()
        try:
            row = next(rows)
        except StopIteration:
            break
        except csv.Error as error:
            raise _open_quote(path, held[0][0] if held else 1, held[-1][0] if len(held) > 1 else None, error) from None
        for column, cell in enumerate(row):
            if len(seen[column]) < _MOST_VALUES:
                seen[column].add(cell)
        if len(held) > 1:
            inner = [line.split(delimiter) for _, line in held]
            if all(len(cells) == len(row) > 1 for cells in inner):
                suspects.append((held[0][0], inner))
                _refuse_swallowed(suspects[-1:], seen, path)
        yield held[0][0], row
    _refuse_swallowed(suspects, seen, path)


def _refuse_swallowed(
    suspects: list[tuple[int, list[list[str]]]], seen: defaultdict[int, set[str]], path: str | Path
) -> None:
    """Raises for rows whose every line has, in one column, values that the column has in other rows."""
    for line, inner in suspects:
        if any(all(cells[column] in seen[column] for cells in inner) for column in range(len(inner[0]))):
            raise _open_quote(path, line, line + len(inner) - 1)


def _open_quote(path: str | Path, begin: int, end: int | None, error: csv.Error | None = None) -> DataError:
    reach = f"; read as one value it would take in the lines up to {end}" if end else ""
    given = f"a double quote is opened here and not closed as it should be{f' ({error})' if error else ''}{reach}"
    return data_error(path, begin, given, "quotes around whole values, with those inside doubled", "Mend the quotes")


def _cells(line: str, delimiter: str) -> list[str]:
    try:
        return next(csv.reader([line], delimiter=delimiter), [])
    except csv.Error:
        return line.split(delimiter)
