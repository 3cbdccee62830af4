"""Two files with one text a line, where the texts of the same line belong together (as in ASSET)."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import zip_longest
from pathlib import Path

from pydantic import Field

from trunkline.data.files import read_lines
from trunkline.errors import DataError
from trunkline.text.examples import PairExample
from trunkline_lab.data.readers.base import FileOptions, require_some


class Options(FileOptions):
    """Options of aligned files; the file of the left texts is named from the folder of the right ones."""

    left: str = Field(default="left.txt", min_length=1, description="The file of the left texts.")
    group: bool = Field(default=False, description="Whether the pairs of one left text are a group.")


def read(path: str | Path, options: Options) -> Iterator[PairExample]:
    """Yields a pair for each line; lines with a blank side, or with the same text on both, are passed over."""
    return require_some(_pairs(path, options), path, what="pair of different texts")


def _pairs(path: str | Path, options: Options) -> Iterator[PairExample]:
    beside = Path(path).parent / options.left
    right = read_lines(path, encoding=options.encoding)
    left = read_lines(beside, encoding=options.encoding)
    for there, here in zip_longest(left, right):
        if there is None or here is None:
            shorter, longer = (beside, path) if there is None else (path, beside)
            raise DataError(
                f"this line has no partner, because {shorter} ends before it",
                path=longer,
                line=(there or here or (0, ""))[0],
                expected="two files with the same number of lines",
            )
        one, two = " ".join(there[1].split()), " ".join(here[1].split())
        if one and two and one.lower() != two.lower():
            yield PairExample(one, two, one if options.group else "")
