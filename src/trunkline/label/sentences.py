"""What all methods of labelling share: sentences of raw text, word borders, and names of concepts."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Iterator

from trunkline.text.sentences import split_sentences
from trunkline.text.words import char_classes, split_words

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
        plain = " ".join(passage.split())
        for start, end in split_sentences(plain, [], max_words):
            sentence = plain[start:end]
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
