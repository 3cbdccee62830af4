"""What all ways of weak labelling share: sentences of a raw text, word borders, and names of concepts."""

from __future__ import annotations

import re
import unicodedata
from collections import Counter
from collections.abc import Iterable, Iterator

from trunkline.text.sentences import split_sentences

MAX_CONCEPT_WORDS = 6

_BLANK_LINE = re.compile(r"\n\s*\n")
_JOINERS = "'’-‐‑&@"
_POSSESSIVE = re.compile(r"['’](?:[sS](?![\w'’-])|(?!\w))")


def iterate_sentences(texts: Iterable[str], max_words: int, skipped: Counter[str]) -> Iterator[str]:
    """The sentences of texts, with every run of blanks as one.

    A blank line ends a sentence, too. Longer sentences are cut as in `split_sentences`.

    Args:
        texts: Lines, paragraphs or whole documents.
        max_words: Words after which a sentence is cut.
        skipped: Counts the sentences that are left out: `no letter`, and `damaged` for lone surrogates, which no
            UTF-8 file can hold.
    """
    for text in texts:
        for paragraph in _BLANK_LINE.split(text):
            plain = " ".join(paragraph.split())
            for start, end in split_sentences(plain, [], max_words):
                sentence = plain[start:end]
                problem = _problem(sentence)
                if problem:
                    skipped[problem] += 1
                else:
                    yield sentence


def _problem(sentence: str) -> str:
    if not any(character.isalpha() for character in sentence):
        return "no letter"
    return "damaged" if any("\ud800" <= character <= "\udfff" for character in sentence) else ""


def is_whole(text: str, start: int, end: int) -> bool:
    """Whether a stretch of text neither begins nor ends inside a word.

    Letters, digits, underscores and combining marks go on with a word, and so does what a hyphen, an apostrophe, `&` or
    `@` joins to it without a blank; a possessive `'s` does not.
    """
    if start > 0 and _is_inner(text[start - 1]) and _is_inner(text[start]):
        return False
    if end < len(text) and _is_inner(text[end]) and (_is_inner(text[end - 1]) or _is_mark(text[end])):
        return False
    if start > 1 and text[start - 1] in _JOINERS and _is_inner(text[start - 2]) and _is_inner(text[start]):
        return False
    joined = end + 1 < len(text) and text[end] in _JOINERS and _is_inner(text[end + 1]) and _is_inner(text[end - 1])
    return not joined or _POSSESSIVE.match(text, end) is not None


def _is_inner(character: str) -> bool:
    return character.isalnum() or character == "_" or _is_mark(character)


def _is_mark(character: str) -> bool:
    return unicodedata.category(character).startswith("M")


def find_all(text: str, surface: str) -> list[tuple[int, int]]:
    """Every place where a surface stands in a text as it is and as whole words, without overlap."""
    places, position = [], text.find(surface)
    while position >= 0:
        end = position + len(surface)
        if is_whole(text, position, end):
            places.append((position, end))
            position = text.find(surface, end)
        else:
            position = text.find(surface, position + 1)
    return places


def normalise_type(name: str) -> str:
    """A concept's name in lower case with single blanks for `_`, `-` and `/`, or nothing where it is no name.

    No name is: without a letter, shorter than two characters, or longer than `MAX_CONCEPT_WORDS` words.
    """
    words = re.sub(r"[_\-/\s]+", " ", name.lower()).split()
    joined = " ".join(words).strip(" .,:;!?\"'“”‘’()[]{}<>*#`")
    is_name = 2 <= len(joined) <= 80 and len(words) <= MAX_CONCEPT_WORDS and any(map(str.isalpha, joined))
    return joined if is_name and joined.isprintable() else ""
