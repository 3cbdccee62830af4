"""A JSON document with a list of `[text, label]` for each split, as CLINC150 comes."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from pydantic import Field

from trunkline.errors import DataError
from trunkline.text.examples import TextExample
from trunkline_lab.data.readers.base import require_some, shorten
from trunkline_lab.data.readers.json_items import read_json_items
from trunkline_lab.data.readers.labelled import LabelOptions, TextBuilder


class Options(LabelOptions):
    """Options of JSON documents with lists of texts and labels."""

    list_keys: tuple[str, ...] = Field(default=("train",), description="The keys that lead to the list.")


def read(path: str | Path, options: Options) -> Iterator[TextExample]:
    """Yields a text an item of the list."""
    return require_some(_examples(path, options), path)


def _examples(path: str | Path, options: Options) -> Iterator[TextExample]:
    builder = TextBuilder(path, options)
    for line, item in read_json_items(path, options.list_keys, options):
        if not isinstance(item, list) or len(item) != 2:
            raise DataError(f"the item is {shorten(item)}", path=path, line=line, expected="[text, label]")
        if (example := builder.build(item[0], item[1], line)) is not None:
            yield example
    builder.report()
