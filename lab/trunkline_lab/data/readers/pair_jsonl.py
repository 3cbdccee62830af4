"""JSON lines with two texts that belong together."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from trunkline.errors import DataError
from trunkline.text.examples import PairExample
from trunkline_lab.data.readers.base import FileOptions, get_key, read_json_lines, require_some, shorten


class Options(FileOptions):
    """Options of pairs in JSON lines."""

    left_key: str = "left"
    right_key: str = "right"
    group_key: str | None = None


def read(path: str | Path, options: Options) -> Iterator[PairExample]:
    """Yields a pair a line; lines with a blank side are passed over."""
    return require_some(_pairs(path, options), path, what="pair")


def _pairs(path: str | Path, options: Options) -> Iterator[PairExample]:
    for line, record in read_json_lines(path, options):
        left, right = (get_key(record, key, path, line) for key in (options.left_key, options.right_key))
        if not isinstance(left, str) or not isinstance(right, str):
            raise DataError(
                f"the pair is {shorten(left)}, {shorten(right)}", path=path, line=line, expected="two strings"
            )
        if left.strip() and right.strip():
            group = get_key(record, options.group_key, path, line) if options.group_key else None
            yield PairExample(left.strip(), right.strip(), "" if group is None else str(group))
