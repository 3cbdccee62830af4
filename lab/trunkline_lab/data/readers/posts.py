"""An archive of messages, one a file, in a folder for each label, as 20 Newsgroups comes."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

from pydantic import Field

from trunkline.data.files import decode_text
from trunkline.errors import DataError
from trunkline.text.examples import TextExample
from trunkline_lab.data.archives import read_members
from trunkline_lab.data.readers.base import require_some
from trunkline_lab.data.readers.labelled import LabelOptions, TextBuilder

_BLANK_LINE = re.compile(r"\r?\n\r?\n")


class Options(LabelOptions):
    """Options of message archives; the label is the name of the folder in which a message lies."""

    pattern: str = Field(default="*", description="Shell pattern of the messages' names; `*` also matches `/`.")
    strip_headers: bool = Field(
        default=True,
        description="Whether everything up to the first blank line is dropped, which is where RFC 5322 ends a header.",
    )


def read(path: str | Path, options: Options) -> Iterator[TextExample]:
    """Yields a message a file, in the archive's order; lines of a message stay lines."""
    return require_some(_examples(path, options), path, what="message")


def _examples(path: str | Path, options: Options) -> Iterator[TextExample]:
    builder = TextBuilder(path, options)
    for name, content in read_members(path, options.pattern):
        where = f"{path}!{name}"
        folder = name.rpartition("/")[0].rpartition("/")[2]
        text = decode_text(content, options.encoding, where)
        if options.strip_headers:
            text = _body(text, where)
        if (example := builder.build(text, folder, 1, path=where)) is not None:
            yield example
    builder.report()


def _body(text: str, where: str) -> str:
    end = _BLANK_LINE.search(text)
    if end is None:
        raise DataError(
            "no blank line ends the header",
            path=where,
            line=1,
            expected="a message with a header, a blank line and a body",
            todo="Set strip_headers: false if the messages have no headers",
        )
    return text[end.end() :]
