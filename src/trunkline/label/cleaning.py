"""What is no pair to learn from: sides too short, too long or alike, repetitions, and too many of one document."""

from __future__ import annotations

import hashlib
import random
import re
import unicodedata
from collections import Counter
from collections.abc import Iterable, Iterator
from itertools import groupby
from typing import NamedTuple

from trunkline.label.options import PairOptions
from trunkline.text.examples import PairExample
from trunkline.text.words import split_words

_NO_WORD = re.compile(r"[\W_]+")


class Candidate(NamedTuple):
    """Two texts that may belong together; `document` tells what they were found in."""

    document: int | str
    left: str
    right: str
    group: str = ""


def count_words(text: str) -> int:
    """Words of letters or digits; each character of a script without blanks is one."""
    return sum(text[start].isalnum() for start, _ in split_words(text))


def normalise(text: str) -> str:
    """What two texts share that differ only in case, punctuation, blanks and compatibility forms."""
    return _NO_WORD.sub(" ", unicodedata.normalize("NFKC", text).casefold()).strip()


def clean(candidates: Iterable[Candidate], options: PairOptions, dropped: Counter[str]) -> Iterator[PairExample]:
    """Yields the candidates that are worth learning from, with runs of blanks made one.

    A pair that recurs in either direction counts once; a hash of every pair is remembered for that. Of a document, at
    most `max_pairs` are kept, a fair draw where its candidates stand together. `dropped` counts by reason.
    """
    most = getattr(options, "max_pairs", None)
    taken: Counter[int | str] = Counter()
    for number, items in groupby(_sound(candidates, options, dropped), key=lambda item: item.document):
        if most is not None:
            found = list(items)
            draw = random.Random(f"{options.seed} {number} {taken[number]}")
            chosen = sorted(draw.sample(range(len(found)), min(most - taken[number], len(found))))
            dropped["over max_pairs"] += len(found) - len(chosen)
            taken[number] += len(chosen)
            items = iter([found[index] for index in chosen])
        yield from (PairExample(item.left, item.right, item.group) for item in items)


def _sound(candidates: Iterable[Candidate], options: PairOptions, dropped: Counter[str]) -> Iterator[Candidate]:
    seen: set[bytes] = set()
    for item in candidates:
        left, right = " ".join(item.left.split()), " ".join(item.right.split())
        counts = count_words(left), count_words(right)
        sides = sorted((normalise(left), normalise(right)))
        mark = hashlib.blake2b("\0".join(sides).encode("utf-8", "surrogatepass"), digest_size=8).digest()
        problems = {
            "blank": not left or not right,
            "damaged characters": any("\ud800" <= character <= "\udfff" for character in left + right),
            "too short": min(counts) < options.min_words,
            "too long": max(counts) > options.max_words,
            "alike": sides[0] == sides[1],
            "repeated": mark in seen,
        }
        reason = next((name for name, is_so in problems.items() if is_so), None)
        if reason is None:
            seen.add(mark)
            yield Candidate(item.document, left, right, item.group)
        else:
            dropped[reason] += 1
