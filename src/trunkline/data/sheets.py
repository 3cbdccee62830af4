"""Tables that are no text: Excel, Parquet, and data sets that `datasets` saved."""

from __future__ import annotations

import io
import json
from collections.abc import Iterator, Sequence
from datetime import date
from itertools import chain
from pathlib import Path
from typing import Any
from zipfile import ZipFile

from trunkline.data.formats import DOCUMENT_LIMIT, Found, check_xml
from trunkline.data.load import LIMIT, Row, name_columns
from trunkline.data.records import class_names, named_rows
from trunkline.data.values import data_error, list_names, too_large
from trunkline.errors import needs


def read_xlsx(path: str | Path, asked: Sequence[str | None], notes: list[str]) -> Found:
    """The rows of the first sheet that has any, as those of a table: values are text, dates ISO dates."""
    file = Path(path).expanduser()
    with ZipFile(file) as archive:
        if sum(part.file_size for part in archive.infolist()) > DOCUMENT_LIMIT:
            raise too_large(path, None, DOCUMENT_LIMIT)
        for part in archive.namelist():
            if part.endswith((".xml", ".rels")):
                check_xml(archive.read(part), f"{path}!{part}")
    with needs("formats", "an Excel sheet"):
        import openpyxl
    book = openpyxl.load_workbook(io.BytesIO(file.read_bytes()), read_only=True, data_only=True, keep_links=False)
    try:
        sheets = {sheet.title: _cells(sheet, path) for sheet in book.worksheets}
        first = {title: row for title, rows in sheets.items() if (row := next(rows, None))}
        full = list(first)
        if not full:
            raise data_error(path, None, "no sheet has a value", "a header and rows")
        if full[1:]:
            notes.append(f"left out: the sheets {list_names(full[1:])}, as only the first one, {full[0]!r}, is read")
        yield from name_columns(chain([first[full[0]]], sheets[full[0]]), asked, path)[1]
    finally:
        book.close()


def _cells(sheet: Any, path: str | Path) -> Iterator[Row]:
    """The rows that are not blank, with their numbers, as wide as the first without empty cells at its end."""
    sheet.reset_dimensions()  # some programs write wrong ones
    width = 0
    for number, values in enumerate(sheet.iter_rows(values_only=True), start=1):
        cells = [_text(value) for value in values]
        while cells and not cells[-1].strip():
            cells.pop()
        width = width or len(cells)
        if len(cells) > width:
            expected = f"{width} columns, as in the first row"
            raise data_error(path, number, f"{len(cells)} columns", expected, "Name each column in the first row")
        if cells:
            yield number, cells + [""] * (width - len(cells))


def _text(value: Any) -> str:
    if isinstance(value, date):
        return value.isoformat().removesuffix("T00:00:00")
    return "" if value is None else str(value)


def read_parquet(path: str | Path, asked: Sequence[str | None], notes: list[str]) -> Found:
    """The rows of a Parquet file; numbers of a ClassLabel of `datasets` become its names."""
    with needs("formats", "Parquet"):
        import pyarrow.parquet
    with pyarrow.parquet.ParquetFile(Path(path).expanduser()) as file:
        meta = file.metadata
        if sum(meta.row_group(group).total_byte_size for group in range(meta.num_row_groups)) > LIMIT:
            raise too_large(path, None, LIMIT)
        kept = json.loads((file.schema_arrow.metadata or {}).get(b"huggingface", b"{}"))
        features = kept.get("info", {}).get("features", {})
        inner = {key: part[0] if isinstance(part, list) else part for key, part in features.items()}
        names = {key: part.get("names") or (part.get("feature") or {}).get("names") for key, part in inner.items()}
        batches = file.iter_batches(batch_size=1000)
        yield from named_rows((row for batch in batches for row in batch.to_pylist()), names)


def read_saved(path: str | Path, asked: Sequence[str | None], notes: list[str]) -> Found:
    """The rows of a data set that `datasets` saved to a folder."""
    with needs("formats", "a folder of save_to_disk"):
        import datasets
    data = datasets.load_from_disk(str(Path(path).expanduser()))
    if isinstance(data, datasets.DatasetDict):
        todo = f"Name the folder of one, such as {Path(path) / next(iter(data))}"
        raise data_error(path, None, f"the data set has the splits {list_names(data)}", "one split", todo)
    yield from named_rows(data, class_names(data.features))
