"""Which candidates are worth keeping."""

from __future__ import annotations

from collections import Counter
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from trunkline.data.overlap import normalise
from trunkline.label.options import DocumentOptions
from trunkline.label.pairs import Candidate, clean, count_words
from trunkline.text.examples import PairExample

SETTINGS = settings(derandomize=True, deadline=None, max_examples=40, suppress_health_check=[HealthCheck.too_slow])


def sift(candidates: list[Candidate], **options: Any) -> tuple[list[PairExample], Counter[str]]:
    dropped: Counter[str] = Counter()
    return list(clean(candidates, DocumentOptions(**{"min_words": 1, **options}), dropped)), dropped


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("", 0),
        ("  two  words ", 2),
        ("l'été est là !", 4),
        ("我喜欢猫", 4),
        ("BERT 模型", 3),
        ("กขค", 3),
        ("e\u0301te\u0301 42", 2),
    ],
)
def test_count_words(text: str, words: int) -> None:
    assert count_words(text) == words


@pytest.mark.parametrize(
    ("left", "right", "reason"),
    [
        ("a b", " ", "blank"),
        ("a", "b c", "too short"),
        ("a b", "c d e f g", "too long"),
        ("A  b!", "“a” B", "alike"),
        ("ﬁne day", "Fine day.", "alike"),
        ("!! ??", "-- ..", "too short"),
    ],
)
def test_reasons(left: str, right: str, reason: str) -> None:
    pairs, dropped = sift([Candidate(0, left, right)], min_words=2, max_words=4)
    assert not pairs
    assert dropped == {reason: 1}


def test_a_pair_counts_once_in_either_direction() -> None:
    items = [Candidate(0, "a b", "c d"), Candidate(1, "C d.", "a  b"), Candidate(1, "a b", "c e")]
    pairs, dropped = sift(items)
    assert pairs == [PairExample("a b", "c d"), PairExample("a b", "c e")]
    assert dropped == {"repeated": 1}


def test_blanks_and_groups() -> None:
    pairs, _ = sift([Candidate(0, " a\n b ", "c\u2028d", "7")])
    assert pairs == [PairExample("a b", "c d", "7")]


texts = st.text(st.sampled_from("aAbB1 .\n我"), max_size=8)


@SETTINGS
@given(st.lists(st.tuples(st.integers(0, 3), texts, texts), max_size=30), st.integers(1, 3), st.integers(0, 2))
def test_properties(rows: list[tuple[int, str, str]], most: int, seed: int) -> None:
    items = [Candidate(*row) for row in sorted(rows, key=lambda row: row[0])]
    pairs, dropped = sift(items)
    assert len(items) == len(pairs) + dropped.total()
    for pair in pairs:
        assert normalise(pair.left) != normalise(pair.right)
        assert pair.left.strip() and pair.right.strip()
    capped, dropped = sift(items, max_pairs=most, seed=seed)
    assert len(items) == len(capped) + dropped.total()
    rest = iter(pairs)
    assert all(pair in rest for pair in capped)
    assert sift(items, max_pairs=most, seed=seed)[0] == capped


def test_max_pairs_holds_for_documents_and_groups() -> None:
    together = [Candidate(document, f"l{n}", f"r{n} {document}") for document in range(3) for n in range(20)]
    apart = [Candidate(n % 3, f"l{n}", f"r{n} {n % 3}") for n in range(60)]
    for items in (together, apart):
        pairs, dropped = sift(items, max_pairs=4)
        numbers = [int(pair.right.split()[1]) for pair in pairs]
        assert [numbers.count(document) for document in range(3)] == [4, 4, 4]
        assert dropped == {"over max_pairs": 48}
    drawn = {tuple(pair.left for pair in sift(together, max_pairs=4, seed=seed)[0]) for seed in range(5)}
    assert len(drawn) > 1
