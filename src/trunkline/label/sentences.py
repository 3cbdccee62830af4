"""What all methods of labelling share: sentences of raw text, word borders, and names of concepts."""

from __future__ import annotations

import re
import unicodedata
from collections import Counter
from collections.abc import Iterable, Iterator
from itertools import pairwise

from trunkline.text.words import split_words

MAX_CONCEPT_WORDS = 6

_SENTENCE_END = re.compile(r"(?<=[.!?])[\"'”’)\]]*\s+(?=[\"'“‘(\[]*[^\W_a-z])|[。！？][”’」』）]*")
_JOINERS = "'’-‐‑&@"
_POSSESSIVE = re.compile(r"['’](?:[sS](?![\w'’-])|(?!\w))")


def iterate_sentences(passages: Iterable[str], max_words: int, skipped: Counter[str]) -> Iterator[str]:
    """The sentences of passages, with every run of blanks as one.

    Args:
        passages: Lines or paragraphs.
        max_words: Words after which a sentence is cut.
        skipped: Counts the sentences that are left out: `no letter`, and `damaged` for lone surrogates, which no
            UTF-8 file can hold.
    """
    for passage in passages:
        plain = " ".join(passage.split())
        for start, end in split_sentences(plain, max_words):
            sentence = plain[start:end]
            if not any(map(str.isalpha, sentence)):
                skipped["no letter"] += 1
            elif any("\ud800" <= character <= "\udfff" for character in sentence):
                skipped["damaged"] += 1
            else:
                yield sentence


def split_sentences(text: str, max_words: int) -> list[tuple[int, int]]:
    """Character ranges of the sentences, without blanks at their ends.

    A sentence ends after `.`, `!` or `?` before a blank and an upper-case letter or digit, and after the full stops of
    Chinese and Japanese. This also ends one after abbreviations, which does no harm here. Longer ones are cut at the
    last blank that keeps `max_words` words of letters and digits.
    """
    ranges = []
    for start, end in pairwise([0, *(match.end() for match in _SENTENCE_END.finditer(text)), len(text)]):
        begin, count = start, 0
        cut, since = start, 0  # the last blank, and the words behind it
        for first, _ in split_words(text[start:end]):
            position = start + first
            if position and text[position - 1].isspace():
                cut, since = position, 0
            if count >= max_words and cut > begin:
                ranges.append((begin, cut))
                begin, count = cut, since
            is_word = text[position].isalnum()
            count, since = count + is_word, since + is_word
        ranges.append((begin, end))
    trimmed = ((b + len(text[b:e]) - len(text[b:e].lstrip()), b + len(text[b:e].rstrip())) for b, e in ranges)
    return [(begin, end) for begin, end in trimmed if begin < end]


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
    words = split_words(text)
    starts, ends = {start for start, _ in words}, {end for _, end in words}
    places, position = [], text.find(surface)
    while position >= 0:
        end = position + len(surface)
        whole = position in starts and end in ends and is_whole(text, position, end)
        if whole:
            places.append((position, end))
        position = text.find(surface, end if whole else position + 1)
    return places


def normalise_type(name: str) -> str:
    """A concept's name in lower case with single blanks for `_`, `-` and `/`, or nothing where it is no name.

    No name is: without a letter, shorter than two characters, or longer than `MAX_CONCEPT_WORDS` words.
    """
    words = re.sub(r"[_\-/\s]+", " ", name.lower()).split()
    joined = " ".join(words).strip(" .,:;!?\"'“”‘’()[]{}<>*#`")
    is_name = 2 <= len(joined) <= 80 and len(words) <= MAX_CONCEPT_WORDS and any(map(str.isalpha, joined))
    return joined if is_name and joined.isprintable() else ""
