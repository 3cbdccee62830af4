"""MedQuAD: medical questions and answers, as XML files in a tar archive."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from xml.etree import ElementTree

from trunkline.data.examples import PairExample
from trunkline.data.files import read_members
from trunkline.data.readers.base import FileOptions, require_some
from trunkline.errors import DataError


class Options(FileOptions):
    """Options of MedQuAD archives; the encoding is the one that each XML file declares."""

    pattern: str = "*.xml"


def read(path: str | Path, options: Options) -> Iterator[PairExample]:
    """Yields question and answer; answers that were removed for copyright are empty and passed over."""
    return require_some(_pairs(path, options), path, what="question with an answer")


def _pairs(path: str | Path, options: Options) -> Iterator[PairExample]:
    for name, content in read_members(path, options.pattern):
        try:
            root = ElementTree.fromstring(content)
        except ElementTree.ParseError as error:
            raise DataError(
                f"the XML cannot be parsed ({error})",
                path=f"{path}!{name}",
                line=error.position[0],
                expected="well-formed XML",
            ) from None
        for item in root.iter("QAPair"):
            question = " ".join((item.findtext("Question") or "").split())
            answer = " ".join((item.findtext("Answer") or "").split())
            if question and answer:
                yield PairExample(question, answer)
