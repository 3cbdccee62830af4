"""Records of JSON files and of the hub, with their lines."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import islice
from pathlib import Path
from typing import Any

from trunkline.data.formats import DOCUMENT_LIMIT
from trunkline.data.load import read_lines
from trunkline.data.values import CELLS, Record, data_error, shorten
from trunkline.errors import TrunklineError, needs

_LISTS = ("common_examples", "data", "examples", "records", "rows")
"""Keys of the list of records in a JSON document that is an object, or in its `rasa_nlu_data`."""

_BETWEEN = re.compile(r"[ \t\r\n,]*")
_SURROGATE = re.compile(r"\\u[dD][89a-fA-F]")


def parse_json(text: str) -> Any:
    """The value of a JSON text.

    Raises a ValueError for what is no JSON, numbers of thousands of digits, deep nesting, halves of surrogate pairs,
    which no tokenizer and no UTF-8 file takes.
    """
    try:
        value = json.loads(text)
        if _SURROGATE.search(text):
            json.dumps(value, ensure_ascii=False).encode()
    except RecursionError:
        raise ValueError("nested too deeply") from None
    except UnicodeEncodeError as error:
        raise ValueError(f"\\u{ord(error.object[error.start]):04x} is half of a surrogate pair") from None
    return value


def is_json(line: str) -> bool:
    """Whether a line that begins with a bracket is a whole JSON value."""
    try:
        return isinstance(parse_json(line), dict | list)
    except ValueError:
        return False


def read_json_lines(path: str | Path, *, encoding: str = "utf-8") -> Iterator[tuple[int, Record]]:
    """Yields the objects of a JSON-lines file with the numbers of their lines; blank lines are passed over."""
    for number, line in read_lines(path, encoding=encoding):
        if not line.strip():
            continue
        try:
            record = parse_json(line)
        except ValueError as error:
            reason = getattr(error, "msg", error)
            raise data_error(path, number, f"the line is not JSON ({reason})", "one JSON object a line") from None
        if not isinstance(record, dict):
            raise data_error(path, number, f"the line holds {type(record).__name__}", "a JSON object with keys")
        yield number, record


def read_json_records(path: str | Path) -> tuple[str, Iterator[tuple[int, Record]]]:
    """What a JSON file was taken for, and its records with the lines on which they begin, counted from 1.

    Found by content: one object a line, read as asked for; or a document, parsed whole, that is a list of objects or an
    object with one. Items `[text, {...}]` become objects with the key `text`. Anything else raises a DataError.
    """
    first, *more = [*islice((line for _, line in read_lines(path) if line.strip()), 2), ""]
    if first.lstrip().startswith("{") and is_json(first) and (any(more) or _find_list(parse_json(first))[1] is None):
        return "JSON lines", read_json_lines(path)
    return "a JSON document", _document(path)


def _document(path: str | Path) -> Iterator[tuple[int, Record]]:
    text, value = read_json(path)
    key, found = _find_list(value)
    if found is None and (said := _snips(value)):
        starts = [0, *(match.start() for match in re.finditer(r'"data"\s*:\s*\[\s*\{\s*"text"', text))][-len(said) :]
        yield from ((text.count("\n", 0, start) + 1, one) for start, one in zip(starts, said, strict=False))
        return
    if found is None:
        raise data_error(path, None, f"the document is {shorten(value)}", f"a list, or one at {', '.join(_LISTS)}")
    for line, item in zip(item_lines(text, key, len(found)), found, strict=True):
        if isinstance(item, list) and len(item) == 2 and isinstance(item[0], str) and isinstance(item[1], dict):
            item = {"text": item[0], **item[1]}
        if not isinstance(item, dict):
            raise data_error(path, line, f"the item is {shorten(item)}", "a list of JSON objects")
        yield line, item


def _snips(value: Any) -> list[Record]:
    """The utterances of a JSON document of Snips, by intent; none if it is no such document."""
    intents = value.get("intents", value) if isinstance(value, dict) else {}
    named = {name: own.get("utterances") if isinstance(own, dict) else own for name, own in intents.items()}
    said = [(name, one) for name, own in named.items() for one in (own if isinstance(own, list) else [None])]
    dicts = [{"intent": name, "data": one.get("data")} for name, one in said if isinstance(one, dict)]
    return dicts if len(dicts) == len(said) else []


def parse_cells(records: Sequence[tuple[int, Record]]) -> Sequence[tuple[int, Record]]:
    """Records with the values that begin as `CELLS` parsed; an empty one beside them is an empty list."""
    columns = {key for _, one in records for key, cell in one.items() if str(cell).startswith(CELLS)}
    return [(line, {**one, **{key: _cell(one.get(key)) for key in columns}}) for line, one in records]


def _cell(cell: Any) -> Any:
    return parse_json(cell) if isinstance(cell, str) and cell.startswith(CELLS) else cell or []


def _find_list(value: Any) -> tuple[str, list[Any] | None]:
    """The key and list of a JSON document; no key where the document is the list, and None where there is none."""
    if isinstance(value, list):
        return "", value
    inner = value.get("rasa_nlu_data", value) if isinstance(value, dict) else {}
    return next(((key, inner[key]) for key in _LISTS if key in inner and isinstance(inner[key], list)), ("", None))


def read_json(path: str | Path, *, encoding: str = "utf-8") -> tuple[str, Any]:
    """The text and the value of a JSON document; a DataError, with the line, for what is none."""
    text = "\n".join(line for _, line in read_lines(path, encoding=encoding, limit=DOCUMENT_LIMIT))
    try:
        return text, parse_json(text)
    except ValueError as error:
        at, given = getattr(error, "lineno", None), f"the file is not JSON ({getattr(error, 'msg', error)})"
        raise data_error(path, at, given, "one JSON document, or one object a line") from None


def item_lines(text: str, key: str, count: int) -> Iterator[int]:
    """The lines on which the `count` items of the list of a JSON document, the one with a key if any, begin."""
    decoder, line, counted = json.JSONDecoder(), 1, 0
    name = rf"{re.escape(json.dumps(key))}\s*:\s*" if key else ""
    starts = (match.end() for match in re.finditer(rf"{name}(?=\[)", text))
    position = next((start for start in starts if len(decoder.raw_decode(text, start)[0]) == count), None)
    for _ in range(count):
        if position is not None:  # else the key is written with escapes
            position = _BETWEEN.match(text, position + 1).end()  # type: ignore[union-attr]
            line, counted = line + text.count("\n", counted, position), position
            position = decoder.raw_decode(text, position)[1] - 1
        yield line


def hub_records(spec: str) -> Iterator[tuple[int, Record]]:
    """Yields the rows of a split of the hub, or of a local folder in hub layout, with their numbers, counted from 1.

    Code that comes with a data set is never run. `spec` is `hub:NAME@SPLIT` or `hub:NAME:CONFIG@SPLIT`, with SPLIT such
    as `train` or `train[:1000]`. Numbers of a ClassLabel become its names; values of CSV files are text as it stands.

    Raises:
        TrunklineError: A data set that cannot be loaded, with what was tried; or `datasets` is not installed.
    """
    name, at, split = spec.removeprefix("hub:").rpartition("@")
    if not at or not name or not split:
        raise TrunklineError(f"{spec!r} does not say which split", expected="hub:NAME@SPLIT or hub:NAME:CONFIG@SPLIT")
    with needs("train", "a data set of the hub"):
        import datasets
    place, _, config = ("", "", "") if Path(name).exists() else name.rpartition(":")
    name, config = (place, config) if place and config else (name, "")
    try:
        data = datasets.load_dataset(name, config or None, split=split)
        if data.info.builder_name == "csv":
            text = datasets.Features({column: datasets.Value("string") for column in data.features})
            data = datasets.load_dataset(name, config or None, split=split, features=text, keep_default_na=False)
    except (OSError, ValueError, RuntimeError, KeyError, datasets.exceptions.DatasetsError) as error:
        where = "the local folder" if Path(name).exists() else "the hub (no local folder has this name)"
        reason = (str(error).strip() or type(error).__name__).splitlines()[0]
        what = f"the data set {name!r}{f' ({config})' if config else ''}, split {split!r},"
        raise TrunklineError(
            f"{what} could not be loaded from {where}: {reason}",
            expected="a hub id such as user/name or a local folder in hub layout, with data files and no script",
            todo="Check name, configuration, split and network (HF_HUB_OFFLINE=1 uses only what was fetched before)",
        ) from error
    yield from named_rows(data, class_names(data.features))


def class_names(features: Any) -> dict[str, Sequence[str]]:
    """The names of the classes of each ClassLabel, or list of them, of a data set; empty for other columns."""
    # The feature of a list is a list of one in older versions of datasets.
    inner = {key: part[0] if isinstance(part, list) else part for key, part in features.items()}
    return {key: getattr(getattr(part, "feature", part), "names", None) or () for key, part in inner.items()}


def named_rows(rows: Iterable[Record], names: Mapping[str, Sequence[str] | None]) -> Iterator[tuple[int, Record]]:
    """Rows with their numbers, counted from 1, in which numbers of classes that have names are these."""
    for row, record in enumerate(rows, start=1):
        yield row, {key: _named(value, names.get(key) or ()) for key, value in record.items()}


def _named(value: Any, names: Sequence[str]) -> Any:
    """A number, or a list of them, as the names of its classes if these have names; None for an unknown class."""
    if isinstance(value, list) and names:
        return [_named(one, names) for one in value]
    return (names[value] if 0 <= value < len(names) else None) if isinstance(value, int) and names else value
