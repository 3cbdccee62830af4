"""OpenTriviaQA: blocks of `#Q question`, `^ answer` and choices, in the files of a tar archive."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

from trunkline.data.examples import PairExample
from trunkline.data.files import read_members
from trunkline.data.readers.base import FileOptions, require_some

_BLOCK = re.compile(r"^#Q(?P<question>.*?)^\^(?P<answer>[^\n]*)$", re.MULTILINE | re.DOTALL)


class Options(FileOptions):
    """Options of trivia archives."""

    encoding: str = "cp1252"
    pattern: str = "categories/*"


def read(path: str | Path, options: Options) -> Iterator[PairExample]:
    """Yields question and answer.

    The files mix UTF-8 with one other encoding, so each line that is not UTF-8 is read in `encoding`. Blocks without
    an answer are passed over.
    """
    return require_some(_pairs(path, options), path, what="question")


def _pairs(path: str | Path, options: Options) -> Iterator[PairExample]:
    for _, content in read_members(path, options.pattern):
        text = "\n".join(_decode(line, options.encoding) for line in content.split(b"\n"))
        for match in _BLOCK.finditer(text):
            # A question without an answer would reach into the next block, so only the last question is kept.
            question = " ".join(match["question"].rpartition("\n#Q")[2].split())
            answer = " ".join(match["answer"].split())
            if question and answer:
                yield PairExample(question, answer)


def _decode(line: bytes, encoding: str) -> str:
    try:
        return line.decode("utf-8")
    except UnicodeDecodeError:
        return line.decode(encoding, errors="replace")
