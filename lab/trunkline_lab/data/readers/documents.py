"""Text pairs out of documents: reviews in tags, OpenTriviaQA, Reuters-21578 (SGML) and MedQuAD (XML)."""

from __future__ import annotations

import html
import re
from collections.abc import Iterator
from pathlib import Path
from xml.etree import ElementTree

from pydantic import Field

from trunkline.data.load import read_lines
from trunkline.errors import DataError
from trunkline.text.examples import PairExample
from trunkline_lab.data.archives import decode_text, read_members
from trunkline_lab.data.readers.base import FileOptions

_TAG = re.compile(r"<(/?)(\w+)>")
_TAGGED_RECORDS_CONTROL = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f]")
_MOST_LINES = 100_000


class TaggedRecordsOptions(FileOptions):
    """Options of tagged records."""

    record: str = Field(default="review", description="The tag around a record.")
    left_field: str = "title"
    right_field: str = "review_text"


def read_tagged_records(path: str | Path, options: TaggedRecordsOptions) -> Iterator[PairExample]:
    """Yields two fields of each record, without control characters; records in which one is blank are passed over."""
    for fields in _records(path, options):
        left, right = (
            _tagged_records_clean(fields.get(name, [])) for name in (options.left_field, options.right_field)
        )
        if left and right:
            yield PairExample(left, right)


def _records(path: str | Path, options: TaggedRecordsOptions) -> Iterator[dict[str, list[str]]]:
    """Yields the lines of each field of a record, by name. Only a tag that is alone on its line is one."""
    fields: dict[str, list[str]] | None = None
    inside, begin, line = "", 0, 0
    for line, text in read_lines(path, encoding=options.encoding):
        tag = _TAG.fullmatch(text.strip())
        closing, name = (bool(tag[1]), tag[2]) if tag else (False, "")
        if name == options.record:
            if closing == (fields is None):
                problem = "ends here without a beginning" if closing else f"that began in line {begin} has no end"
                raise DataError(f"a record {problem}", path=path, line=line, expected=_form(options))
            if inside:
                raise DataError(f"the field <{inside}> has no end", path=path, line=line, expected=_form(options))
            if closing and fields is not None:
                yield fields
            fields, inside, begin = (None if closing else {}), "", line
        elif fields is None or line - begin > _MOST_LINES:
            if text.strip() and tag is None:  # a file may have one tag around all records
                raise DataError(f"{text.strip()[:60]!r} is in no record", path=path, line=line, expected=_form(options))
        elif closing and name == inside:
            inside = ""
        elif name and not closing and not inside:
            inside = name
        elif inside:
            fields.setdefault(inside, []).append(text)
    if fields is not None:
        raise DataError(f"the record of line {begin} has no end", path=path, line=line, expected=_form(options))


def _form(options: TaggedRecordsOptions) -> str:
    return f"<{options.record}>, fields such as <{options.left_field}>, and </{options.record}>, each alone on its line"


def _tagged_records_clean(lines: list[str]) -> str:
    return " ".join(_TAGGED_RECORDS_CONTROL.sub(" ", html.unescape(" ".join(lines))).split())


class TriviaOptions(FileOptions):
    """Options of trivia archives."""

    encoding: str = "cp1252"
    pattern: str = "categories/*"


def read_trivia(path: str | Path, options: TriviaOptions) -> Iterator[PairExample]:
    """Yields question and answer.

    The files mix UTF-8 with one other encoding, so each line that is not UTF-8 is read in `encoding`. Blocks without
    an answer are passed over.
    """
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


_REUTERS_CONTROL = re.compile(r"&#(?:\d|[12]\d|3[01]|127);|[\x00-\x08\x0b-\x1f\x7f]")
_SIGNATURE = re.compile(r"\s*\breuters?(?:\.\.\.)?\s*$", re.IGNORECASE)


class ReutersOptions(FileOptions):
    """Options of Reuters archives."""

    encoding: str = "latin-1"
    pattern: str = "*.sgm"


def read_reuters(path: str | Path, options: ReutersOptions) -> Iterator[PairExample]:
    """Yields title and body of the stories that have both, without control characters and the closing `Reuter`."""
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
    return _reuters_clean(value) if end else ""


def _reuters_clean(text: str) -> str:
    return " ".join(html.unescape(_REUTERS_CONTROL.sub(" ", text)).split())


class MedquadOptions(FileOptions):
    """Options of MedQuAD archives; the encoding is the one that each XML file declares."""

    pattern: str = "*.xml"


def read_medquad(path: str | Path, options: MedquadOptions) -> Iterator[PairExample]:
    """Yields question and answer; answers that were removed for copyright are empty and passed over."""
    for name, content in read_members(path, options.pattern):
        for item in _parse(content, f"{path}!{name}").iter("QAPair"):
            question = " ".join((item.findtext("Question") or "").split())
            answer = " ".join((item.findtext("Answer") or "").split())
            if question and answer:
                yield PairExample(question, answer)


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
