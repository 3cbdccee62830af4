"""Typed gazetteers, found by longest match over words; sentences, word borders and names of concepts."""

from __future__ import annotations

import re
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path

from trunkline.data.values import shorten
from trunkline.errors import DataError
from trunkline.label.files import read_columns
from trunkline.text.examples import Span
from trunkline.text.words import char_classes, split_sentences, split_words

MAX_CONCEPT_WORDS = 6

# What joins words to a longer one that no blank divides; a possessive `'s` does not.
_JOINED_BEFORE = re.compile(r"(?:\w|\w['’\-‐‑&@])$")
_JOINED_AFTER = re.compile(r"\w|(?!['’][sS](?![\w'’-]))['’\-‐‑&@]\w")
_AS = {ord("u"): " ", ord("m"): "x", ord("j"): "x"}  # unspaced characters, marks and joiners, for those patterns


def iterate_sentences(passages: Iterable[str], max_words: int, skipped: Counter[str]) -> Iterator[str]:
    """The sentences of passages, with every run of blanks as one; those of more than `max_words` are cut.

    `skipped` counts what is left out: `no letter`, and `damaged` for lone surrogates, which no UTF-8 file can hold.
    """
    for passage in passages:
        for sentence in split_sentences(passage, max_words):
            if not any(map(str.isalpha, sentence)):
                skipped["no letter"] += 1
            elif any("\ud800" <= character <= "\udfff" for character in sentence):
                skipped["damaged"] += 1
            else:
                yield sentence


def is_whole(text: str, start: int, end: int) -> bool:
    """Whether a stretch between borders of words neither begins nor ends inside a longer one.

    Letters, digits and underscores go on with a word, and so does what a hyphen, an apostrophe, `&` or `@` joins to it
    without a blank. Scripts that put no blanks between words have no longer ones.
    """
    begin = max(start - 2, 0)
    near = text[begin : end + 3]
    if not near.isascii():
        near = "".join(_AS.get(kind, character) for kind, character in zip(char_classes(near), near, strict=True))
    before, inner, after = near[: start - begin], near[start - begin : end - begin], near[end - begin :]
    opens_inside = inner[0].isalnum() and _JOINED_BEFORE.search(before)
    return not opens_inside and not (inner[-1].isalnum() and _JOINED_AFTER.match(after))


def normalise_type(name: str) -> str:
    """A concept's name in lower case with single blanks for `_`, `-` and `/`, or nothing where it is no name.

    No name is: without a letter, shorter than two characters, or longer than `MAX_CONCEPT_WORDS` words.
    """
    words = re.sub(r"[_\-/\s]+", " ", name.lower()).split()
    joined = " ".join(words).strip(" .,:;!?\"'“”‘’()[]{}<>*#`")
    is_name = 2 <= len(joined) <= 80 and len(words) <= MAX_CONCEPT_WORDS and any(map(str.isalpha, joined))
    return joined if is_name and joined.isprintable() else ""


class SurfaceIndex:
    """Finds surfaces (with their concepts) in sentences as whole words, the longest first.

    A surface with an upper-case letter is matched as it is, another one in any case. Blanks count between letters and
    digits only, so that `Johnny's` is found in the tokenised `Johnny 's`.
    """

    def __init__(self, concepts: Mapping[str, tuple[str, ...]]) -> None:
        self._names: dict[tuple[str, ...], tuple[str, ...]] = {}
        self._most: dict[str, int] = {}  # words of the longest surface by its first word
        for surface, names in concepts.items():
            if keys := tuple(word_keys(surface)[0]):
                self._names[keys] = tuple(dict.fromkeys((*self._names.get(keys, ()), *names)))
                self._most[keys[0]] = max(self._most.get(keys[0], 0), len(keys))

    def find(self, text: str) -> list[Span]:
        """The spans of a sentence; one with several concepts comes once for each."""
        keys, words = word_keys(text)
        rows = keys, [key.lower() for key in keys]
        spans: list[Span] = []
        first = 0
        while first < len(keys):
            last = min(first + max(self._most.get(row[first], 0) for row in rows), len(keys))
            tried = (
                (end, self._names.get(tuple(row[first:end]), ())) for end in range(last, first, -1) for row in rows
            )
            start = words[first][0]
            found = ((end, names) for end, names in tried if names and is_whole(text, start, words[end - 1][1]))
            end, names = next(found, (first + 1, ()))
            spans += (Span(start, words[end - 1][1], name) for name in names)
            first = end
        return spans


def word_keys(text: str) -> tuple[list[str], tuple[tuple[int, int], ...]]:
    """The words of a text with their offsets; a `+` goes before one that is glued to letters or digits (`A4`)."""
    words, kinds = split_words(text), char_classes(text)
    keys: list[str] = []
    before = -1  # where letters or digits end
    for start, end in words:
        joins = kinds[start] in b"ld"
        keys.append(f"{'+' if joins and start == before else ''}{text[start:end]}")
        before = end if joins else -1
    return keys, words


def find_all(text: str, surface: str) -> list[tuple[int, int]]:
    """Every place where a surface stands in a text as it is and as whole words, without overlap."""
    spans = SurfaceIndex({surface: ("",)}).find(text)
    return [(span.start, span.end) for span in spans if text[span.start : span.end] == surface]


def read_gazetteer(path: Path) -> dict[str, tuple[str, ...]]:
    """The concepts of each surface of a table with these two columns, in the order of the file."""
    concepts: dict[str, dict[str, None]] = defaultdict(dict)
    for _, line, (given, named) in read_columns([path], ("surface", "concept")):
        surface, concept = " ".join(given.split()), normalise_type(named)
        if not split_words(surface) or not concept:
            raise DataError(
                f"the surface {shorten(given)} with the concept {shorten(named)}",
                path=path,
                line=line,
                expected="a surface, and a concept that is a name",
            )
        concepts[surface][concept] = None
    if not concepts:
        raise DataError("the file is empty", path=path, expected="rows of surface and concept")
    return {surface: tuple(names) for surface, names in concepts.items()}
