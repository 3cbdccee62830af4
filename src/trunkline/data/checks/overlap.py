"""Which texts are the same: exactly, after normalisation, or nearly (MinHash, verified by exact Jaccard similarity)."""

from __future__ import annotations

import re
import unicodedata
from array import array
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from operator import itemgetter
from typing import Any, Literal, TypeVar

from trunkline.errors import TrunklineError

MatchKind = Literal["exact", "normalised", "near"]

SHINGLE = 5
"""Characters of a shingle.

Measured on eight public sets, test against train: pairs of words miss misspelt and joined words (3 of the 7 duplicates
among subj's 1998 test sentences), single words do not see order, and of 3, 4 and 5 characters the longest reports the
fewest requests that share a template and differ in a value (snips 16, 13, 9), which are no leaks, without losing one of
those 7, and has the fewest candidates to verify.
"""

PERMUTATIONS = 96
BATCH = 1_000_000
"""Characters of the texts whose shingles are in memory at a time."""

_RECALL = 0.99
_SEED = 1
_ASCII_WORD = re.compile(r"[a-z0-9]+")
_SPACED = re.compile(r"(?<!\d) | (?!\d)")
_CJK = re.compile(r"[\u3040-\u30ff\u3400-\u9fff]")

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Match:
    """A text of the index that a text is the same as.

    `owner` is who brought it in first, `similarity` the Jaccard similarity of the shingles (1 if exact or normalised),
    `text` the text in the index.
    """

    owner: str
    kind: MatchKind
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
        if _CJK.match(character):
            kept.append(f" {character} ")
        elif character.isalnum():
            kept.append(character)
        else:
            joins = unicodedata.category(character) in ("Mn", "Mc") and kept and kept[-1].isalnum()
            kept.append(character if joins and not "\ufe00" <= character <= "\ufe0f" else " ")
    return " ".join("".join(kept).split())


def match_key(normalised: str) -> str:
    """What two normalised texts must share to count as the same: all but blanks, so that `top-up` equals `topup`.

    A blank between two digits stays: `1 23` is not `12 3`.
    """
    return _SPACED.sub("", normalised)


def word_count(normalised: str) -> int:
    """Words of a normalised text."""
    return normalised.count(" ") + 1 if normalised else 0


def shingles(normalised: str) -> list[str]:
    """The stretches of `SHINGLE` characters of a normalised text, blanks included; a shorter text is one shingle."""
    return [normalised[i : i + SHINGLE] for i in range(max(1, len(normalised) - SHINGLE + 1))]


def jaccard(left: set[str], right: set[str]) -> float:
    """Size of the intersection over size of the union; at least one set must have an element."""
    shared = len(left & right)
    return shared / (len(left) + len(right) - shared)


def batch_texts(items: Iterable[T], text_of: Callable[[T], str]) -> Iterator[list[T]]:
    """Yields the items in lists whose texts have about `BATCH` characters together."""
    batch: list[T] = []
    characters = 0
    for item in items:
        batch.append(item)
        characters += len(text_of(item))
        if characters >= BATCH:
            yield batch
            batch, characters = [], 0
    if batch:
        yield batch


