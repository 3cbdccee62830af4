"""CSV or TSV with two texts and a score that says how much they mean the same."""

from __future__ import annotations

import math
from collections.abc import Iterator
from pathlib import Path

from pydantic import Field

from trunkline.errors import DataError
from trunkline.text.examples import PairExample
from trunkline_lab.data.readers.base import Column, TableOptions, read_columns, require_some, shorten


class Options(TableOptions):
    """Options of scored pairs."""

    left_column: Column = "left"
    right_column: Column = "right"
    score_column: Column = "score"
    min_score: float = Field(default=1.0, description="Pairs with a lower score are passed over.")


def read(path: str | Path, options: Options) -> Iterator[PairExample]:
    """Yields the pairs that score high enough; rows with a blank side or without a score are passed over."""
    return require_some(_pairs(path, options), path, what=f"pair with a score of {options.min_score:g} or more")


def _pairs(path: str | Path, options: Options) -> Iterator[PairExample]:
    columns = (options.left_column, options.right_column, options.score_column)
    for line, (left, right, score) in read_columns(path, options, columns):
        if left and right and score and _number(score, path, line) >= options.min_score:
            yield PairExample(left, right)


def _number(score: str, path: str | Path, line: int) -> float:
    try:
        value = float(score)
    except ValueError:
        value = math.nan
    if not math.isfinite(value):
        raise DataError(
            f"the score is {shorten(score)}",
            path=path,
            line=line,
            expected="a number",
            todo="Mend the row, or name the right score_column",
        )
    return value
