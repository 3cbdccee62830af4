"""Words and sentences of a raw text: words by one rule for all scripts, on a table that no platform's version changes.

Every code point has a class: letter `l`, digit or other numeral `d`, combining mark `m`, joiner `j` (zero-width
characters that belong to what stands before them), `u` for scripts that put no blanks between words (Han, kana, Thai,
Lao, Khmer, Myanmar and their like), `-` for what is never part of a word (blanks, control, format and bidirectional
characters), and `s` for all others, symbols and punctuation. With the classes of its characters in place of a text, its
words are the matches of the table's `pattern`: a run of letters or of digits, or one other character, each with the
marks and joiners behind it. So composed and decomposed text (NFC and NFD) has the same words.

The table is data, `words.json`, which other languages can read: `version`, `unicode` (the version it was made of),
`pattern`, `classes`, the first and last code point of each range, and `upper`, the ranges of upper-case letters.
"""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Iterator, Sequence
from functools import cache
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

EXTENDING = b"mj"
"""The classes of characters that belong to the one before them."""

SIGNS = (".,;:!?", "-\N{EN DASH}/", "()[]\"'")

SHAPE = (
    *("title", "capitals", "capital", "mixed", "small", "digit", "two digits", "four digits", "other digits"),
    *("stop", "dash", "bracket", "sign", "two letters", "three letters", "eight letters", "first", "last"),
    *("no blank before", "no blank behind"),
)
"""What `unit_shapes` says of a unit; the signs of `SIGNS` are stops, dashes, and brackets or quotes."""

_MOST_SIGN = 1 + max(map(ord, "".join(SIGNS)))
_ZERO, _BEFORE = np.asarray([0]), np.asarray([-1])

SENTENCE_END = re.compile(r"(?<=[.!?])[\"'”’)\]]*\s+(?=[\"'“‘(\[]*[^\W_a-z])")


def split_words(text: str) -> tuple[tuple[int, int], ...]:
    """Character offsets of the words of a raw text, in order and without overlap.

    Runs of letters, runs of digits and single symbols are words, so that `7pm` or `€5` can be split by an entity
    boundary; of scripts without blanks each character is one, with its marks. Every character that is not ignored is in
    one word, but for a joiner that stands behind nothing.
    """
    return tuple(match.span() for match in _rule()[0].finditer(char_classes(text)))


def char_classes(text: str) -> bytes:
    """The class letter of each character of a text."""
    return _rule()[1][_codes(text)].tobytes()


def unit_shapes(text: str, units: Sequence[tuple[int, int]]) -> npt.NDArray[np.float32]:
    """[units, 3 * shapes] what a lower-cased vocabulary hides of words, or of pieces: 0 or 1, see `SHAPE`.

    First of the unit, then of the one before it and of the one behind it, where there are any.
    """
    codes, (_, table, upper) = _codes(text), _rule()
    begin, end = np.asarray(units, np.int64).reshape(-1, 2).T
    classes, leading = table[codes], codes[begin]
    large = _counts(upper[codes], begin, end)
    size = _counts((classes != ord("m")) & (classes != ord("j")), begin, end)
    first, title, one = classes[begin], upper[leading] & (large == 1), size == 1
    letters, digits = (first == ord("l")) | (first == ord("u")), first == ord("d")
    signs = np.where(end == begin + 1, _signs()[np.minimum(leading, _MOST_SIGN)], -1)
    all_large, other = (large == size) & ~one, (size != 1) & (size != 2) & (size != 4)
    found = np.zeros((len(SHAPE), len(begin) + 2), np.float32)
    found[:, 1:-1] = (
        *(title & ~one, all_large, title & one, (large > 0) & (large < size) & ~title, letters & (large == 0)),
        *(digits & one, digits & (size == 2), digits & (size == 4), digits & other),
        *(signs == 0, signs == 1, signs == 2, ~letters & ~digits),
        *(letters & (size <= 2), letters & (size == 3), letters & (size >= 8)),
        *(begin == begin[:1], begin == begin[-1:]),
        *(
            begin == np.concatenate([_BEFORE, end[:-1]])[: len(end)],
            end == np.concatenate([begin[1:], _BEFORE])[: len(end)],
        ),
    )
    return np.concatenate([found[:, 1:-1], found[:, :-2], found[:, 2:]]).T


def _counts(flags: npt.NDArray[np.bool_], begin: npt.NDArray[np.int64], end: npt.NDArray[np.int64]) -> npt.NDArray[Any]:
    """How many of the flags of a text's characters are set in each unit."""
    sums = np.concatenate([_ZERO, np.cumsum(flags)])
    return sums[end] - sums[begin]


@cache
def _signs() -> npt.NDArray[np.int64]:
    """The group of `SIGNS` of each code point up to `_MOST_SIGN`, -1 for none."""
    found = np.full(_MOST_SIGN + 1, -1)
    for number, group in enumerate(SIGNS):
        found[[ord(sign) for sign in group]] = number
    return found


def _codes(text: str) -> npt.NDArray[np.uint32]:
    return np.frombuffer(text.encode("utf-32-le", "surrogatepass"), np.uint32)


@cache
def _rule() -> tuple[re.Pattern[bytes], npt.NDArray[np.uint8], npt.NDArray[np.bool_]]:
    """Words of class letters, the class of every code point, and whether it is an upper-case letter."""
    table = json.loads(Path(__file__).with_name("words.json").read_bytes())
    classes = np.full(sys.maxunicode + 1, ord("s"), np.uint8)
    for name, borders in table["classes"].items():
        for first, last in zip(borders[::2], borders[1::2], strict=True):
            classes[first : last + 1] = ord(name)
    upper = np.zeros(sys.maxunicode + 1, bool)
    for first, last in zip(table["upper"][::2], table["upper"][1::2], strict=True):
        upper[first : last + 1] = True
    return re.compile(table["pattern"].encode()), classes, upper


def split_sentences(text: str, max_words: int) -> Iterator[str]:
    """Yields the sentences of a text, with every run of blanks as one; longer ones are cut behind `max_words` words.

    A sentence ends after `.`, `!` or `?` before a blank and an upper-case letter or digit. This also ends one after
    abbreviations, which does no harm here.
    """
    plain = " ".join(text.split())
    for start, end in pairwise([0, *(match.end() for match in SENTENCE_END.finditer(plain)), len(plain)]):
        words = plain[start:end].split()
        for first in range(0, len(words), max_words):
            yield " ".join(words[first : first + max_words])
