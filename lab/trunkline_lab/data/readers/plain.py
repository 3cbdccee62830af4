"""Plain text, cut into passages: the files of an archive, and the texts of JSON lines."""

from __future__ import annotations

import html
import re
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any, Literal

from pydantic import Field

from trunkline.errors import DataError
from trunkline.text.examples import PlainExample
from trunkline.text.words import split_sentences
from trunkline_lab.data.archives import decode_text, read_members
from trunkline_lab.data.readers.base import FileOptions, get_key, read_json_lines, shorten

_MARKUP = re.compile(r"</?[A-Za-z][^<>]{0,200}>")
_BLOCK_WORDS = 50_000


class Passages(FileOptions):
    """What a passage is."""

    min_words: int = Field(default=1, ge=1, description="Passages of fewer words are left out.")
    max_words: int = Field(default=200, ge=5, description="Longer texts are cut, at sentence ends where there are any.")


class CorpusOptions(Passages):
    """Options of archives of plain text."""

    split: Literal["paragraphs", "lines", "file"] = Field(
        default="paragraphs", description="What ends a text: a blank line, every line, or only the end of the file."
    )
    members: str = Field(default="*.txt", description="Shell pattern of the files in the archive; `*` crosses `/`.")
    tag_separator: str | None = Field(
        default=None, min_length=1, description="What parts each token from its tag, which is dropped, as in the/at."
    )
    fallback_encoding: str | None = Field(default=None, description="The encoding of lines that are not UTF-8.")
    markup: bool = Field(default=False, description="Whether tags such as <br /> and entities are turned into text.")


class PlainJsonlOptions(Passages):
    """Options of texts in JSON lines."""

    text_key: str = "text"
    list_key: str | None = Field(default=None, description="Where a line has a list of objects, each with a text.")


def read_corpus(path: str | Path, options: CorpusOptions) -> Iterator[PlainExample]:
    """Yields the passages of the archive's files in its order, with every run of blanks as one."""
    encoding = "latin-1" if options.fallback_encoding else options.encoding
    for name, content in read_members(path, options.members):
        where = f"{path}!{name}"
        if b"\0" in content:
            raise DataError("a NUL byte, so this is a binary file or UTF-16", path=where, expected="text")
        lines = (line.removesuffix("\r") for line in decode_text(content, encoding, where).split("\n"))
        for block in _blocks(_decoded(enumerate(lines, 1), where, options), options.split):
            yield from cut_text(_plain(block, options), options)


def read_plain_jsonl(path: str | Path, options: PlainJsonlOptions) -> Iterator[PlainExample]:
    """Yields the passages of each line's text; lines whose text is blank are passed over."""
    for line, record in read_json_lines(path, encoding=options.encoding):
        for part in _records(record, options, path, line):
            text = get_key(part, options.text_key, path, line)
            if not isinstance(text, str):
                raise DataError(f"the text is {shorten(text)}", path=path, line=line, expected="a text as a string")
            yield from cut_text(text, options)


def cut_text(text: str, options: Passages) -> Iterator[PlainExample]:
    """Cuts a text into passages of at most `max_words` words, as many whole sentences as fit; drops short ones."""
    held: list[str] = []
    for sentence in split_sentences(text, options.max_words):
        words = sentence.split()
        if held and len(held) + len(words) > options.max_words:
            yield from _passage(held, options)
            held = []
        held += words
    yield from _passage(held, options)


def _passage(words: list[str], options: Passages) -> Iterator[PlainExample]:
    if len(words) >= options.min_words:
        yield PlainExample(" ".join(words))


def _decoded(lines: Iterable[tuple[int, str]], where: str, options: CorpusOptions) -> Iterator[str]:
    for number, line in lines:
        if options.fallback_encoding is None:
            yield line
            continue
        raw = line.encode("latin-1")
        try:
            yield raw.decode("utf-8").removeprefix("\ufeff")
        except UnicodeDecodeError:
            try:
                yield decode_text(raw, options.fallback_encoding, where)
            except DataError as error:
                # The line was decoded by itself, so that its number has to be put in.
                raise DataError(
                    f"the line is neither UTF-8 nor {options.fallback_encoding}",
                    path=where,
                    line=number,
                    expected=error.expected or "text in one of the two",
                    todo="Set `fallback_encoding` (latin-1 takes every byte) or mend the line",
                ) from None


def _blocks(lines: Iterable[str], split: str) -> Iterator[str]:
    """Joins lines up to the end of a text, or up to so many words that the memory stays bounded."""
    held: list[str] = []
    words = 0
    for line in lines:
        count = len(line.split())
        if held and ((split == "paragraphs" and not count) or words >= _BLOCK_WORDS):
            yield "\n".join(held)
            held, words = [], 0
        if count and split == "lines":
            yield line
        elif count:
            held.append(line)
            words += count
    if held:
        yield "\n".join(held)


def _plain(text: str, options: CorpusOptions) -> str:
    if options.markup:
        text = html.unescape(_MARKUP.sub(" ", text))
    if options.tag_separator is None:
        return text
    tokens = (token.rpartition(options.tag_separator)[0] or token for token in text.split())
    return " ".join('"' if token in ("``", "''") else token for token in tokens)


def _records(record: dict[str, Any], options: PlainJsonlOptions, path: str | Path, line: int) -> list[dict[str, Any]]:
    if options.list_key is None:
        return [record]
    parts = get_key(record, options.list_key, path, line)
    if not isinstance(parts, list) or not all(isinstance(part, dict) for part in parts):
        raise DataError(
            f"{options.list_key} is {shorten(parts)}", path=path, line=line, expected="a list of objects with a text"
        )
    return parts
