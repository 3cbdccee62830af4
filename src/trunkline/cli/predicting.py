"""What `trunkline predict` reads and writes: rows with a text stream in, the same rows with predictions stream out."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Sequence
from itertools import tee
from pathlib import Path
from typing import Any

from trunkline.atomic import check_writable
from trunkline.data.load import load_texts
from trunkline.errors import TrunklineError
from trunkline.model import Model

Row = tuple[str, dict[str, Any]]
"""A text and the other keys of its record."""


def rows_of(
    texts: Sequence[str],
    file: Path | None,
    stdin: Iterable[str] | None,
    *,
    text_column: str | None = None,
    delimiter: str | None = None,
) -> Iterator[Row]:
    """The texts to predict on: arguments, the records of a file, or lines of stdin.

    Raises:
        TrunklineError: No text, or texts from two places.
        DataError: A record has no text; names file and line.
    """
    if texts and file:
        raise TrunklineError("texts were given as arguments and by --file", expected="one of both")
    if file is not None:
        return iter(load_texts(file, text_column=text_column, delimiter=delimiter))
    given: list[Row] = [(_whole(text), {}) for text in texts]
    if not given and stdin is not None:
        return ((_whole(line.rstrip("\n")), {}) for line in stdin if line.strip())
    if not given:
        raise TrunklineError("there is no text to predict on", expected="texts as arguments, --file or lines on stdin")
    return iter(given)


def predict_rows(model: Model, rows: Iterable[Row], tasks: Sequence[str] | None) -> Iterator[dict[str, Any]]:
    """One record a text: its other keys, `text` and `tasks`, a dict from task to prediction."""
    asked, kept = tee(rows)
    found = model.predict_iter((text for text, _ in asked), tasks)
    for (text, other), prediction in zip(kept, found, strict=True):
        yield {**other, "text": text, "tasks": prediction}


def write_rows(path: Path, rows: Iterable[dict[str, Any]]) -> int:
    """Writes JSON lines as they come, with a progress bar; the file is there when it is whole. Returns their number.

    Raises:
        TrunklineError: The place cannot be written to; asked before the first prediction.
    """
    from trunkline.ui import counted

    check_writable(path)
    temporary = path.with_name(f".{path.name}.part")
    count = 0
    try:
        with temporary.open("w", encoding="utf-8") as stream:
            for count, row in enumerate(counted(rows, "predicting"), start=1):  # noqa: B007
                stream.write(json.dumps(row, ensure_ascii=False, allow_nan=False) + "\n")
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)
    return count


def _whole(text: str) -> str:
    """`?` for halves of surrogate pairs, which stand for bytes that are no UTF-8, and which nothing can print."""
    return text.encode("utf-8", "replace").decode("utf-8")
