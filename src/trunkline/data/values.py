"""Values of records, checked, and how messages show them."""

from __future__ import annotations

import reprlib
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

from trunkline.errors import DataError
from trunkline.text.examples import Example

_SHORT = reprlib.Repr()
_SHORT.maxstring = _SHORT.maxlong = _SHORT.maxother = 80
_SHORT.maxlevel = 3

Record = dict[str, Any]
Records = Iterable[tuple[int, Record]]
"""Records with the lines on which they begin, counted from 1."""

TEXT_NAMES = ("text", "sentence", "utterance", "message", "query", "comment", "review", "tweet", "body", "content")
LABEL_NAMES = (
    "label_text", "label_name", "label", "labels", "intent", "category", "class", "sentiment", "topic", "target",
)  # fmt: skip
SEPARATORS = "|;,/"
"""What people write between labels."""
SECOND_NAMES = {
    *TEXT_NAMES, "question", "premise", "hypothesis", "context", "passage", "title", "subject", "reply",
    "response", "headline", "description", "paragraph", "document", "summary",
}  # fmt: skip

TABLES = ("table", "xlsx")
"""Forms whose values are text."""

CELLS = ('[{"start"', '{"choices"')
"""How values of tables begin that are JSON, as Label Studio writes them."""

T = TypeVar("T")


@dataclass(frozen=True)
class Loaded:
    """What a file gave: examples in the order of the file, and what it was taken for (`kind`), in words.

    `notes` say what was left out or repaired, and what a user should look at.
    """

    family: str
    examples: list[Example]
    kind: str
    notes: list[str] = field(default_factory=list)


def shorten(value: object) -> str:
    """A value for a message: its `repr`, with what is long or deep left out of the middle."""
    return _SHORT.repr(value)


def list_names(names: Iterable[object]) -> str:
    """Names for a message, the first twelve of them."""
    found = list(names)
    listed = ", ".join(map(shorten, found[:12])) or "none"
    return f"{listed} and {len(found) - 12} more" if len(found) > 12 else listed


def data_error(path: str | Path, line: int | None, given: str, expected: str = "", todo: str = "") -> DataError:
    """A DataError, in the order in which it is read."""
    return DataError(given, path=path, line=line, expected=expected, todo=todo)


def require_some(items: Iterable[T], path: str | Path, *, what: str = "example") -> Iterator[T]:
    """Passes the items on and raises a DataError if there is none."""
    empty = True
    for item in items:
        empty = False
        yield item
    if empty:
        todo = "Check that it is the right file, and the names of columns or keys"
        raise data_error(path, None, f"the file has no {what}", f"at least one {what}", todo)


def get_key(record: Record, key: str, path: str | Path, line: int | None) -> Any:
    """The value of a key; a DataError that lists the keys if it is missing."""
    if key not in record:
        raise data_error(path, line, f"no key {key!r}; the keys are {list_names(record)}", f"the key {key!r}")
    return record[key]


def require_text(value: object, what: str, path: str | Path, line: int | None) -> str:
    """The stripped text, or a DataError if it is blank or no text; whole numbers pass as labels."""
    if isinstance(value, int) and not isinstance(value, bool) and what == "label":
        return str(value)
    if not isinstance(value, str):
        given = f"the {what} is {'null' if value is None else shorten(value)}"
        raise data_error(path, line, given, f"a {what} as a string", "Fill it in or remove the row")
    if not value.strip():
        raise data_error(path, line, f"the {what} is empty", f"a {what}", "Fill it in or remove the row")
    return value.strip()


def too_large(path: str | Path, line: int | None, most: int, what: str = "") -> DataError:
    """The error for more bytes than are read of a file, or of `what`."""
    expected = "a text file of lines, within the limit that guards against archive bombs"
    return data_error(path, line, f"{what}more than {most} bytes when unpacked", expected, "Split the file")


def wrong_bytes(error: UnicodeDecodeError | None, path: str | Path, line: int) -> DataError:
    """The error for bytes that are no text; without `error` for a NUL byte."""
    if error is None:
        given = "a NUL byte, so this is a binary file or UTF-16 without its mark"
        return data_error(path, line, given, "text", "Convert the file to UTF-8 or name another one")
    byte = error.object[error.start] if error.start < len(error.object) else 0
    todo = "Save the file as UTF-8 (latin-1 and cp1252 are common), or mend the line"
    return data_error(path, line, f"the byte 0x{byte:02x} is not {error.encoding} here", "one encoding", todo)


def no_file(path: str | Path, file: Any) -> DataError:
    """The error for a path where there is no file, or a folder; without `file` for an archive."""
    if file is None:
        todo = "Unpack it and name a file or folder of it"
        return data_error(path, None, "this is a .zip file, and not one of Excel", "a file of data", todo)
    if file.is_dir():
        return data_error(path, None, "this is a folder", "a file", "Name the file in it that you mean")
    where = "its folder exists" if file.parent.exists() else "its folder does not exist either"
    return data_error(path, None, f"no such file ({where})", "a file that exists", "Check the path")


def wrong_family(
    path: str | Path, line: int, names: Iterable[str], family: str | None, entities: str, label: str
) -> DataError:
    """The error for data without labels of texts, or with them where another family is wanted."""
    wanted = {
        "multilabel": "a text and a list of labels",
        "ner": "tokens and tags, or a text and entities",
        "qa": "question, context and answers",
    }
    has = {"questions": "answers" in names and family != "qa", "labels of texts": bool(label)}
    if family != "ner":
        has = {"entities": bool(entities), "tags of tokens": "tokens" in names, **has}
    given, todo = f"there are {list_names(names)}", "Take other data, or a task of its family"
    if family and (found := [what for what, there in has.items() if there]):
        given += f" with {found[0]}, but the task, or --family, is {family}"
    elif family not in wanted:
        todo = "Name columns with --text-column and --label-column; by number, from 0, in a table without a header"
    return data_error(path, line, given, wanted.get(family or "", "a text and a label"), todo)


def joined_labels(path: str | Path, line: int, label: str, count: int, alone: bool) -> DataError:
    """The error for a label that is several ones, which also occur `alone`, or in other combinations."""
    where = "alone" if alone else "in other combinations"
    sign = next((one for one in label if one in SEPARATORS), "")
    todo = f"Say --label-separator {sign!r}, or, if it is one label, give it a name without that"
    given = f"the label {shorten(label)} seems to be {count} labels, which also occur {where}"
    return data_error(path, line, given, "one label a text", todo)


def open_quote(path: str | Path, begin: int, end: int, error: object = "") -> DataError:
    """The error for a quote that opens a value on a line and closes it wrongly, or on the line `end`."""
    reach = f"; read as one value it would take in the lines up to {end}" if end > begin else ""
    given = f"a double quote is opened here and not closed as it should be{f' ({error})' if error else ''}{reach}"
    return data_error(path, begin, given, "quotes around whole values, with those inside doubled", "Mend the quotes")
