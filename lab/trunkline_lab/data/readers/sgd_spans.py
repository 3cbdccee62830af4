"""Schema-Guided Dialogue utterances with exact slot spans, as JSON lines: `u` text, `spans` [start, end, slot, ...]."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from pydantic import Field

from trunkline.errors import DataError
from trunkline.text.examples import NerExample
from trunkline.text.words import split_words
from trunkline_lab.data.readers.base import FileOptions, get_key, read_json_lines, require_some, require_text, shorten
from trunkline_lab.data.readers.spans import trim_span


class Options(FileOptions):
    """Options of slot spans."""

    keep_empty: bool = Field(default=False, description="Whether utterances without any slot are kept.")


def read(path: str | Path, options: Options) -> Iterator[NerExample]:
    """Yields the utterances; one text span may have several slots, where services name it differently."""
    return require_some(_examples(path, options), path, what="utterance with a slot")


def _examples(path: str | Path, options: Options) -> Iterator[NerExample]:
    for line, record in read_json_lines(path, options):
        text = get_key(record, "u", path, line)
        require_text(text, "utterance", path, line)
        entries = get_key(record, "spans", path, line)
        if not isinstance(entries, list) or not all(isinstance(item, list) and len(item) >= 3 for item in entries):
            raise DataError(
                f"the spans are {shorten(entries)}",
                path=path,
                line=line,
                expected="a list of [start, end, slot, service]",
            )
        spans = dict.fromkeys(trim_span(text, item[0], item[1], item[2], path, line) for item in entries)
        if spans or options.keep_empty:
            end = len(text.rstrip())
            yield NerExample(text[:end], split_words(text[:end]), tuple(spans))
