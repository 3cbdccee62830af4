"""Which texts are the same: exactly, after normalisation, or nearly (MinHash, verified by exact Jaccard similarity)."""

from __future__ import annotations

import re
import unicodedata
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Iterator, Sequence
from operator import itemgetter
from typing import Any, Literal, NamedTuple, TypeVar

import numpy as np
import numpy.typing as npt

from trunkline.errors import TrunklineError

SHINGLE = 5
"""Characters of a shingle. On eight public sets pairs of words missed misspelt and joined words, and shorter shingles
reported more requests that share a template and differ in a value, which are no leaks."""

PERMUTATIONS = 96
BATCH = 1_000_000
"""Characters of the texts whose shingles are in memory at a time."""

_ASCII_WORD = re.compile(r"[a-z0-9]+")
_SPACED = re.compile(r"(?<!\d) | (?!\d)")
_CJK = re.compile(r"[\u3040-\u30ff\u3400-\u9fff]")
_DRAW = np.random.default_rng(1)
_ODD: npt.NDArray[np.uint64] = _DRAW.integers(0, 2**63, PERMUTATIONS, dtype=np.uint64) * np.uint64(2) + np.uint64(1)
_SHIFT: npt.NDArray[np.uint64] = _DRAW.integers(0, 2**63, PERMUTATIONS, dtype=np.uint64)

T = TypeVar("T")


