"""Reuters-21578: news with title and body, as SGML files in a tar archive."""

from __future__ import annotations

import html
import re
from collections.abc import Iterator
from pathlib import Path

from trunkline.data.files import decode_text
from trunkline.errors import DataError
from trunkline.text.examples import PairExample
from trunkline_lab.data.archives import read_members
from trunkline_lab.data.readers.base import FileOptions, require_some

_CONTROL = re.compile(r"&#(?:\d|[12]\d|3[01]|127);|[\x00-\x08\x0b-\x1f\x7f]")
_SIGNATURE = re.compile(r"\s*\breuters?(?:\.\.\.)?\s*$", re.IGNORECASE)


class Options(FileOptions):
    """Options of Reuters archives."""

    encoding: str = "latin-1"
    pattern: str = "*.sgm"


def read(path: str | Path, options: Options) -> Iterator[PairExample]:
    """Yields title and body of the stories that have both, without control characters and the closing `Reuter`."""
    return require_some(_pairs(path, options), path, what="story with title and body")


def _pairs(path: str | Path, options: Options) -> Iterator[PairExample]:
    for name, content in read_members(path, options.pattern):
        where = f"{path}!{name}"
        for story in decode_text(content, options.encoding, where).split("<REUTERS ")[1:]:
            story, end, _ = story.partition("</REUTERS>")
            if not end:
                raise DataError("a story has no </REUTERS>", path=where, expected="a whole file", todo="Get it again")
            pair = PairExample(_element(story, "TITLE"), _SIGNATURE.sub("", _element(story, "BODY")))
            if pair.left and pair.right:
                yield pair


def _element(story: str, name: str) -> str:
    value, end, _ = story.partition(f"<{name}>")[2].partition(f"</{name}>")
    return _clean(value) if end else ""


def _clean(text: str) -> str:
    return " ".join(html.unescape(_CONTROL.sub(" ", text)).split())
