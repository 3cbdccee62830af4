"""Reuters-21578: news with title and body, as SGML files in a tar archive."""

from __future__ import annotations

import html
import re
from collections.abc import Iterator
from pathlib import Path

from trunkline.data.examples import PairExample
from trunkline.data.files import decode_text, read_members
from trunkline.data.readers.base import FileOptions, require_some

_STORY = re.compile(r"<REUTERS\b.*?</REUTERS>", re.DOTALL)
_TITLE = re.compile(r"<TITLE>(.*?)</TITLE>", re.DOTALL)
_BODY = re.compile(r"<BODY>(.*?)</BODY>", re.DOTALL)
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
        for story in _STORY.finditer(decode_text(content, options.encoding, f"{path}!{name}")):
            title, body = _TITLE.search(story[0]), _BODY.search(story[0])
            if title and body:
                pair = PairExample(_clean(title[1]), _SIGNATURE.sub("", _clean(body[1])))
                if pair.left and pair.right:
                    yield pair


def _clean(text: str) -> str:
    return " ".join(html.unescape(_CONTROL.sub(" ", text)).split())
