"""Adjacent utterances of the Schema-Guided Dialogue data, as JSON lines with dialogue, turn and utterance."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from pydantic import Field

from trunkline.text.examples import PairExample
from trunkline_lab.data.readers.base import FileOptions, get_key, read_json_lines, require_some, require_text


class Options(FileOptions):
    """Options of dialogue turns."""

    min_words: int = Field(default=4, ge=1, description="Shorter turns, such as `Yes please`, say too little.")
    unique: bool = Field(default=True, description="Whether a pair that recurs word for word is given once.")


def read(path: str | Path, options: Options) -> Iterator[PairExample]:
    """Yields each turn with the one that answers it."""
    return require_some(_pairs(path, options), path, what="pair of turns")


def _pairs(path: str | Path, options: Options) -> Iterator[PairExample]:
    before: tuple[object, str] = (None, "")
    seen: set[PairExample] = set()
    for line, record in read_json_lines(path, options):
        dialogue = get_key(record, "d", path, line)
        text = require_text(get_key(record, "u", path, line), "utterance", path, line)
        pair = PairExample(before[1], text)
        same = dialogue == before[0]
        before = dialogue, text
        if not same or min(len(pair.left.split()), len(pair.right.split())) < options.min_words:
            continue
        if options.unique and pair in seen:
            continue
        seen.add(pair)
        yield pair
