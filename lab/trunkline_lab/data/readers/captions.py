"""Captions of images (`id#number TAB caption`): two captions of one image are a pair."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import combinations, groupby
from pathlib import Path

from pydantic import Field

from trunkline.data.files import read_lines
from trunkline.errors import DataError
from trunkline.text.examples import PairExample
from trunkline_lab.data.readers.base import FileOptions, require_some


class Options(FileOptions):
    """Options of caption files."""

    drop_images: tuple[str, ...] = ()
    """Images whose id begins with one of these are passed over."""
    group: bool = Field(default=False, description="Whether the pairs of one image are a group.")


def read(path: str | Path, options: Options) -> Iterator[PairExample]:
    """Yields every pair of different captions of an image; captions of an image stand together in the file."""
    return require_some(_pairs(path, options), path, what="pair of captions")


def _pairs(path: str | Path, options: Options) -> Iterator[PairExample]:
    for image, rows in groupby(_captions(path, options), key=lambda row: row[0]):
        if options.drop_images and image.startswith(options.drop_images):
            continue
        captions = dict.fromkeys(caption for _, caption in rows if caption)
        for left, right in combinations(captions, 2):
            yield PairExample(left, right, image if options.group else "")


def _captions(path: str | Path, options: Options) -> Iterator[tuple[str, str]]:
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
