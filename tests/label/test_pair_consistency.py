"""The consistency filter, with encoders made up here."""

from __future__ import annotations

import re
from collections.abc import Sequence
from itertools import pairwise
from typing import Any

import numpy as np
import pytest

from trunkline.data.overlap import normalise
from trunkline.errors import TrunklineError
from trunkline.label.pairs import filter_consistent
from trunkline.text.examples import PairExample

WIDTH = 24


def about(texts: Sequence[str]) -> Any:
    """Texts with the same number are near each other, any others are nearly at right angles."""
    vectors = []
    for text in texts:
        topic = int(re.findall(r"\d+", text)[0])
        noise = np.random.default_rng(sum(map(ord, text))).standard_normal(WIDTH)
        vectors.append(np.random.default_rng(topic).standard_normal(WIDTH) * 5 + noise)
    return np.asarray(vectors)


def blind(texts: Sequence[str]) -> Any:
    return np.asarray([np.random.default_rng(sum(map(ord, text))).standard_normal(WIDTH) for text in texts])


def good(number: int) -> PairExample:
    return PairExample(f"question {number}", f"answer to {number}")


def test_right_partners_stay_and_wrong_ones_go() -> None:
    pairs = [good(number) for number in range(60)]
    wrong = {7, 20, 33, 59}
    for number in wrong:
        pairs[number] = PairExample(f"question {number}", f"answer to {number + 100}")
    keep, report = filter_consistent(pairs, about, top_k=1, batch=7)
    assert set(np.flatnonzero(keep)) == set(range(60)) - wrong
    assert (report["pairs"], report["kept"], report["pool"], report["top_k"]) == (60, 56, 60, 1)
    assert report["ranks"]["1"] == 56
    assert sum(report["ranks"].values()) == 60


def naive_ranks(pairs: list[PairExample], embed: Any) -> list[int]:
    """Every pair against all different right texts, one by one."""
    pool = list({normalise(pair.right): pair for pair in reversed(pairs)}.values())[::-1]
    unit = {
        text: (vector := embed([text])[0].astype(np.float32)) / np.linalg.norm(vector)
        for pair in pairs
        for text in (pair.left, pair.right)
    }
    ranks = []
    for pair in pairs:
        own = {normalise(pair.left), normalise(pair.right)}
        rivals = [
            other
            for other in pool
            if normalise(other.right) not in own and not (pair.group and pair.group == other.group)
        ]
        score = unit[pair.left] @ unit[pair.right]
        ranks.append(1 + sum(unit[pair.left] @ unit[other.right] >= score - 1e-6 for other in rivals))
    return ranks


@pytest.mark.parametrize("batch", [1, 9, 500])
def test_equals_the_naive_version(batch: int) -> None:
    rng = np.random.default_rng(1)
    pairs = [
        PairExample(
            f"l {rng.integers(30)} {n}", f"R {rng.integers(30)} {n % 40}", str(rng.integers(5)) if n % 2 else ""
        )
        for n in range(70)
    ]
    pairs += [PairExample(pair.right, f"next {n}") for n, pair in enumerate(pairs[:10])]
    expected = naive_ranks(pairs, blind)
    for top_k in (1, 2, 5, 20):
        keep, report = filter_consistent(pairs, blind, top_k=top_k, batch=batch)
        assert keep.tolist() == [rank <= top_k for rank in expected]
        assert report["ranks"]["3 to 10"] == sum(3 <= rank <= 10 for rank in expected)


def test_top_k_and_pool_are_monotone() -> None:
    pairs = [PairExample(f"left {n}", f"right {n * 7 % 50}") for n in range(120)]
    by_k = [set(np.flatnonzero(filter_consistent(pairs, blind, top_k=k)[0])) for k in (1, 2, 3, 10, 40)]
    assert all(small <= large for small, large in pairwise(by_k))
    assert len(by_k[0]) < len(by_k[-1])
    by_pool = [filter_consistent(pairs, blind, top_k=2, pool=pool)[0].sum() for pool in (5, 30, 120)]
    assert by_pool[0] > by_pool[-1]


def test_the_seed_alone_decides() -> None:
    pairs = [PairExample(f"left {n}", f"right {n}") for n in range(200)]
    runs = [filter_consistent(pairs, blind, pool=20, seed=seed)[0].tolist() for seed in (0, 0, 1)]
    assert runs[0] == runs[1] != runs[2]


def test_members_of_a_group_do_not_compete() -> None:
    grouped = [PairExample(f"left {n // 10} {n}", f"right {n // 10} {n}", str(n // 10)) for n in range(100)]
    alone = [PairExample(pair.left, pair.right) for pair in grouped]
    assert filter_consistent(grouped, about, top_k=1)[0].sum() == 100
    assert filter_consistent(alone, about, top_k=1)[0].sum() < 50


def test_an_encoder_that_tells_nothing_apart_keeps_nothing() -> None:
    pairs = [good(number) for number in range(20)]
    keep, report = filter_consistent(pairs, lambda texts: np.ones((len(texts), 3)), top_k=2)
    assert not keep.any()
    assert report["chance"] == pytest.approx(2 / 21, abs=1e-6)


@pytest.mark.parametrize(
    ("embed", "message"),
    [
        (lambda texts: np.ones(len(texts)), r"the shape \(4,\).*\(4, width\)"),
        (lambda texts: np.ones((1, 3)), r"the shape \(1, 3\)"),
        (lambda texts: np.full((len(texts), 3), np.nan), "not finite"),
    ],
)
def test_encoders_that_do_not_fit(embed: Any, message: str) -> None:
    with pytest.raises(TrunklineError, match=message):
        filter_consistent([good(number) for number in range(4)], embed)


def test_too_few_texts_to_rank() -> None:
    with pytest.raises(TrunklineError, match=r"2 different right texts.*more than 2"):
        filter_consistent([good(1), good(2), PairExample("question 3", "Answer to 2!")], about)