class Match(NamedTuple):
    """The `text` of an index that a text is the same as, who brought it in first, and the similarity of shingles."""

    owner: str
    kind: Literal["exact", "normalised", "near"]
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

    Attributes:
        owners: Owner -> number of its texts that no owner before it had.

    Raises:
        TrunklineError: A threshold out of range.
    """

    def __init__(self, threshold: float = 0.8, min_words: int = 5) -> None:
        if not 0 < threshold <= 1:
            raise TrunklineError(f"the threshold is {threshold}", expected="a number above 0, up to 1")
        self.threshold, self.min_words = threshold, min_words
        self.owners: Counter[str] = Counter()
        self._raw: dict[str, int] = {}
        self._keys: dict[str, int] = {}
        self._texts: list[tuple[str, str]] = []
        self._shapes: dict[int, str] = {}
        self._bands: list[defaultdict[int, list[int]]] = [defaultdict(list) for _ in range(count_bands(threshold))]

    @classmethod
    def build(cls, named_texts: Iterable[tuple[str, str]], threshold: float = 0.8, min_words: int = 5) -> OverlapIndex:
        """Indexes (owner, text) pairs, such as ("wnut17@test", "..."), in batches."""
        index = cls(threshold, min_words)
        index.add(named_texts)
        return index

    def __len__(self) -> int:
        return len(self._texts)

    def add(self, named_texts: Iterable[tuple[str, str]]) -> None:
        """Indexes more (owner, text) pairs."""
        for batch in batch_texts(named_texts, itemgetter(1)):
            shapes: dict[int, str] = {}
            for owner, text in batch:
                raw = text.strip()
                shape = normalise(raw)
                entry = self._raw.setdefault(raw, self._keys.setdefault(match_key(shape) or raw, len(self)))
                if entry == len(self):
                    self._texts.append((owner, raw))
                    self.owners[owner] += 1
                    if len(shape.split()) >= self.min_words:
                        shapes[entry] = shape
            for band, keys in zip(self._bands, self._band_keys(list(shapes.values())), strict=True):
                for entry, number in zip(shapes, keys, strict=True):
                    band[number].append(entry)
            self._shapes |= shapes

    def find(self, texts: Sequence[str], *, min_exact_words: int = 0, near: bool = True) -> list[Match | None]:
        """Looks texts up; the best match of each, or None.

        Args:
            texts: Any number.
            min_exact_words: Texts with fewer words match nothing: `yes please` in a dialogue is no leak.
            near: Whether to look for near-duplicates.
        """
        found: list[Match | None] = []
        for batch in batch_texts(texts, str):
            waiting: defaultdict[str, list[int]] = defaultdict(list)
            for text in batch:
                raw = text.strip()
                shape = normalise(raw)
                words = len(shape.split())
                entry = (
                    self._raw.get(raw, self._keys.get(match_key(shape) or raw)) if words >= min_exact_words else None
                )
                if near and entry is None and words >= max(self.min_words, min_exact_words):
                    waiting[shape].append(len(found))
                found.append(self._match(entry, "exact" if raw in self._raw else "normalised", 1.0))
            for shape, keys in zip(waiting, zip(*self._band_keys(list(waiting)), strict=True), strict=True):
                match = self._nearest(shape, keys)
                for position in waiting[shape]:
                    found[position] = match
        return found

    def _match(self, entry: int | None, kind: Any, similarity: float) -> Match | None:
        return None if entry is None else Match(self._texts[entry][0], kind, similarity, self._texts[entry][1])

    def _nearest(self, shape: str, keys: Sequence[int]) -> Match | None:
        candidates = {entry for band, key in zip(self._bands, keys, strict=True) for entry in band.get(key, ())}
        own = set(shingles(shape)) if candidates else set()
        rated = [(jaccard(own, set(shingles(self._shapes[entry]))), -entry) for entry in candidates]
        best, entry = max(rated, default=(0.0, 0))
        return self._match(-entry, "near", best) if rated and best >= self.threshold else None

    def _band_keys(self, shapes: list[str]) -> list[list[int]]:
        """For each band one number a text, which two texts share if their signatures agree in the band."""
        rows = PERMUTATIONS // len(self._bands)
        parts = sketch(shapes).reshape(len(self._bands), rows, len(shapes))
        keys: list[list[int]] = (parts * _ODD[:rows, None]).sum(axis=1, dtype=np.uint64).tolist()
        return keys


def sketch(shapes: Sequence[str]) -> npt.NDArray[Any]:
    """MinHash signatures [PERMUTATIONS, texts] of normalised texts: the least of each permutation of their shingles.

    Permutations are a h + b modulo 2^64 of mixed polynomial hashes h, of which the upper half counts (Dietzfelbinger).
    """
    if not shapes:
        return np.zeros((PERMUTATIONS, 0), np.uint64)
    padded = [shape.ljust(SHINGLE, "\0") for shape in shapes]
    codes = np.frombuffer("".join(padded).encode("utf-32-le", "surrogatepass"), np.uint32).astype(np.uint64)
    sizes = np.array([len(shape) for shape in padded])
    inside = np.ones(len(codes), bool)
    for back in range(1, SHINGLE):
        inside[np.cumsum(sizes) - back] = False  # windows that reach into the next text
    windows = np.lib.stride_tricks.sliding_window_view(codes, SHINGLE)
    hashes = (windows * _ODD[-SHINGLE:]).sum(axis=1, dtype=np.uint64)[inside[: len(windows)]]
    hashes ^= hashes >> np.uint64(31)
    hashes *= np.uint64(0x9E3779B97F4A7C15)
    hashes ^= hashes >> np.uint64(29)
    starts = np.concatenate([[0], np.cumsum(sizes - SHINGLE + 1)[:-1]])
    least = [np.minimum.reduceat((hashes * a + b) >> np.uint64(32), starts) for a, b in zip(_ODD, _SHIFT, strict=True)]
    return np.stack(least)


def count_bands(threshold: float) -> int:
    """The fewest bands, out of the divisors of `PERMUTATIONS`, that find a pair at the threshold with 99 %.

    A pair of similarity s shares at least one of b bands of r values with the probability 1 - (1 - s^r)^b (Leskovec,
    Rajaraman, Ullman: Mining of Massive Datasets, section 3.4).
    """
    fitting = (bands for bands in range(1, PERMUTATIONS) if PERMUTATIONS % bands == 0)
    return next((b for b in fitting if 1 - (1 - threshold ** (PERMUTATIONS // b)) ** b >= 0.99), PERMUTATIONS)
