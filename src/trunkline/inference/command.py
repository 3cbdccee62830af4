"""`trunkline predict`: texts from arguments, a file or stdin, predictions as rows."""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from trunkline.data.files import read_lines
from trunkline.errors import DataError, TrunklineError
from trunkline.inference.bundle import load

BATCH = 256


def read_texts(texts: Sequence[str], file: Path | None, stdin: Iterable[str] | None) -> list[str]:
    """The texts to predict on: arguments, or the lines of a file (.jsonl: its `text` keys), or of stdin.

    Raises:
        TrunklineError: No text, or from two places.
        DataError: A line of a .jsonl file has no text; names file and line.
    """
    if texts and file:
        raise TrunklineError("texts were given as arguments and by --file", expected="one of both")
    if texts:
        return list(texts)
    if file is not None:
        lines = [(number, line) for number, line in read_lines(file) if line.strip()]
        found = (
            [_text(line, file, number) for number, line in lines] if file.suffix == ".jsonl" else [x for _, x in lines]
        )
    else:
        found = [line.rstrip("\n") for line in stdin or () if line.strip()]
    if not found:
        raise TrunklineError("there is no text to predict on", expected="texts as arguments, --file or lines on stdin")
    return found


def predict_rows(bundle: Path, texts: Sequence[str], tasks: Sequence[str] | None) -> list[dict[str, Any]]:
    """One row a text: `text` and `tasks`, a dict from task to prediction."""
    loaded = load(bundle)
    if not loaded.tasks:
        raise TrunklineError(
            f"{bundle} has no tasks yet", todo="Add one with `trunkline adapt NAME --encoder` this bundle"
        )
    rows: list[dict[str, Any]] = []
    for begin in range(0, len(texts), BATCH):
        part = texts[begin : begin + BATCH]
        rows += [{"text": t, "tasks": p} for t, p in zip(part, loaded.predict(part, tasks or None), strict=True)]
    return rows


def _text(line: str, path: Path, number: int) -> str:
    try:
        return str(json.loads(line)["text"])
    except (ValueError, KeyError, TypeError):
        raise DataError(
            "not a JSON object with a text", path=path, line=number, expected='lines such as {"text": "..."}'
        ) from None
