"""JSON lines with a text and its label."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from trunkline.text.examples import TextExample
from trunkline_lab.data.readers.base import FileOptions, get_key, read_json_lines, require_some, require_text


class Options(FileOptions):
    """Options of labelled JSON lines."""

    text_key: str = "text"
    label_key: str = "label"


def read(path: str | Path, options: Options) -> Iterator[TextExample]:
    """Yields a text a line."""
    return require_some(_examples(path, options), path)


def _examples(path: str | Path, options: Options) -> Iterator[TextExample]:
    for line, record in read_json_lines(path, options):
        text = require_text(get_key(record, options.text_key, path, line), "text", path, line)
        yield TextExample(text, require_text(get_key(record, options.label_key, path, line), "label", path, line))
