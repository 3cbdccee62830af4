"""CSV or TSV with a text column and a label column."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from pydantic import Field

from trunkline.text.examples import TextExample
from trunkline_lab.data.readers.base import Column, TableOptions, read_columns, require_some
from trunkline_lab.data.readers.labelled import LabelOptions, TextBuilder


class Options(TableOptions, LabelOptions):
    """Options of text tables."""

    text_column: Column | tuple[Column, ...] = Field(
        default="text", description="Of several columns, such as a title and a body, the texts are joined with blanks."
    )
    label_column: Column = "label"
    skip_labels_with: str | None = Field(
        default=None, min_length=1, description="Rows whose label has this are passed over: they have several labels."
    )


def read(path: str | Path, options: Options) -> Iterator[TextExample]:
    """Yields a text a row."""
    return require_some(_examples(path, options), path)


def _examples(path: str | Path, options: Options) -> Iterator[TextExample]:
    columns = options.text_column if isinstance(options.text_column, tuple) else (options.text_column,)
    builder = TextBuilder(path, options)
    for line, (*texts, label) in read_columns(path, options, (*columns, options.label_column)):
        if options.skip_labels_with and options.skip_labels_with in label:
            continue
        if (example := builder.build(" ".join(text for text in texts if text), label, line)) is not None:
            yield example
    builder.report()
