"""What is no pair to learn from: sides too short, too long or alike, repetitions, and too many of one document."""

from __future__ import annotations

import hashlib
import random
import re
import unicodedata
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from itertools import groupby

from trunkline.label.mining.methods import Candidate
from trunkline.label.mining.options import MinePairsConfig
from trunkline.text.examples import PairExample

# Han, kana, Thai, Lao, Burmese and Khmer are written without blanks between words.
_UNSPACED = re.compile(
    "[\u0e00-\u0eff\u1000-\u109f\u1780-\u17ff\u3040-\u30ff\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff\U00020000-\U0002fa1f]"
)
_NO_WORD = re.compile(r"[\W_]+")


def count_words(text: str) -> int:
    """Words between blanks; each character of a script without blanks counts as one."""
    return len((text if text.isascii() else _UNSPACED.sub(" x ", text)).split())


def normalise(text: str) -> str:
    """What two texts share that differ only in case, punctuation, blanks and compatibility forms."""
    return _NO_WORD.sub(" ", unicodedata.normalize("NFKC", text).casefold()).strip()


def digest(*texts: str) -> int:
    """Eight bytes that tell texts apart (blake2b)."""
    packed = "\0".join(texts).encode("utf-8", "surrogatepass")
    return int.from_bytes(hashlib.blake2b(packed, digest_size=8).digest(), "big")


@dataclass
class Tally:
    """How many candidates there were, and how many were dropped for which reason."""

    candidates: int = 0
    dropped: Counter[str] = field(default_factory=Counter)


def clean(candidates: Iterable[Candidate], config: MinePairsConfig, tally: Tally) -> Iterator[PairExample]:
    """Yields the candidates that are worth learning from, with runs of blanks made one, and tallies the others.

    A pair that recurs in either direction counts once. A hash of every pair is remembered for that.
    """
    sound = _sound(candidates, config, tally)
    kept = _capped(sound, config, tally) if config.max_pairs else sound
    return (PairExample(item.left, item.right, item.group) for item in kept)


def _sound(candidates: Iterable[Candidate], config: MinePairsConfig, tally: Tally) -> Iterator[Candidate]:
    seen: set[int] = set()
    for item in candidates:
        tally.candidates += 1
        left, right = " ".join(item.left.split()), " ".join(item.right.split())
        reason = _fault(left, right, config)
        if not reason:
            sides = normalise(left), normalise(right)
            mark = digest(*sorted(sides))
            reason = "alike" if sides[0] == sides[1] else "repeated" if mark in seen else ""
            seen.add(mark)
        if reason:
            tally.dropped[reason] += 1
        else:
            yield Candidate(item.document, left, right, item.group)


def _fault(left: str, right: str, config: MinePairsConfig) -> str:
    counts = count_words(left), count_words(right)
    if min(counts) == 0:
        return "blank"
    if min(counts) < config.min_words:
        return "too short"
    if max(counts) > config.max_words:
        return "too long"
    try:
        f"{left}{right}".encode()
    except UnicodeEncodeError:
        return "damaged characters"
    return ""


def _capped(candidates: Iterable[Candidate], config: MinePairsConfig, tally: Tally) -> Iterator[Candidate]:
    """At most `max_pairs` of each document; a fair draw where a document's candidates stand together."""
    most = config.max_pairs or 0
    taken: Counter[int] = Counter()
    for number, items in groupby(candidates, key=lambda item: item.document):
        draw = random.Random(f"{config.seed} {number} {taken[number]}")
        room = most - taken[number]
        chosen: list[tuple[int, Candidate]] = []
        position = -1
        for position, item in enumerate(items):
            if len(chosen) < room:
                chosen.append((position, item))
            elif (slot := draw.randrange(position + 1)) < room:
                chosen[slot] = position, item
        taken[number] += len(chosen)
        tally.dropped["over max_pairs"] += position + 1 - len(chosen)
        yield from (item for _, item in sorted(chosen, key=lambda pair: pair[0]))
