"""Folds: every class in as many as it has examples, repeated texts in one, the same for the same seed."""

from __future__ import annotations

from collections import Counter

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from trunkline.heads.fit import stratified_folds

SEEDS = range(40)


def spread(classes: list[set[str]], fold: np.ndarray) -> dict[str, Counter[int]]:
    """Class -> its examples by fold."""
    found: dict[str, Counter[int]] = {}
    for own, number in zip(classes, fold.tolist(), strict=True):
        for name in own:
            found.setdefault(name, Counter())[number] += 1
    return found


@pytest.mark.parametrize("sizes", [(2,) * 10, (60, 1), (200, 5), (3, 4, 5, 6), (7, 2, 2, 1)])
def test_no_class_is_lost_at_any_seed(sizes: tuple[int, ...]) -> None:
    classes = [{f"c{number}"} for number, size in enumerate(sizes) for _ in range(size)]
    texts = [f"text {number}" for number in range(len(classes))]
    for seed in SEEDS:
        fold = stratified_folds(texts, classes, 5, seed)
        for name, rows in spread(classes, fold).items():
            size = sum(rows.values())
            assert len(rows) == min(size, 5), "as many folds as there are examples"
            assert max(rows.values()) - min(rows.values()) <= (size % 5 > 0 or size < 5), name
        sizes_of = Counter(fold.tolist())
        assert len(sizes_of) == 5 or len(classes) < 5


@settings(max_examples=100, deadline=None, derandomize=True)
@given(st.lists(st.sets(st.sampled_from("abcdefgh"), max_size=4), min_size=2, max_size=30), st.integers(0, 3))
def test_a_class_of_several_sentences_is_in_several_folds(classes: list[set[str]], seed: int) -> None:
    texts = [f"text {number}" for number in range(len(classes))]
    fold = stratified_folds(texts, classes, 5, seed)
    assert set(fold.tolist()) <= set(range(5))
    for name, rows in spread(classes, fold).items():
        if sum(rows.values()) > 1:
            assert len(rows) > 1, name


def test_sentences_of_several_classes_are_dealt_by_all_of_them() -> None:
    # Each second sentence has a class that no other has, so that the rarest class alone would say nothing.
    classes = [{"a1", "b"}, {"x1"}, {"x2"}, {"x3"}, {"x4"}, {"y", "b"}, {"x5"}, {"x6"}]
    for seed in SEEDS:
        rows = spread(classes, stratified_folds([str(n) for n in range(8)], classes, 5, seed))["b"]
        assert len(rows) == 2


def test_texts_that_differ_in_case_and_blanks_alone_share_a_fold() -> None:
    texts = ["Where is it?", "where  is IT?", " where is it? ", *(f"other {n}" for n in range(20)), "other 3"]
    classes = [{"ab"[n % 2]} for n in range(len(texts))]
    for seed in SEEDS:
        fold = stratified_folds(texts, classes, 5, seed)
        assert len(set(fold[:3].tolist())) == 1
        assert fold[texts.index("other 3")] == fold[-1]


def test_the_same_seed_gives_the_same_folds_and_another_one_others() -> None:
    texts, classes = [f"text {n}" for n in range(40)], [{"ab"[n % 2]} for n in range(40)]
    one, same, other = (stratified_folds(texts, classes, 5, seed).tolist() for seed in (1, 1, 2))
    assert one == same != other


@pytest.mark.parametrize(("texts", "count"), [(["a", "b"], 2), (["a", "A"], 1), (["a"], 1), (["a", "b", "c"], 3)])
def test_there_are_no_more_folds_than_different_texts(texts: list[str], count: int) -> None:
    fold = stratified_folds(texts, [{"x"}] * len(texts), 5, 0)
    assert len(set(fold.tolist())) == count


def test_sentences_without_a_class_are_spread_over_the_folds() -> None:
    fold = stratified_folds([f"text {n}" for n in range(50)], [set()] * 45 + [{"a"}] * 5, 5, 3)
    assert Counter(fold[:45].tolist()) == dict.fromkeys(range(5), 9)
    assert set(fold[45:].tolist()) == set(range(5))
