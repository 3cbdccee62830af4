"""Decoding: several tasks at once as one by one, rules that equal the families', and labels that fit their rule."""

from __future__ import annotations

import itertools
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from trunkline.data.examples import split_words
from trunkline.data.tagging import bio_labels
from trunkline.decoding.base import Scored
from trunkline.decoding.bio import decode_bio, decode_bio_tasks, may_follow
from trunkline.decoding.paths import best_paths, softmax
from trunkline.decoding.requests import MAX_CHARACTERS, check_texts, chosen_tasks
from trunkline.decoding.rules import FAMILY_RULES, RULES, check_labels
from trunkline.errors import MismatchError, TrunklineError
from trunkline.families import FAMILIES
from trunkline.model.bundle_files import Loaded


def drawn_task(rng: np.random.Generator) -> tuple[list[npt.NDArray[np.float32]], npt.NDArray[Any]]:
    """Coarse scores, so that there are ties."""
    labels = tuple(bio_labels("abc"[: rng.integers(0, 4)]))
    scores = [np.round(rng.normal(size=(n, len(labels)))).astype(np.float32) for n in rng.integers(0, 7, size=4)]
    moves = np.round(rng.normal(size=(len(labels) + 1, len(labels))))
    return scores, np.where(may_follow(labels), moves, -np.inf)


def worth(path: tuple[int, ...], scores: npt.NDArray[Any], moves: npt.NDArray[Any]) -> float:
    before = (moves.shape[1], *path)[: len(path)]
    return float(sum(scores[i, tag] + moves[b, tag] for i, (b, tag) in enumerate(zip(before, path, strict=True))))


@settings(max_examples=30, deadline=None)
@given(st.integers(0, 10**6), st.integers(1, 4), st.sampled_from([1, 60, 2**17]))
def test_paths_of_several_tasks_are_those_of_each(seed: int, count: int, block: int) -> None:
    rng = np.random.default_rng(seed)
    tasks = [drawn_task(rng) for _ in range(count)]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("trunkline.decoding.paths.BLOCK", block)
        together = best_paths(tasks)
    for task, found in zip(tasks, together, strict=True):
        assert [path.tolist() for path in found] == [path.tolist() for path in best_paths([task])[0]]


@settings(max_examples=30, deadline=None)
@given(st.integers(0, 10**6))
def test_a_path_is_the_best_of_all_and_ties_go_to_the_lower_last_label(seed: int) -> None:
    scores, moves = drawn_task(np.random.default_rng(seed))
    short = scores[0][:4]
    everything = itertools.product(range(moves.shape[1]), repeat=len(short))
    best = max(everything, key=lambda path: (worth(path, short, moves), tuple(-tag for tag in reversed(path))))
    assert best_paths([([short], moves)])[0][0].tolist() == list(best)


def test_no_tasks_or_no_texts_have_no_paths() -> None:
    assert best_paths([]) == []
    assert best_paths([([], np.zeros((4, 3)))]) == [[]]


@settings(max_examples=40, deadline=None)
@given(st.integers(0, 10**6), st.lists(st.booleans(), min_size=1, max_size=3))
def test_entities_of_several_tasks_are_those_of_each_and_of_the_full_search(seed: int, learned: list[bool]) -> None:
    rng = np.random.default_rng(seed)
    texts = [("ab cd ef gh"[: 3 * n], [(3 * i, 3 * i + 2) for i in range(n)]) for n in rng.integers(0, 5, size=3)]
    tasks = []
    for moved in learned:
        labels = tuple(bio_labels("ab"[: rng.integers(1, 3)]))
        probabilities = [rng.dirichlet(np.ones(len(labels)) / 2, size=len(words)) for _, words in texts]
        moves = rng.normal(size=(len(labels) + 1, len(labels))).astype(np.float32)
        # Transitions of zero say what none say, but are not decided by the likeliest tags alone.
        tasks.append(Scored(probabilities, texts, labels, moves if moved else None))
        zeros = Scored(probabilities, texts, labels, np.zeros_like(moves))
        if not moved:
            assert decode_bio_tasks([tasks[-1]]) == decode_bio_tasks([zeros])
    alone = [decode_bio(task.probabilities, texts, task.labels, task.transitions) for task in tasks]
    assert decode_bio_tasks(tasks) == alone


@pytest.mark.parametrize("name", sorted(FAMILIES))
def test_a_rule_does_what_its_family_does(name: str, tiny: Loaded) -> None:
    family, rule = FAMILIES[name], RULES[FAMILY_RULES[name]]
    labels = {"ner": ("O", "B-a", "I-a"), "classification": ("x", "y"), "qa": ("O", "start", "end", "single")}[name]
    text = "where is ann\nann lives in berlin"
    tokens, words = tiny.tokenizer.encode([text])[0], split_words(text)
    ours, theirs = rule.units(text, words, tokens), family.units(text, words, tokens)
    assert ours.n_units == theirs.n_units
    assert all(np.array_equal(getattr(ours, part), getattr(theirs, part)) for part in ("ids", "token", "unit"))
    rng = np.random.default_rng(0)
    probabilities = [softmax(rng.normal(size=(ours.n_units, len(labels))).astype(np.float32) * 3)]
    expected = family.decode(probabilities, [(text, words)], labels)
    assert rule.decode([Scored(probabilities, [(text, words)], labels)]) == [expected]


def test_every_family_has_a_rule() -> None:
    assert FAMILY_RULES.keys() == FAMILIES.keys()
    assert set(FAMILY_RULES.values()) == RULES.keys()


def test_probabilities_of_large_outputs_are_finite_and_add_up_to_one() -> None:
    found = softmax(np.asarray([[1e30, -1e30, 0], [0, 0, 0]], np.float32))
    assert found.tolist()[0] == [1, 0, 0]
    assert found.sum(axis=1) == pytest.approx([1, 1])


@pytest.mark.parametrize(
    ("rule", "labels", "message"),
    [
        ("ranked", (), "the labels none"),
        ("bio", (), "the labels none"),
        ("bio", ("O", "X-a"), "the label 'X-a'"),
        ("bio", ("O", "B-"), "the label 'B-'"),
        ("span", ("O", "start", "end"), "O, start, end, single"),
    ],
)
def test_labels_that_a_rule_cannot_decode_are_refused(rule: str, labels: tuple[str, ...], message: str) -> None:
    with pytest.raises(MismatchError, match=message):
        check_labels(rule, labels, "task t")


def test_labels_that_a_rule_can_decode_pass() -> None:
    check_labels("bio", ("I-a",), "task t")
    check_labels("ranked", ("x",), "task t")
    check_labels("span", ("O", "start", "end", "single", "no answer"), "task t")


def test_requests_are_checked() -> None:
    assert chosen_tasks(None, ["b", "a"]) == ["a", "b"]
    assert chosen_tasks(["b"], ["b", "a"]) == ["b"]
    check_texts(["", "a" * MAX_CHARACTERS])
    for texts, message in (("ann", "one string"), (["a", 3], "text 1 is a int"), (["a" * 1_000_001], "1000001")):
        with pytest.raises(TrunklineError, match=message):
            check_texts(texts)  # type: ignore[arg-type]
    for names, message in (("a", r"such as \['a'\]"), (["c"], r"'c'.*not in this bundle.*a, b")):
        with pytest.raises(TrunklineError, match=message):
            chosen_tasks(names, ["a", "b"])
