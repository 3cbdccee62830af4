"""Text pairs in tables, JSON lines and plain lines."""

from __future__ import annotations

import math
from collections.abc import Iterator
from itertools import combinations, groupby, zip_longest
from pathlib import Path

from pydantic import Field

from trunkline.data.load import read_lines
from trunkline.errors import DataError
from trunkline.text.examples import PairExample
from trunkline_lab.data.readers.base import (
    Column,
    FileOptions,
    RowsOptions,
    get_key,
    read_columns,
    read_json_lines,
    shorten,
)


class PairTableOptions(RowsOptions):
    """Options of pair tables."""

    left_column: Column = "left"
    right_column: Column = "right"


def read_pair_table(path: str | Path, options: PairTableOptions) -> Iterator[PairExample]:
    """Yields a pair a row; rows with a blank side are passed over."""
    columns = (options.left_column, options.right_column)
    return (PairExample(left, right) for _, (left, right) in read_columns(path, options, columns) if left and right)


class PairJsonlOptions(FileOptions):
    """Options of pairs in JSON lines."""

    left_key: str = "left"
    right_key: str = "right"
    group_key: str | None = None


def read_pair_jsonl(path: str | Path, options: PairJsonlOptions) -> Iterator[PairExample]:
    """Yields a pair a line; lines with a blank side are passed over."""
    for line, record in read_json_lines(path, encoding=options.encoding):
        left, right = (get_key(record, key, path, line) for key in (options.left_key, options.right_key))
        if not isinstance(left, str) or not isinstance(right, str):
            raise DataError(
                f"the pair is {shorten(left)}, {shorten(right)}", path=path, line=line, expected="two strings"
            )
        if left.strip() and right.strip():
            group = get_key(record, options.group_key, path, line) if options.group_key else None
            yield PairExample(left.strip(), right.strip(), "" if group is None else str(group))


class ScoredPairsOptions(RowsOptions):
    """Options of scored pairs."""

    left_column: Column = "left"
    right_column: Column = "right"
    score_column: Column = "score"
    min_score: float = Field(default=1.0, description="Pairs with a lower score are passed over.")


def read_scored_pairs(path: str | Path, options: ScoredPairsOptions) -> Iterator[PairExample]:
    """Yields the pairs that score high enough; rows with a blank side or without a score are passed over."""
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


class AlignedLinesOptions(FileOptions):
    """Options of aligned files; the file of the left texts is named from the folder of the right ones."""

    left: str = Field(default="left.txt", min_length=1, description="The file of the left texts.")
    group: bool = Field(default=False, description="Whether the pairs of one left text are a group.")


def read_aligned_lines(path: str | Path, options: AlignedLinesOptions) -> Iterator[PairExample]:
    """Yields a pair for each line; lines with a blank side, or with the same text on both, are passed over."""
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


class CaptionsOptions(FileOptions):
    """Options of caption files."""

    drop_images: tuple[str, ...] = ()
    """Images whose id begins with one of these are passed over."""
    group: bool = Field(default=False, description="Whether the pairs of one image are a group.")


def read_captions(path: str | Path, options: CaptionsOptions) -> Iterator[PairExample]:
    """Yields every pair of different captions of an image; captions of an image stand together in the file."""
    for image, rows in groupby(_captions(path, options), key=lambda row: row[0]):
        if options.drop_images and image.startswith(options.drop_images):
            continue
        captions = dict.fromkeys(caption for _, caption in rows if caption)
        for left, right in combinations(captions, 2):
            yield PairExample(left, right, image if options.group else "")


def _captions(path: str | Path, options: CaptionsOptions) -> Iterator[tuple[str, str]]:
    for line, row in read_lines(path, encoding=options.encoding):
        if not row.strip():
            continue
        name, tab, caption = row.partition("\t")
        image, mark, _ = name.rpartition("#")
        if not tab or not mark:
            raise DataError(
                f"the row {row[:60]!r} is no caption", path=path, line=line, expected="image#number, a tab, a caption"
            )
        yield image, caption.strip()
