"""Plain text: a file, the files of an archive, or a folder of `.txt` and `.md` files, cut into passages."""

from __future__ import annotations

import fnmatch
import html
import re
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Literal

from pydantic import Field

from trunkline.data.files import decode_text, read_lines, read_member_lines
from trunkline.data.readers.base import FileOptions, require_some
from trunkline.errors import DataError
from trunkline.text.examples import PlainExample
from trunkline.text.sentences import split_sentences

TEXT_FILES = (".txt", ".md")
_ARCHIVES = (".zip", ".tar", ".tar.gz", ".tgz", ".tar.bz2", ".tar.xz")
_MARKUP = re.compile(r"</?[A-Za-z][^<>]{0,200}>")
_BLOCK_WORDS = 50_000


class Passages(FileOptions):
    """What a passage is."""

    min_words: int = Field(default=1, ge=1, description="Passages of fewer words are left out.")
    max_words: int = Field(default=200, ge=5, description="Longer texts are cut, at sentence ends where there are any.")


class Options(Passages):
    """Options of plain text."""

    split: Literal["paragraphs", "lines", "file"] = Field(
        default="paragraphs", description="What ends a text: a blank line, every line, or only the end of the file."
    )
    members: str | None = Field(
        default=None, description="Shell pattern of the files in an archive or a folder; else the .txt and .md files."
    )
    tag_separator: str | None = Field(
        default=None, min_length=1, description="What parts each token from its tag, which is dropped, as in the/at."
    )
    fallback_encoding: str | None = Field(default=None, description="The encoding of lines that are not UTF-8.")
    markup: bool = Field(default=False, description="Whether tags such as <br /> and entities are turned into text.")


def read(path: str | Path, options: Options) -> Iterator[PlainExample]:
    """Yields the passages in order, with every run of blanks as one; holds one paragraph at a time.

    Raises:
        DataError: No such file or folder, no text in it, or bytes that are not text in `encoding`.
    """
    return require_some(_passages(path, options), path, what=f"text of {options.min_words} words or more")


def cut_text(text: str, options: Passages) -> Iterator[PlainExample]:
    """Cuts a text into passages of at most `max_words` words, as many whole sentences as fit; drops short ones."""
    plain = " ".join(text.split())
    held: list[str] = []
    for start, end in split_sentences(plain, [], options.max_words):
        words = plain[start:end].split()
        if held and len(held) + len(words) > options.max_words:
            yield from _passage(held, options)
            held = []
        held += words
    yield from _passage(held, options)


def _passage(words: list[str], options: Passages) -> Iterator[PlainExample]:
    if len(words) >= options.min_words:
        yield PlainExample(" ".join(words))


def _passages(path: str | Path, options: Options) -> Iterator[PlainExample]:
    for where, lines in _files(Path(path), options):
        for block in _blocks(_decoded(lines, where, options), options.split):
            yield from cut_text(_plain(block, options), options)


def _files(path: Path, options: Options) -> Iterator[tuple[str, Iterator[tuple[int, str]]]]:
    # Latin-1 keeps every byte, so that each line can be decoded by itself.
    encoding = "latin-1" if options.fallback_encoding else options.encoding
    if path.is_dir():
        for file in _folder(path, options.members):
            yield str(file), read_lines(file, encoding=encoding)
    elif path.name.lower().endswith(_ARCHIVES) and options.member is None:
        for name, lines in read_member_lines(path, options.members or "*.txt", encoding=encoding):
            yield f"{path}!{name}", lines
    else:
        yield str(path), read_lines(path, member=options.member, encoding=encoding)


def _folder(path: Path, pattern: str | None) -> list[Path]:
    files = []
    for file in sorted(path.rglob("*")):
        name = file.relative_to(path).as_posix()
        fits = fnmatch.fnmatchcase(name, pattern) if pattern else file.suffix.lower() in TEXT_FILES
        if fits and file.is_file() and not any(part.startswith(".") for part in Path(name).parts):
            files.append(file)
    if not files:
        raise DataError(
            f"no file in the folder {f'matches {pattern!r}' if pattern else 'is text'}",
            path=path,
            expected="files that match `members`" if pattern else f"files with the ending {' or '.join(TEXT_FILES)}",
            todo="Name the folder of the texts",
        )
    return files


def _decoded(lines: Iterable[tuple[int, str]], where: str, options: Options) -> Iterator[str]:
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


def _plain(text: str, options: Options) -> str:
    if options.markup:
        text = html.unescape(_MARKUP.sub(" ", text))
    if options.tag_separator is None:
        return text
    tokens = (token.rpartition(options.tag_separator)[0] or token for token in text.split())
    return " ".join('"' if token in ("``", "''") else token for token in tokens)
