"""CSV or TSV with a text column and a label column."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from pydantic import Field

from trunkline.data.examples import TextExample
from trunkline.data.readers.base import Column, TableOptions, read_columns, require_some, require_text


class Options(TableOptions):
    """Options of text tables."""

    text_column: Column = "text"
    label_column: Column = "label"
    skip_labels_with: str | None = Field(
        default=None, min_length=1, description="Rows whose label has this are passed over: they have several labels."
    )


def read(path: str | Path, options: Options) -> Iterator[TextExample]:
    """Yields a text a row."""
    return require_some(_examples(path, options), path)


def _examples(path: str | Path, options: Options) -> Iterator[TextExample]:
    for line, (text, label) in read_columns(path, options, (options.text_column, options.label_column)):
        if options.skip_labels_with and options.skip_labels_with in label:
            continue
        yield TextExample(require_text(text, "text", path, line), require_text(label, "label", path, line))
