"""JSON lines with one mention between the tokens around it, and the mention's types (the format of UFET)."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from trunkline.errors import DataError
from trunkline.text.examples import NerExample, Span, join_tokens
from trunkline_lab.data.readers.base import FileOptions, get_key, read_json_lines, require_some, require_text, shorten


class Options(FileOptions):
    """Options of typed mentions."""

    left_key: str = "left_context_token"
    mention_key: str = "mention_span"
    right_key: str = "right_context_token"
    types_key: str = "y_str"


def read(path: str | Path, options: Options) -> Iterator[NerExample]:
    """Yields the sentences, in each a span for every type of its mention; mentions without a type are passed over."""
    return require_some(_examples(path, options), path, what="mention with a type")


def _examples(path: str | Path, options: Options) -> Iterator[NerExample]:
    for line, record in read_json_lines(path, options):
        left, right, types = (
            _strings(record, key, path, line) for key in (options.left_key, options.right_key, options.types_key)
        )
        mention = require_text(get_key(record, options.mention_key, path, line), "mention", path, line).split()
        if not types:
            continue
        text, words = join_tokens([*left, *mention, *right])
        start, end = words[len(left)][0], words[len(left) + len(mention) - 1][1]
        yield NerExample(text, words, tuple(Span(start, end, name) for name in dict.fromkeys(types)))


def _strings(record: dict[str, Any], key: str, path: str | Path, line: int) -> list[str]:
    values = get_key(record, key, path, line)
    if not isinstance(values, list) or not all(isinstance(value, str) and value.strip() for value in values):
        raise DataError(
            f"{key} is {shorten(values)}", path=path, line=line, expected="a list of strings, none of them blank"
        )
    return [value.strip() for value in values]
