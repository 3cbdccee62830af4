"""What is no pair to learn from: by its form, and where an encoder does not find the partner again."""

from __future__ import annotations

import hashlib
import random
import re
import unicodedata
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from itertools import groupby
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from trunkline.errors import TrunklineError
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


Embed = Callable[[Sequence[str]], npt.NDArray[Any]]
"""Turns n texts into [n, width] vectors; they are normalised here."""

_BLOCK = 8192
"""Pool texts that are compared at once."""

_TIE = np.float32(1e-6)
"""Cosines closer than rounding can tell apart are ties, and ties count against a pair."""

_BANDS = {"1": 1, "2": 2, "3 to 10": 10, "11 to 100": 100, "over 100": np.iinfo(np.int64).max}
"""Ranks in the report, by the highest of each band."""


def filter_consistent(
    pairs: Sequence[PairExample], embed: Embed, *, top_k: int = 2, pool: int = 100_000, seed: int = 0, batch: int = 512
) -> tuple[npt.NDArray[np.bool_], dict[str, Any]]:
    """Finds the pairs [pairs] whose right text ranks in the top k for its left text, by cosine.

    A right text competes with at most `pool` right texts of all pairs, drawn by `seed`; the more, the stricter. Not
    in the competition are texts that equal one of the pair's own (but for case and punctuation) and those of its group.
    The vectors of the pool are in memory; `batch` texts are embedded at a time.

    Returns:
        Whether each pair is kept, and a report: number of `pairs`, `kept`, texts in the `pool`, `top_k`, the share that
        would be kept by `chance`, and how many pairs have which rank (`ranks`).
    """
    chosen = np.sort(np.random.default_rng([seed, len(pairs)]).permutation(len(pairs))[:pool])
    rivals = list({normalise(pairs[index].right): pairs[index] for index in reversed(chosen)}.values())[::-1]
    if len(rivals) <= top_k:
        raise TrunklineError(
            f"the pairs have {len(rivals)} different right texts, so each partner ranks in the top {top_k}",
            expected=f"more than {top_k} texts to rank among",
            todo="Mine more text, lower top_k, or mine without an encoder",
        )
    ids: dict[str, int] = {}
    texts = np.asarray([[ids.setdefault(normalise(text), len(ids)) for text in (p.left, p.right)] for p in pairs])
    competing = np.asarray([ids[normalise(pair.right)] for pair in rivals])
    numbers: dict[str, int] = {"": -1}  # pairs without a group have none in common
    groups = np.asarray([numbers.setdefault(pair.group, len(numbers)) for pair in pairs])
    rival_groups = np.asarray([numbers[pair.group] for pair in rivals])
    vectors = np.concatenate(
        [_embed(embed, [pair.right for pair in rivals[at : at + batch]]) for at in range(0, len(rivals), batch)]
    )
    ranks = np.ones(len(pairs), np.int64)
    for at in range(0, len(pairs), batch):
        here = slice(at, at + batch)
        left, right = (_embed(embed, side) for side in zip(*((p.left, p.right) for p in pairs[here]), strict=True))
        own = np.einsum("nw,nw->n", left, right)[:, None] - _TIE
        for start in range(0, len(rivals), _BLOCK):
            block = slice(start, start + _BLOCK)
            better = left @ vectors[block].T >= own
            better &= (texts[here, :, None] != competing[None, None, block]).all(axis=1)
            better &= (groups[here, None] != rival_groups[None, block]) | (groups[here, None] < 0)
            ranks[here] += better.sum(axis=1)
    keep = ranks <= top_k
    counts = np.bincount(np.searchsorted(list(_BANDS.values()), ranks), minlength=len(_BANDS)).tolist()
    report = {"pairs": len(pairs), "kept": int(keep.sum()), "pool": len(rivals), "top_k": top_k}
    chance = round(top_k / (len(rivals) + 1), 6)
    return keep, {**report, "chance": chance, "ranks": dict(zip(_BANDS, counts, strict=True))}


def _embed(embed: Embed, texts: Sequence[str]) -> npt.NDArray[np.float32]:
    vectors = np.asarray(embed(texts), np.float32)
    if vectors.ndim != 2 or len(vectors) != len(texts) or not np.isfinite(vectors).all():
        raise TrunklineError(
            f"the encoder's vectors have the shape {vectors.shape} or are not finite",
            expected=f"({len(texts)}, width) finite numbers",
            todo="Use an encoder that gives one vector a text",
        )
    return vectors / np.maximum(np.linalg.norm(vectors, axis=1, keepdims=True), np.finfo(np.float32).tiny)
