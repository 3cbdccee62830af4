"""Plain text in the files of an archive, cut into passages."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from pydantic import Field

from trunkline.data.files import decode_text
from trunkline.text.examples import PlainExample
from trunkline_lab.data.archives import read_members
from trunkline_lab.data.readers import corpus
from trunkline_lab.data.readers.base import require_some


class Options(corpus.Options):
    """Options of archives of plain text."""

    members: str = Field(default="*.txt", description="Shell pattern of the files in the archive; `*` crosses `/`.")


def read(path: str | Path, options: Options) -> Iterator[PlainExample]:
    """Yields the passages of the archive's files in its order.

    Raises:
        DataError: No such archive, a damaged one, no text in it, or bytes that are not text in `encoding`.
    """
    return require_some(_passages(path, options), path, what=f"text of {options.min_words} words or more")


def _passages(path: str | Path, options: Options) -> Iterator[PlainExample]:
    # Latin-1 keeps every byte, so that each line can be decoded by itself.
    encoding = "latin-1" if options.fallback_encoding else options.encoding
    for name, content in read_members(path, options.members):
        where = f"{path}!{name}"
        lines = decode_text(content, encoding, where).split("\n")
        yield from corpus.cut_lines(enumerate((line.removesuffix("\r") for line in lines), 1), where, options)
