"""Arrow files of rows that are mapped into memory, so that corpora larger than memory can be read in any order."""

from __future__ import annotations

import hashlib
import json
import shutil
import tempfile
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np

from trunkline.cache import CACHE_VARIABLE
from trunkline.errors import TrunklineError
from trunkline.text.tokens import IntArray

ROWS = 4096
"""Rows of a record batch: row i stands in batch i // ROWS, so that any row is found without a search."""

_ROWS_FILE, _INFO_FILE = "rows.arrow", "info.json"


class Rows:
    """The rows of a stored table; string columns give text, list columns give int32 arrays, others give integers.

    Attributes:
        info: What was stored beside the rows, with `rows` (their number) and `sha256` (of the file).
    """

    def __init__(self, folder: Path) -> None:
        import pyarrow as pa

        self.info: dict[str, Any] = json.loads((folder / _INFO_FILE).read_text("utf-8"))
        self._file = pa.ipc.open_file(pa.memory_map(str(folder / _ROWS_FILE)))
        self._batches: list[list[Callable[[int], Any]] | None] = [None] * self._file.num_record_batches

    def __len__(self) -> int:
        return int(self.info["rows"])

    def __getitem__(self, row: int) -> list[Any]:
        """The values of one row, in the order of the columns.

        The arrays of list columns are views of the file and must not be written to.
        """
        batch, within = divmod(row, ROWS)
        getters = self._batches[batch]
        if getters is None:
            getters = self._batches[batch] = [_getter(column) for column in self._file.get_batch(batch).columns]
        return [get(within) for get in getters]


@cache
def code_fingerprint() -> str:
    """A hash of the code that reads, tokenises and cleans data: what other code stored is not taken for its work."""
    digest = hashlib.sha256()
    for path in sorted(Path(__file__).parent.rglob("*.py")):
        digest.update(path.read_bytes())
    return digest.hexdigest()


def open_rows(folder: Path) -> Rows | None:
    """The rows stored in a folder, or nothing if there are none."""
    return Rows(folder) if (folder / _INFO_FILE).is_file() else None


def store_rows(
    folder: Path,
    columns: Mapping[str, str],
    rows: Iterable[Sequence[Any]],
    info: Callable[[], Mapping[str, Any]] = dict,
) -> Rows:
    """Writes rows as they come and opens them; the folder appears when it is complete.

    Args:
        folder: Where they go; one that is there already is replaced.
        columns: Name -> `text`, `ints` (a list of int32) or `int`.
        rows: Values in the order of the columns.
        info: Called when all rows are written; what to store beside them.

    Raises:
        TrunklineError: The disk is full or the folder cannot be written.
    """
    with _new_folder(folder) as made:
        count = _write(made / _ROWS_FILE, columns, rows)
        with (made / _ROWS_FILE).open("rb") as stream:
            digest = hashlib.file_digest(stream, "sha256").hexdigest()
        content = {**info(), "rows": count, "sha256": digest}
        (made / _INFO_FILE).write_text(json.dumps(content, ensure_ascii=False), encoding="utf-8")
    return Rows(folder)


def _write(path: Path, columns: Mapping[str, str], rows: Iterable[Sequence[Any]]) -> int:
    import pyarrow as pa

    types = {"text": pa.string(), "ints": pa.list_(pa.int32()), "int": pa.int32()}
    schema = pa.schema([(name, types[kind]) for name, kind in columns.items()])
    count = 0
    with pa.OSFile(str(path), "wb") as sink, pa.ipc.new_file(sink, schema) as writer:
        for chunk in in_chunks(rows, ROWS):
            values = [
                pa.array(column, field.type) for column, field in zip(zip(*chunk, strict=True), schema, strict=True)
            ]
            writer.write_batch(pa.record_batch(values, schema=schema))
            count += len(chunk)
    return count


def in_chunks(rows: Iterable[Any], size: int) -> Iterator[list[Any]]:
    """Lists of `size` rows, the last one shorter."""
    chunk: list[Any] = []
    for row in rows:
        chunk.append(row)
        if len(chunk) == size:
            yield chunk
            chunk = []
    if chunk:
        yield chunk


def _getter(array: Any) -> Callable[[int], Any]:
    import pyarrow as pa

    if pa.types.is_list(array.type):
        offsets: IntArray = array.offsets.to_numpy()
        values: IntArray = array.values.to_numpy()
        return lambda row: values[offsets[row] : offsets[row + 1]]
    if pa.types.is_string(array.type):
        _, ends, data = array.buffers()
        bounds = np.frombuffer(ends, dtype=np.int32)
        content = memoryview(data) if data is not None else memoryview(b"")
        return lambda row: str(content[bounds[row] : bounds[row + 1]], "utf-8")
    numbers = array.to_numpy()
    return lambda row: int(numbers[row])


@contextmanager
def _new_folder(folder: Path) -> Iterator[Path]:
    """A folder to write into that takes its place when all is done."""
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        made = Path(tempfile.mkdtemp(dir=folder.parent, prefix=f".{folder.name}."))
    except OSError as error:
        raise _unwritable(folder, error) from error
    try:
        yield made
        if folder.exists():
            shutil.rmtree(folder)
        made.replace(folder)
    except OSError as error:
        raise _unwritable(folder, error) from error
    finally:
        shutil.rmtree(made, ignore_errors=True)


def _unwritable(folder: Path, error: OSError) -> TrunklineError:
    return TrunklineError(
        f"{folder} cannot be written ({error.strerror or error})",
        expected="a folder for the cache with room for the corpus",
        todo=f"Set {CACHE_VARIABLE} to another folder, or make room",
    )
