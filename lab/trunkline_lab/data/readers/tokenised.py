"""Tokenised sentences in JSON lines and tables, and mentions with types between tokens."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from pydantic import Field

from trunkline.errors import DataError
from trunkline.text.examples import NerExample, Span, join_tokens
from trunkline_lab.data.readers.base import (
    Column,
    FileOptions,
    RowsOptions,
    SentenceBuilder,
    TaggedOptions,
    get_key,
    read_columns,
    read_json_lines,
    require_text,
    shorten,
)


class TokensOptions(TaggedOptions):
    """Options of token files."""

    tokens_key: str = "tokens"
    tags_key: str = "tags"


def read_tokens(path: str | Path, options: TokensOptions) -> Iterator[NerExample]:
    """Yields a sentence a line."""
    builder = SentenceBuilder(path, options.scheme)
    for line, record in read_json_lines(path, encoding=options.encoding):
        tokens = get_key(record, options.tokens_key, path, line)
        tags = get_key(record, options.tags_key, path, line)
        if not isinstance(tokens, list) or not isinstance(tags, list) or not tokens:
            raise DataError("tokens or tags are no lists, or empty", path=path, line=line, expected="two equal lists")
        if len(tokens) != len(tags):
            raise DataError(
                f"{len(tokens)} tokens and {len(tags)} tags", path=path, line=line, expected="as many tags as tokens"
            )
        words = [require_text(token, "token", path, line) for token in tokens]
        yield builder.build(words, [require_text(tag, "tag", path, line) for tag in tags], (line,))
    builder.report()


class TokenTableOptions(RowsOptions, TaggedOptions):
    """Options of token tables; a sentence goes on while its columns are equal, or empty with `fill_down`."""

    sentence_columns: tuple[Column, ...] = Field(default=("sentence",), min_length=1)
    token_column: Column = "token"
    tag_column: Column = "tag"
    tag_names: dict[str, str] = Field(default={}, description="Tags by what stands in the file, such as '0': O.")
    fill_down: bool = Field(default=False, description="Whether only the first token of a sentence has its id.")


def read_token_table(path: str | Path, options: TokenTableOptions) -> Iterator[NerExample]:
    """Yields the sentences in the order of the file."""
    builder = SentenceBuilder(path, options.scheme)
    columns = [*options.sentence_columns, options.token_column, options.tag_column]
    current: list[str] = []
    lines: list[int] = []
    tokens: list[str] = []
    tags: list[str] = []
    for line, (*key, token, tag) in read_columns(path, options, columns):
        if tokens and key != current and not (options.fill_down and not any(key)):
            yield builder.build(tokens, tags, lines)
            lines, tokens, tags = [], [], []
        if not options.fill_down or any(key):
            current = key
        lines.append(line)
        tokens.append(require_text(token, "token", path, line))
        tags.append(options.tag_names.get(tag, require_text(tag, "tag", path, line)))
    if tokens:
        yield builder.build(tokens, tags, lines)
    builder.report()


class TypedMentionsOptions(FileOptions):
    """Options of typed mentions."""

    left_key: str = "left_context_token"
    mention_key: str = "mention_span"
    right_key: str = "right_context_token"
    types_key: str = "y_str"


def read_typed_mentions(path: str | Path, options: TypedMentionsOptions) -> Iterator[NerExample]:
    """Yields the sentences, in each a span for every type of its mention; mentions without a type are passed over."""
    for line, record in read_json_lines(path, encoding=options.encoding):
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