class OverlapIndex:
    """Texts by which other texts are looked up.

    Near-duplicates are found as in Broder (On the resemblance and containment of documents, 1997): MinHash signatures
    in bands give candidates, of which those are kept whose exact similarity reaches the threshold. So no wrong match is
    reported; a true one at the threshold is missed with a probability below 1 %.

    Args:
        threshold: The Jaccard similarity of shingles from which texts are near-duplicates, in (0, 1].
        min_words: Texts with fewer words match only exactly or normalised.

    Raises:
        TrunklineError: A threshold out of range, or rensa is not installed.
    """

    def __init__(self, threshold: float = 0.8, min_words: int = 5) -> None:
        if not 0 < threshold <= 1:
            raise TrunklineError(f"the threshold is {threshold}", expected="a number above 0, up to 1")
        self.threshold = threshold
        self.min_words = min_words
        self.owners: dict[str, int] = {}
        """Owner -> number of its texts that no owner before it had."""
        self._raw: dict[str, int] = {}
        self._keys: dict[str, int] = {}
        self._texts: list[str] = []
        self._owner: list[str] = []
        self._near: list[int] = []
        self._shapes: list[str] = []
        self._sizes = array("L")
        self._rensa = _load_rensa()
        self._lsh: Any = self._rensa.RMinHashLSH(threshold, PERMUTATIONS, count_bands(threshold))

    @classmethod
    def build(cls, named_texts: Iterable[tuple[str, str]], threshold: float = 0.8, min_words: int = 5) -> OverlapIndex:
        """Indexes (owner, text) pairs, such as ("wnut17@test", "..."), in batches."""
        index = cls(threshold, min_words)
        index.add(named_texts)
        return index

    def add(self, named_texts: Iterable[tuple[str, str]]) -> None:
        """Indexes more (owner, text) pairs."""
        for batch in batch_texts(named_texts, itemgetter(1)):
            self._add(batch)

    def __len__(self) -> int:
        return len(self._texts)

    def find(self, texts: Sequence[str], *, min_exact_words: int = 0, near: bool = True) -> list[Match | None]:
        """Looks texts up; the best match of each, or None.

        Args:
            texts: Any number.
            min_exact_words: Texts with fewer words match nothing: `yes please` in a dialogue is no leak.
            near: Whether to look for near-duplicates.
        """
        found: list[Match | None] = []
        for batch in batch_texts(texts, str):
            found.extend(self._find(batch, min_exact_words, near))
        return found

    def _add(self, batch: list[tuple[str, str]]) -> None:
        rows = []
        for owner, text in batch:
            raw = text.strip()
            if raw in self._raw:
                continue
            shape = normalise(raw)
            key = match_key(shape)
            entry = self._keys.get(key) if key else None
            if entry is None:
                entry = len(self._texts)
                self._texts.append(raw)
                self._owner.append(owner)
                self.owners[owner] = self.owners.get(owner, 0) + 1
                if key:
                    self._keys[key] = entry
                if word_count(shape) >= self.min_words:
                    pieces = shingles(shape)
                    self._near.append(entry)
                    self._shapes.append(shape)
                    self._sizes.append(len(set(pieces)))
                    rows.append(pieces)
            self._raw[raw] = entry
        if rows:
            matrix = self._rensa.RMinHash.digest_matrix_from_token_sets(rows, PERMUTATIONS, _SEED)
            self._lsh.insert_matrix(matrix, len(self._near) - len(rows))

    def _find(self, texts: list[str], min_exact_words: int, near: bool) -> list[Match | None]:
        found: list[Match | None] = []
        waiting: dict[str, list[int]] = {}
        for position, text in enumerate(texts):
            raw = text.strip()
            shape = normalise(raw)
            words = word_count(shape)
            match = None
            if words >= min_exact_words:
                match = self._same(raw, match_key(shape))
                if match is None and near and words >= self.min_words:
                    waiting.setdefault(shape, []).append(position)
            found.append(match)
        if waiting and self._near:
            for shape, match in self._search(list(waiting)).items():
                for position in waiting[shape]:
                    found[position] = match
        return found

    def _same(self, raw: str, key: str) -> Match | None:
        kind: MatchKind = "exact"
        entry = self._raw.get(raw)
        if entry is None and key:
            kind = "normalised"
            entry = self._keys.get(key)
        return None if entry is None else Match(self._owner[entry], kind, 1.0, self._texts[entry])

    def _search(self, shapes: list[str]) -> dict[str, Match]:
        rows = [shingles(shape) for shape in shapes]
        sketches = self._rensa.RMinHash.from_token_sets(rows, PERMUTATIONS, _SEED)
        found, known = {}, {}
        for shape, row, candidates in zip(shapes, rows, self._lsh.query_all(sketches), strict=True):
            own = set(row)
            best, best_row = 0.0, -1
            for candidate in sorted(candidates):
                small, large = sorted((len(own), self._sizes[candidate]))
                if small < self.threshold * large - 1e-9 or small <= best * large:
                    continue
                if candidate not in known:
                    known[candidate] = set(shingles(self._shapes[candidate]))
                similarity = jaccard(own, known[candidate])
                if similarity >= self.threshold and similarity > best:
                    best, best_row = similarity, candidate
            if best_row >= 0:
                entry = self._near[best_row]
                found[shape] = Match(self._owner[entry], "near", best, self._texts[entry])
        return found


def count_bands(threshold: float) -> int:
    """The fewest bands, out of the divisors of `PERMUTATIONS`, that find a pair at the threshold with 99 %.

    A pair of similarity s shares at least one of b bands of r values with the probability 1 - (1 - s^r)^b (Leskovec,
    Rajaraman, Ullman: Mining of Massive Datasets, section 3.4).
    """
    for rows in (96, 48, 32, 24, 16, 12, 8, 6, 4, 3, 2):
        bands = PERMUTATIONS // rows
        if 1 - (1 - threshold**rows) ** bands >= _RECALL:
            return bands
    return PERMUTATIONS


def _load_rensa() -> Any:
    try:
        import rensa
    except ImportError:
        raise TrunklineError(
            "the package rensa is not installed", expected="it for near-duplicates", todo="Run `pip install rensa`"
        ) from None
    return rensa
