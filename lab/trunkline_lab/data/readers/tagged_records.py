"""Records in lines such as `<review>`, `<title>`, text, `</title>`, `</review>` (the format of the Blitzer reviews)."""

from __future__ import annotations

import html
import re
from collections.abc import Iterator
from pathlib import Path

from pydantic import Field

from trunkline.data.files import read_lines
from trunkline.errors import DataError
from trunkline.text.examples import PairExample
from trunkline_lab.data.readers.base import FileOptions, require_some

_TAG = re.compile(r"<(/?)(\w+)>")
_CONTROL = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f]")
_MOST_LINES = 100_000


class Options(FileOptions):
    """Options of tagged records."""

    record: str = Field(default="review", description="The tag around a record.")
    left_field: str = "title"
    right_field: str = "review_text"


def read(path: str | Path, options: Options) -> Iterator[PairExample]:
    """Yields two fields of each record, without control characters; records in which one is blank are passed over."""
    return require_some(_pairs(path, options), path, what="record with both fields")


def _pairs(path: str | Path, options: Options) -> Iterator[PairExample]:
    for fields in _records(path, options):
        left, right = (_clean(fields.get(name, [])) for name in (options.left_field, options.right_field))
        if left and right:
            yield PairExample(left, right)


def _records(path: str | Path, options: Options) -> Iterator[dict[str, list[str]]]:
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


def _form(options: Options) -> str:
    return f"<{options.record}>, fields such as <{options.left_field}>, and </{options.record}>, each alone on its line"


def _clean(lines: list[str]) -> str:
    return " ".join(_CONTROL.sub(" ", html.unescape(" ".join(lines))).split())
