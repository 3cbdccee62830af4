"""Labelled texts: tables, JSON lines, lines of label and text, JSON lists, and archives of messages."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

from pydantic import Field

from trunkline.data.load import read_lines
from trunkline.data.records import item_lines, read_json
from trunkline.errors import DataError
from trunkline.text.examples import TextExample
from trunkline_lab.data.archives import decode_text, read_members
from trunkline_lab.data.readers.base import (
    Column,
    LabelOptions,
    RowsOptions,
    TextBuilder,
    get_key,
    read_columns,
    read_json_lines,
    shorten,
)


class TableOptions(RowsOptions, LabelOptions):
    """Options of text tables."""

    text_column: Column | tuple[Column, ...] = Field(
        default="text", description="Of several columns, such as a title and a body, the texts are joined with blanks."
    )
    label_column: Column = "label"
    skip_labels_with: str | None = Field(
        default=None, min_length=1, description="Rows whose label has this are passed over: they have several labels."
    )


def read_table(path: str | Path, options: TableOptions) -> Iterator[TextExample]:
    """Yields a text a row."""
    columns = options.text_column if isinstance(options.text_column, tuple) else (options.text_column,)
    builder = TextBuilder(path, options)
    for line, (*texts, label) in read_columns(path, options, (*columns, options.label_column)):
        if options.skip_labels_with and options.skip_labels_with in label:
            continue
        if (example := builder.build(" ".join(text for text in texts if text), label, line)) is not None:
            yield example
    builder.report()


class JsonlTextOptions(LabelOptions):
    """Options of texts in JSON lines."""

    text_key: str = "text"
    label_key: str = "label"


def read_jsonl_text(path: str | Path, options: JsonlTextOptions) -> Iterator[TextExample]:
    """Yields a text a line; numbers are labels, too."""
    builder = TextBuilder(path, options)
    for line, record in read_json_lines(path, encoding=options.encoding):
        text, label = (get_key(record, key, path, line) for key in (options.text_key, options.label_key))
        if (example := builder.build(text, label, line)) is not None:
            yield example
    builder.report()


class LabelTextOptions(LabelOptions):
    """Options of label-and-text lines."""

    separator: str = Field(default=" ", min_length=1)
    label_first: bool = True
    label_until: str | None = Field(
        default=None, min_length=1, description="The label ends before this, so that `NUM:date` is read as `NUM`."
    )
    skip_lines: int = Field(default=0, ge=0, description="Lines of a header.")


def read_label_text(path: str | Path, options: LabelTextOptions) -> Iterator[TextExample]:
    """Yields a text a line; empty lines are passed over."""
    builder = TextBuilder(path, options)
    for line, content in read_lines(path, encoding=options.encoding):
        if line <= options.skip_lines or not content.strip():
            continue
        if options.label_first:
            label, found, text = content.partition(options.separator)
        else:
            text, found, label = content.rpartition(options.separator)
        if not found:
            order = "a label, {!r} and a text" if options.label_first else "a text, {!r} and a label"
            raise DataError(
                f"no {options.separator!r} in {content[:60]!r}",
                path=path,
                line=line,
                expected=order.format(options.separator),
            )
        if options.label_until:
            label = label.partition(options.label_until)[0]
        if (example := builder.build(text, label, line)) is not None:
            yield example
    builder.report()


class JsonListsOptions(LabelOptions):
    """Options of JSON documents with lists of texts and labels."""

    list_keys: tuple[str, ...] = Field(default=("train",), description="The keys that lead to the list.")


def read_json_lists(path: str | Path, options: JsonListsOptions) -> Iterator[TextExample]:
    """Yields a text an item of the list."""
    builder = TextBuilder(path, options)
    text, value = read_json(path, encoding=options.encoding)
    for key in options.list_keys:
        if not isinstance(value, dict):
            raise DataError(f"no key {key!r} in a {type(value).__name__}", path=path, expected="an object")
        value = get_key(value, key, path, None)
    where = ".".join(options.list_keys) or "the document"
    if not isinstance(value, list):
        raise DataError(f"{where} is a {type(value).__name__}", path=path, expected="a list")
    lines = item_lines(text, options.list_keys[-1] if options.list_keys else "", len(value))
    for line, item in zip(lines, value, strict=True):
        if not isinstance(item, list) or len(item) != 2:
            raise DataError(f"the item is {shorten(item)}", path=path, line=line, expected="[text, label]")
        if (example := builder.build(item[0], item[1], line)) is not None:
            yield example
    builder.report()


_BLANK_LINE = re.compile(r"\r?\n\r?\n")


class PostsOptions(LabelOptions):
    """Options of message archives; the label is the name of the folder in which a message lies."""

    pattern: str = Field(default="*", description="Shell pattern of the messages' names; `*` also matches `/`.")


def read_posts(path: str | Path, options: PostsOptions) -> Iterator[TextExample]:
    """Yields a message a file, in the archive's order, without its header; lines of a message stay lines."""
    builder = TextBuilder(path, options)
    for name, content in read_members(path, options.pattern):
        where = f"{path}!{name}"
        folder = name.rpartition("/")[0].rpartition("/")[2]
        text = _body(decode_text(content, options.encoding, where), where)
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
        )
    return text[end.end() :]
