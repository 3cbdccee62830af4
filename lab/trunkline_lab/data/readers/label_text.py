"""Lines of a label and a text, such as `spam TAB Free entry`."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from pydantic import Field

from trunkline.data.files import read_lines
from trunkline.errors import DataError
from trunkline.text.examples import TextExample
from trunkline_lab.data.readers.base import require_some
from trunkline_lab.data.readers.labelled import LabelOptions, TextBuilder


class Options(LabelOptions):
    """Options of label-and-text lines."""

    separator: str = Field(default=" ", min_length=1)
    label_first: bool = True
    label_until: str | None = Field(
        default=None, min_length=1, description="The label ends before this, so that `NUM:date` is read as `NUM`."
    )
    skip_lines: int = Field(default=0, ge=0, description="Lines of a header.")


def read(path: str | Path, options: Options) -> Iterator[TextExample]:
    """Yields a text a line; empty lines are passed over."""
    return require_some(_examples(path, options), path)


def _examples(path: str | Path, options: Options) -> Iterator[TextExample]:
    builder = TextBuilder(path, options)
    for line, content in read_lines(path, encoding=options.encoding):
        if line <= options.skip_lines or not content.strip():
            continue
        if options.label_first:
            label, found, text = content.partition(options.separator)
        else:
            text, found, label = content.rpartition(options.separator)
        if not found:
            order = "a label, {!r} and a text" if options.label_first else "a text, {!r} and a label"
            raise DataError(
                f"no {options.separator!r} in {content[:60]!r}",
                path=path,
                line=line,
                expected=order.format(options.separator),
            )
        if options.label_until:
            label = label.partition(options.label_until)[0]
        if (example := builder.build(text, label, line)) is not None:
            yield example
    builder.report()
