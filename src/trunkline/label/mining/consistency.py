"""Keeping only the pairs whose partner an encoder finds again among many other texts.

The consistency filter of E5 (Wang et al. 2022, arXiv 2212.03533, section 3): weak pairs are noisy, and a pair whose
right text does not rank near the top for its left text is more likely noise than a hard example.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from trunkline.errors import TrunklineError
from trunkline.label.mining.cleaning import normalise
from trunkline.text.examples import PairExample

Embed = Callable[[Sequence[str]], npt.NDArray[Any]]
"""Turns n texts into [n, width] vectors; they are normalised here."""

Vectors = npt.NDArray[np.float32]
Indices = npt.NDArray[np.int64]

_BLOCK = 8192
"""Pool texts that are compared at once."""

_TIE = 1e-6
"""Cosines closer than rounding can tell apart are ties, and ties count against a pair."""

_BANDS = ((1, 1), (2, 2), (3, 10), (11, 100))


@dataclass(frozen=True, slots=True)
class _Pool:
    vectors: Vectors
    places: dict[str, int]
    groups: npt.NDArray[np.int64]
    numbers: dict[str, int]


def filter_consistent(
    pairs: Sequence[PairExample],
    embed: Embed,
    *,
    top_k: int = 2,
    pool: int = 100_000,
    seed: int = 0,
    batch: int = 512,
    progress: Callable[[int], None] = lambda done: None,
) -> tuple[Indices, dict[str, Any]]:
    """Finds the pairs whose right text ranks in the top k for its left text, by cosine.

    A right text competes with a random pool of right texts of all pairs. Left out of the competition are texts that
    equal one of the pair's own (but for case and punctuation) and those of the pair's group. Only the pool's vectors
    and one batch are in memory, so `pairs` may read from a file.

    Args:
        pairs: Walked once, in order, after the pool has been drawn.
        embed: The encoder.
        top_k: The lowest rank that is kept, 1 being the best.
        pool: The most texts of the pool; the more, the stricter the filter.
        seed: Draws the pool.
        batch: Pairs that are embedded and compared at once.
        progress: Called with the number of pairs that are done.

    Returns:
        [kept] indices in rising order; and a report: number of `pairs`, `kept`, texts in the `pool`, `top_k`, the
        share that would be kept by `chance`, and how many pairs have which rank (`ranks`).

    Raises:
        TrunklineError: Too few texts to rank among, or vectors that are not finite or of another shape.
    """
    drawn = _draw_pool(pairs, embed, pool, seed, batch)
    size = len(drawn.vectors)
    if size <= top_k:
        raise TrunklineError(
            f"the {len(pairs)} pairs have {size} different right texts, so each partner ranks in the top {top_k}",
            expected=f"more than {top_k} texts to rank among",
            todo="Mine more text, lower top_k, or mine without an encoder",
        )
    ranks = np.empty(len(pairs), np.int64)
    for start in range(0, len(pairs), batch):
        part = [pairs[index] for index in range(start, min(start + batch, len(pairs)))]
        ranks[start : start + len(part)] = _ranks(part, drawn, embed)
        progress(start + len(part))
    kept = np.flatnonzero(ranks <= top_k)
    return kept, {
        "pairs": len(pairs),
        "kept": len(kept),
        "pool": size,
        "top_k": top_k,
        "chance": round(top_k / (size + 1), 6),
        "ranks": _bands(ranks),
    }


def _draw_pool(pairs: Sequence[PairExample], embed: Embed, pool: int, seed: int, batch: int) -> _Pool:
    chosen = np.random.default_rng([seed, len(pairs)]).permutation(len(pairs))[:pool]
    places: dict[str, int] = {}
    numbers: dict[str, int] = {}
    groups: list[int] = []
    parts: list[Vectors] = []
    waiting: list[str] = []
    for index in np.sort(chosen):
        pair = pairs[int(index)]
        key = normalise(pair.right)
        if key in places:
            continue
        places[key] = len(places)
        groups.append(numbers.setdefault(pair.group, len(numbers)) if pair.group else -1)
        waiting.append(pair.right)
        if len(waiting) == batch:
            parts.append(_embed(embed, waiting))
            waiting = []
    if waiting:
        parts.append(_embed(embed, waiting))
    vectors = np.concatenate(parts) if parts else np.zeros((0, 1), np.float32)
    return _Pool(vectors, places, np.asarray(groups, np.int64), numbers)


def _ranks(pairs: Sequence[PairExample], pool: _Pool, embed: Embed) -> Indices:
    """[pairs] 1 + the number of pool texts that are at least as near to the left text as its partner is."""
    left, right = _embed(embed, [pair.left for pair in pairs]), _embed(embed, [pair.right for pair in pairs])
    if left.shape[1] != pool.vectors.shape[1]:
        raise _wrong_shape(left.shape, (len(pairs), pool.vectors.shape[1]))
    own = np.einsum("nw,nw->n", left, right)[:, None] - np.float32(_TIE)
    # -2 is the place of no pool text and the group of none.
    places = np.asarray([[pool.places.get(normalise(text), -2) for text in (p.left, p.right)] for p in pairs])
    groups = np.asarray([pool.numbers.get(pair.group, -2) if pair.group else -2 for pair in pairs])
    ranks = np.ones(len(pairs), np.int64)
    for start in range(0, len(pool.vectors), _BLOCK):
        better = left @ pool.vectors[start : start + _BLOCK].T >= own
        width = better.shape[1]
        for column in places.T:
            rows = np.flatnonzero((column >= start) & (column < start + width))
            better[rows, column[rows] - start] = False
        if pool.numbers:
            better &= groups[:, None] != pool.groups[None, start : start + width]
        ranks += better.sum(axis=1)
    return ranks


def _embed(embed: Embed, texts: Sequence[str]) -> Vectors:
    vectors = np.asarray(embed(texts), np.float32)
    if vectors.ndim != 2 or len(vectors) != len(texts):
        raise _wrong_shape(vectors.shape, (len(texts), "width"))
    if not np.isfinite(vectors).all():
        raise TrunklineError(
            "the encoder's vectors are not finite", expected="numbers", todo="Use another encoder for the filter"
        )
    lengths = np.linalg.norm(vectors, axis=1, keepdims=True)
    return vectors / np.maximum(lengths, np.finfo(np.float32).tiny)


def _wrong_shape(given: tuple[Any, ...], expected: tuple[Any, ...]) -> TrunklineError:
    return TrunklineError(
        f"the encoder's vectors have the shape {given}",
        expected=f"({', '.join(map(str, expected))})",
        todo="Use an encoder that gives one vector a text",
    )


def _bands(ranks: Indices) -> dict[str, int]:
    counts = {
        f"{low}" if low == high else f"{low} to {high}": int(((ranks >= low) & (ranks <= high)).sum())
        for low, high in _BANDS
    }
    return {**counts, "over 100": int((ranks > _BANDS[-1][1]).sum())}
