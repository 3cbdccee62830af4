"""Words and sentences of a raw text: words by one rule for all scripts, on a table that no platform's version changes.

Every code point has a class: letter `l`, digit or other numeral `d`, combining mark `m`, joiner `j` (zero-width
characters that belong to what stands before them), `u` for scripts that put no blanks between words (Han, kana, Thai,
Lao, Khmer, Myanmar and their like), `-` for what is never part of a word (blanks, control, format and bidirectional
characters), and `s` for all others, symbols and punctuation. With the classes of its characters in place of a text, its
words are the matches of the table's `pattern`: a run of letters or of digits, or one other character, each with the
marks and joiners behind it. So composed and decomposed text (NFC and NFD) has the same words.

The table is data, `words.json`, which other languages can read: `version`, `unicode` (the version it was made of),
`pattern`, and `classes`, the first and last code point of each range.
"""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Iterator
from functools import cache
from itertools import pairwise
from pathlib import Path

import numpy as np
import numpy.typing as npt

EXTENDING = b"mj"
"""The classes of characters that belong to the one before them."""

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
    codes = np.frombuffer(text.encode("utf-32-le", "surrogatepass"), np.uint32)
    return _rule()[1][codes].tobytes()


@cache
def _rule() -> tuple[re.Pattern[bytes], npt.NDArray[np.uint8]]:
    """Words of class letters, and the class of every code point."""
    table = json.loads(Path(__file__).with_name("words.json").read_bytes())
    classes = np.full(sys.maxunicode + 1, ord("s"), np.uint8)
    for name, borders in table["classes"].items():
        for first, last in zip(borders[::2], borders[1::2], strict=True):
            classes[first : last + 1] = ord(name)
    return re.compile(table["pattern"].encode()), classes


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
