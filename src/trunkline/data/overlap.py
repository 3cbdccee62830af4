"""Which texts are the same: exactly, after normalisation, or nearly; and taking them out of pre-finetuning data."""

from __future__ import annotations

import math
import re
import unicodedata
from collections import Counter, defaultdict
from collections.abc import Iterable
from itertools import chain, repeat
from typing import NamedTuple

import numpy as np

from trunkline.text.examples import Example, PairExample, QaExample

SHINGLE = 5
"""Characters of a shingle. On eight public sets pairs of words missed misspelt and joined words, and shorter shingles
reported more requests that share a template and differ in a value, which are no leaks."""

MIN_WORDS = 3
"""Texts with fewer words are not taken for leaks: every corpus of dialogue has `yes please`."""

CONTROL = re.compile("[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f]")
"""Control characters other than tab and line end; those from U+0080 are Windows-1252 read as Latin-1."""

_SHARED, _SAMPLE_LENGTH = 12, 160
_ASCII_WORD = re.compile(r"[a-z0-9]+")
_SPACED = re.compile(r"(?<!\d) | (?!\d)")
_CJK = re.compile(r"[\u3040-\u30ff\u3400-\u9fff]")
_SENTENCE = re.compile(r"(?<=[.!?])\s+|\n+")


class Match(NamedTuple):
    """The `text` of an index that a text is the same as, who brought it in first, and the similarity of shingles.

    `kind` is `exact`, `normalised` or `near`.
    """

    owner: str
    kind: str
    similarity: float
    text: str


def normalise(text: str) -> str:
    """The words of a text without case, punctuation and typography.

    Unicode NFKC, lower case, only letters (with their combining marks) and digits, single blanks between words. Chinese
    and Japanese characters count as words, because those scripts have no blanks.
    """
    if text.isascii():
        return " ".join(_ASCII_WORD.findall(text.lower()))
    kept: list[str] = []
    for character in unicodedata.normalize("NFKC", text).lower():
        if character.isalnum():
            kept.append(f" {character} " if _CJK.match(character) else character)
        else:
            joins = unicodedata.category(character) in ("Mn", "Mc") and kept and kept[-1].isalnum()
            kept.append(character if joins and not "\ufe00" <= character <= "\ufe0f" else " ")
    return " ".join("".join(kept).split())


def match_key(normalised: str) -> str:
    """What two normalised texts must share to count as the same: all but blanks that are not between two digits."""
    return _SPACED.sub("", normalised)


def text_key(text: str) -> str:
    """`match_key` of a raw text, or the text itself if it has no letter or digit."""
    return match_key(normalise(text)) or text.strip()


def shingles(normalised: str) -> set[str]:
    """The stretches of `SHINGLE` characters of a normalised text, blanks included; a shorter text is one shingle."""
    return {normalised[i : i + SHINGLE] for i in range(max(1, len(normalised) - SHINGLE + 1))}


def jaccard(left: set[str], right: set[str]) -> float:
    """Size of the intersection over size of the union; at least one set must have an element."""
    shared = len(left & right)
    return shared / (len(left) + len(right) - shared)


