"""Drawing few labels: exact budgets, nothing twice, the same draw for every encoder."""

from __future__ import annotations

from collections import Counter

from hypothesis import given, settings
from hypothesis import strategies as st

from trunkline_lab.data.sample import draw

labels = st.lists(st.sampled_from("abcd"), min_size=1, max_size=60)
types = st.lists(st.sets(st.sampled_from("abc")), min_size=1, max_size=40)


@settings(max_examples=80, deadline=None)
@given(labels, st.integers(1, 8), st.integers(0, 5))
def test_single_labels_are_drawn_exactly_as_often_as_asked_or_as_there_are(
    given_labels: list[str], per_class: int, seed: int
) -> None:
    examples = list(enumerate(given_labels))
    few = draw(examples, lambda example: {example[1]}, seed=seed, per_class=per_class)
    there = Counter(given_labels)
    assert Counter(label for _, label in few) == {label: min(per_class, count) for label, count in there.items()}
    assert len(set(few)) == len(few)


@settings(max_examples=80, deadline=None)
@given(types, st.integers(1, 5), st.integers(0, 5))
def test_every_type_reaches_its_budget_and_every_sentence_was_needed_when_it_was_taken(
    sentences: list[set[str]], per_class: int, seed: int
) -> None:
    few = draw(range(len(sentences)), lambda index: sentences[index], seed=seed, per_class=per_class)
    there = Counter(kind for found in sentences for kind in found)
    seen: Counter[str] = Counter()
    for index in few:
        assert any(seen[kind] < per_class for kind in sentences[index])
        seen.update(sentences[index])
    assert all(seen[kind] >= min(per_class, count) for kind, count in there.items())
    assert len(set(few)) == len(few)


@settings(max_examples=40, deadline=None)
@given(labels, st.integers(1, 70), st.integers(0, 5))
def test_a_number_of_sentences_is_exact_and_a_larger_draw_contains_a_smaller_one(
    given_labels: list[str], sentences: int, seed: int
) -> None:
    def few(count: int) -> list[int]:
        return draw(range(len(given_labels)), lambda index: {given_labels[index]}, seed=seed, sentences=count)

    assert len(few(sentences)) == min(sentences, len(given_labels))
    assert few(sentences + 5)[: len(few(sentences))] == few(sentences)
