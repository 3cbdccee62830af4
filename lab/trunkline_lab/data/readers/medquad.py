"""MedQuAD: medical questions and answers, as XML files in a tar archive."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from xml.etree import ElementTree

from trunkline.errors import DataError
from trunkline.text.examples import PairExample
from trunkline_lab.data.archives import read_members
from trunkline_lab.data.readers.base import FileOptions, require_some


class Options(FileOptions):
    """Options of MedQuAD archives; the encoding is the one that each XML file declares."""

    pattern: str = "*.xml"


def read(path: str | Path, options: Options) -> Iterator[PairExample]:
    """Yields question and answer; answers that were removed for copyright are empty and passed over."""
    return require_some(_pairs(path, options), path, what="question with an answer")


class _Builder(ElementTree.TreeBuilder):
    """Refuses document types: they bring entities, which can read other files and grow without limit."""

    def doctype(self, name: str, public: str | None, system: str | None) -> None:
        """Called where a document type begins, before any of its entities."""
        raise ValueError("it has a document type, which may define entities")


def _parse(content: bytes, where: str) -> ElementTree.Element:
    try:
        return ElementTree.fromstring(content, ElementTree.XMLParser(target=_Builder()))
    except ElementTree.ParseError as error:
        raise DataError(
            f"the XML cannot be parsed ({error})", path=where, line=error.position[0], expected="well-formed XML"
        ) from None
    except (LookupError, ValueError) as error:
        raise DataError(
            f"the XML cannot be parsed ({error})", path=where, expected="UTF-8 without a document type"
        ) from None


def _pairs(path: str | Path, options: Options) -> Iterator[PairExample]:
    for name, content in read_members(path, options.pattern):
        for item in _parse(content, f"{path}!{name}").iter("QAPair"):
            question = " ".join((item.findtext("Question") or "").split())
            answer = " ".join((item.findtext("Answer") or "").split())
            if question and answer:
                yield PairExample(question, answer)
