"""CSV or TSV with two columns that belong together."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from trunkline.text.examples import PairExample
from trunkline_lab.data.readers.base import Column, TableOptions, read_columns, require_some


class Options(TableOptions):
    """Options of pair tables."""

    left_column: Column = "left"
    right_column: Column = "right"


def read(path: str | Path, options: Options) -> Iterator[PairExample]:
    """Yields a pair a row; rows with a blank side are passed over."""
    columns = (options.left_column, options.right_column)
    pairs = (PairExample(left, right) for _, (left, right) in read_columns(path, options, columns) if left and right)
    return require_some(pairs, path, what="pair")
