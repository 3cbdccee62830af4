"""CSV with one token a row and columns that say to which sentence it belongs."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from pydantic import Field

from trunkline.text.examples import NerExample
from trunkline_lab.data.readers.base import (
    Column,
    SentenceBuilder,
    TableOptions,
    TaggedOptions,
    read_columns,
    require_some,
    require_text,
)


class Options(TableOptions, TaggedOptions):
    """Options of token tables; a sentence goes on while its columns are equal, or empty with `fill_down`."""

    sentence_columns: tuple[Column, ...] = Field(default=("sentence",), min_length=1)
    token_column: Column = "token"
    tag_column: Column = "tag"
    tag_names: dict[str, str] = Field(default={}, description="Tags by what stands in the file, such as '0': O.")
    fill_down: bool = Field(default=False, description="Whether only the first token of a sentence has its id.")


def read(path: str | Path, options: Options) -> Iterator[NerExample]:
    """Yields the sentences in the order of the file."""
    return require_some(_sentences(path, options), path, what="sentence")


def _sentences(path: str | Path, options: Options) -> Iterator[NerExample]:
    builder = SentenceBuilder(path, options.scheme, options.strict)
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
