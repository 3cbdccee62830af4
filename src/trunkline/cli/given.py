"""Texts and thresholds as the commands are given them."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from trunkline.errors import TrunklineError


def least_scores(given: list[str] | None) -> float | dict[str, float] | None:
    """The least score of all tasks, or those of some by name."""
    pairs = [item.rpartition("=") for item in given or ()]
    try:
        found = {name: float(number) for name, _, number in pairs}
    except ValueError as error:
        raise TrunklineError(f"--min-score {' '.join(given or ())}", expected="a number, or TASK=NUMBER") from error
    if "" in found and len(pairs) > 1:
        raise TrunklineError("--min-score for all tasks and for one", expected="one number, or TASK=NUMBER for each")
    return found.get("", found) if found else None


def texts_of(
    texts: list[str], file: Path | None, text_column: str | None, delimiter: str | None
) -> Iterator[tuple[str, dict[str, Any]]]:
    """Texts with the other keys of their records: arguments, the records of a file, or lines of stdin."""
    from trunkline.data.stream import full_lines, load_texts

    if texts and file:
        raise TrunklineError("texts were given as arguments and by --file", expected="one of both")
    if file is not None:
        return load_texts(file, text_column=text_column, delimiter=delimiter)
    if not texts and (sys.stdin is None or sys.stdin.isatty()):
        raise TrunklineError("there is no text to predict on", expected="texts as arguments, --file or lines on stdin")
    given = texts or full_lines((line.rstrip("\n") for line in sys.stdin), "stdin")
    # `?` for halves of surrogate pairs, which stand for bytes that are no UTF-8, and which nothing can print.
    return ((text.encode("utf-8", "replace").decode("utf-8"), {}) for text in given)