class OverlapIndex:
    """Texts of owners, such as ("wnut17@test", "..."), by which other texts are looked up.

    Those of fewer than `min_words` words match only exactly or normalised. Near-duplicates are all others whose sets of
    shingles have a Jaccard similarity of `threshold` or more, which is above 0. Two such sets share `_SHARED` shingles
    among the first of each, rare ones first, so that only those need an index (prefix filtering; Wang, Li, Feng, Can we
    beat the prefix filtering?, 2012).
    """

    def __init__(self, named_texts: Iterable[tuple[str, str]] = (), threshold: float = 0.8, min_words: int = 5) -> None:
        self.threshold, self.min_words = threshold, min_words
        self._raw: set[str] = set()
        self._first: dict[str, tuple[str, str]] = {}  # key -> owner and text that were the first to have it
        self._shapes: list[str] = []  # the normalised texts that may be near others
        self._ranks: dict[str, int] = {}  # of shingles, rare ones first; made with `_prefixed` when they are needed
        self._prefixed: dict[int, np.ndarray] = {}  # rank -> positions of the shapes that have it among their first
        self.add(named_texts)

    def add(self, named_texts: Iterable[tuple[str, str]]) -> None:
        """Indexes more (owner, text) pairs."""
        self._ranks = {}
        for owner, text in named_texts:
            raw, shape = text.strip(), normalise(text)
            key = match_key(shape) or raw
            self._raw.add(raw)
            if key not in self._first:
                self._first[key] = owner, raw
                self._shapes += [shape] if len(shape.split()) >= self.min_words else []

    def find(self, text: str, *, min_exact_words: int = 0, near: bool = True) -> Match | None:
        """The best match of a text. One with fewer than `min_exact_words` words has none; `near` ones are optional."""
        raw, shape = text.strip(), normalise(text)
        words = len(shape.split())
        if words < min_exact_words:
            return None
        if first := self._first.get(match_key(shape) or raw):
            return Match(first[0], "exact" if raw in self._raw else "normalised", 1.0, first[1])
        return self._nearest(shingles(shape)) if near and words >= self.min_words else None

    def _nearest(self, own: set[str]) -> Match | None:
        if not self._ranks:
            counts = Counter(chain.from_iterable(map(shingles, self._shapes)))
            self._ranks = {shingle: rank for rank, (shingle, _) in enumerate(reversed(counts.most_common()))}
            prefixed: defaultdict[int, list[int]] = defaultdict(list)
            for position, shape in enumerate(self._shapes):
                for rank in self._prefix(shingles(shape))[0]:
                    prefixed[rank].append(position)
            self._prefixed = {rank: np.array(positions) for rank, positions in prefixed.items()}
        ranks, least = self._prefix(own)
        lists = [self._prefixed[rank] for rank in ranks if rank in self._prefixed]
        positions = np.flatnonzero(np.bincount(np.concatenate(lists)) >= least).tolist() if lists else []
        rated = [(jaccard(own, shingles(self._shapes[position])), -position) for position in positions]
        similarity, position = max(rated, default=(0.0, 0))
        if similarity < self.threshold:
            return None
        owner, text = self._first[match_key(self._shapes[-position])]
        return Match(owner, "near", similarity, text)

    def _prefix(self, found: set[str]) -> tuple[list[int], int]:
        """The ranks of the first shingles of a set, -1 for those of no text, and how many another set has to share."""
        overlap = math.ceil(self.threshold * len(found) - 1e-9)
        ranks = sorted(map(self._ranks.get, found, repeat(-1)))
        return ranks[: len(found) - overlap + _SHARED], min(_SHARED, overlap)


def example_texts(example: Example) -> tuple[str, ...]:
    """The texts of an example: two for a pair and for a question with its context, else one."""
    if isinstance(example, QaExample):
        return example.question, example.context
    return (example.left, example.right) if isinstance(example, PairExample) else (example.text,)


def show_text(text: str) -> str:
    """A text as a sample: one line without control characters, of at most 160 characters."""
    line = CONTROL.sub(lambda match: f"\\x{ord(match[0]):02x}", " ".join(text.split()))
    return line if len(line) <= _SAMPLE_LENGTH else f"{line[: _SAMPLE_LENGTH - 3]}..."


def decontaminate(examples: Iterable[Example], index: OverlapIndex) -> tuple[list[int], Counter[str], Counter[str]]:
    """The positions of the examples that touch no text of the index, and how many do by kind of match and by owner.

    An example touches it if one of its texts (either side of a pair) is in the index exactly, normalised or nearly, or
    if one sentence of a text of several is, exactly or normalised and with at least `index.min_words` words; that kind
    is `contained`. Texts with fewer than `MIN_WORDS` words touch nothing.
    """
    matches = [_touched(example_texts(example), index) for example in examples]
    found = [match for match in matches if match]
    kept = [position for position, match in enumerate(matches) if match is None]
    return kept, Counter(match.kind for match in found), Counter(match.owner for match in found)


def _touched(texts: Iterable[str], index: OverlapIndex) -> Match | None:
    for text in texts:
        if match := index.find(text, min_exact_words=MIN_WORDS):
            return match
    for part in (part for text in texts for part in _SENTENCE.split(text)):
        if match := index.find(part, min_exact_words=max(MIN_WORDS, index.min_words), near=False):
            return match._replace(kind="contained")
    return None
