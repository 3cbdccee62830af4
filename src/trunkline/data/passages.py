"""Plain text, cut into passages: files of text, folders of `.txt` and `.md` files, and the texts of records."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from pathlib import Path

from trunkline.data.files import data_error, read_lines
from trunkline.text.examples import PlainExample
from trunkline.text.sentences import split_sentences

TEXT_FILES = (".txt", ".md")
MAX_WORDS = 200
"""Words of a passage; longer texts are cut, at sentence ends where there are any."""

_BLOCK_WORDS = 50_000


def read_passages(path: Path) -> Iterator[PlainExample]:
    """Yields the passages of a file, or of the text files of a folder in alphabetical order; a blank line ends a text.

    Raises:
        DataError: No such file or folder, or no text in it.
    """
    files = [path]
    if path.is_dir():
        inside = sorted(file for file in path.rglob("*") if file.suffix.lower() in TEXT_FILES and file.is_file())
        files = [file for file in inside if not any(part.startswith(".") for part in file.relative_to(path).parts)]
    if not files:
        raise data_error(path, None, "no file in the folder is text", f"files that end in {' or '.join(TEXT_FILES)}")
    for file in files:
        for block in _blocks(line for _, line in read_lines(file)):
            yield from cut_text(block)


def cut_text(text: str) -> Iterator[PlainExample]:
    """Cuts a text into passages of as many whole sentences as fit, with every run of blanks as one."""
    plain = " ".join(text.split())
    held: list[str] = []
    for start, end in split_sentences(plain, [], MAX_WORDS):
        words = plain[start:end].split()
        if held and len(held) + len(words) > MAX_WORDS:
            yield PlainExample(" ".join(held))
            held = []
        held += words
    if held:
        yield PlainExample(" ".join(held))


def _blocks(lines: Iterable[str]) -> Iterator[str]:
    """Joins lines up to a blank one, or up to so many words that the memory stays bounded."""
    held: list[str] = []
    words = 0
    for line in lines:
        words += len(line.split())
        if line.strip():
            held.append(line)
        if held and (not line.strip() or words >= _BLOCK_WORDS):
            yield "\n".join(held)
            held, words = [], 0
    if held:
        yield "\n".join(held)
