"""`trunkline predict`: texts from arguments, a file or stdin, predictions as rows. No torch."""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any, Protocol

from trunkline.data.files import read_lines
from trunkline.errors import DataError, TrunklineError

BATCH = 256
"""Texts that are predicted on together."""


class Predictor(Protocol):
    """A training bundle in torch, or a deployed one without."""

    @property
    def tasks(self) -> dict[str, str]:
        """The tasks, name -> family."""
        ...

    def predict(self, texts: Sequence[str], tasks: Sequence[str] | None = None) -> list[dict[str, Any]]:
        """For each text a dict from task to prediction."""
        ...


def read_texts(texts: Sequence[str], file: Path | None, stdin: Iterable[str] | None) -> list[str]:
    """The texts to predict on: arguments, or the lines of a file (.jsonl: its `text` keys), or of stdin.

    Raises:
        TrunklineError: No text, or from two places.
        DataError: A line of a .jsonl file has no text; names file and line.
    """
    if texts and file:
        raise TrunklineError("texts were given as arguments and by --file", expected="one of both")
    if texts:
        return [_whole(text) for text in texts]
    if file is not None:
        lines = [(number, line) for number, line in read_lines(file) if line.strip()]
        found = (
            [_text(line, file, number) for number, line in lines] if file.suffix == ".jsonl" else [x for _, x in lines]
        )
    else:
        found = [line.rstrip("\n") for line in stdin or () if line.strip()]
    if not found:
        raise TrunklineError("there is no text to predict on", expected="texts as arguments, --file or lines on stdin")
    return [_whole(text) for text in found]


def predict_rows(
    bundle: Predictor, name: str, texts: Sequence[str], tasks: Sequence[str] | None
) -> list[dict[str, Any]]:
    """One row a text: `text` and `tasks`, a dict from task to prediction; `name` is the bundle's in messages."""
    if not bundle.tasks:
        raise TrunklineError(
            f"{name} has no tasks yet", todo="Add one with `trunkline adapt NAME --encoder` this bundle"
        )
    rows: list[dict[str, Any]] = []
    for begin in range(0, len(texts), BATCH):
        part = texts[begin : begin + BATCH]
        rows += [{"text": t, "tasks": p} for t, p in zip(part, bundle.predict(part, tasks or None), strict=True)]
    return rows


def _whole(text: str) -> str:
    """`?` for halves of surrogate pairs, which stand for bytes that are no UTF-8, and which nothing can print."""
    return text.encode("utf-8", "replace").decode("utf-8")


def _text(line: str, path: Path, number: int) -> str:
    try:
        return str(json.loads(line)["text"])
    except (ValueError, KeyError, TypeError):
        raise DataError(
            "not a JSON object with a text", path=path, line=number, expected='lines such as {"text": "..."}'
        ) from None
