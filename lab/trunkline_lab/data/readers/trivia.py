"""OpenTriviaQA: blocks of `#Q question`, `^ answer` and choices, in the files of a tar archive."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from trunkline.text.examples import PairExample
from trunkline_lab.data.archives import read_members
from trunkline_lab.data.readers.base import FileOptions, require_some


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
        question: list[str] | None = None
        for line in content.split(b"\n"):
            text = _decode(line, options.encoding)
            if text.startswith("#Q"):
                question = [text[2:]]
            elif question is not None and text.startswith("^"):
                pair = PairExample(" ".join(" ".join(question).split()), " ".join(text[1:].split()))
                question = None
                if pair.left and pair.right:
                    yield pair
            elif question is not None:
                question.append(text)


def _decode(line: bytes, encoding: str) -> str:
    try:
        return line.decode("utf-8")
    except UnicodeDecodeError:
        return line.decode(encoding, errors="replace")
