"""JSON lines with tokens and their tags."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from pydantic import Field

from trunkline.errors import DataError
from trunkline.text.examples import NerExample
from trunkline_lab.data.readers.base import (
    SentenceBuilder,
    TaggedOptions,
    get_key,
    read_json_lines,
    require_some,
    require_text,
)


class Options(TaggedOptions):
    """Options of token files."""

    tokens_key: str = "tokens"
    tags_key: str = "tags"
    tag_names: tuple[str, ...] = Field(default=(), description="The tags by number, where the file holds numbers.")


def read(path: str | Path, options: Options) -> Iterator[NerExample]:
    """Yields a sentence a line."""
    return require_some(_examples(path, options), path, what="sentence")


def _examples(path: str | Path, options: Options) -> Iterator[NerExample]:
    builder = SentenceBuilder(path, options.scheme, options.strict)
    for line, record in read_json_lines(path, options):
        tokens = get_key(record, options.tokens_key, path, line)
        tags = get_key(record, options.tags_key, path, line)
        if not isinstance(tokens, list) or not isinstance(tags, list) or not tokens:
            raise DataError("tokens or tags are no lists, or empty", path=path, line=line, expected="two equal lists")
        if len(tokens) != len(tags):
            raise DataError(
                f"{len(tokens)} tokens and {len(tags)} tags", path=path, line=line, expected="as many tags as tokens"
            )
        words = [require_text(token, "token", path, line) for token in tokens]
        yield builder.build(words, [_tag(tag, options.tag_names, path, line) for tag in tags], (line,))
    builder.report()


def _tag(tag: Any, names: tuple[str, ...], path: str | Path, line: int) -> str:
    if isinstance(tag, int) and not isinstance(tag, bool):
        if 0 <= tag < len(names):
            return names[tag]
        raise DataError(
            f"the tag is the number {tag}",
            path=path,
            line=line,
            expected=f"a number below {len(names)}" if names else "a tag such as B-person",
            todo="List the tags in order in the option tag_names",
        )
    return require_text(tag, "tag", path, line)
