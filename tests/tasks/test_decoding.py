"""Decoding: several tasks at once as one by one, and labels that fit their family."""

from __future__ import annotations

import itertools
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tagged import bio_labels
from trunkline.engine.base import chosen_tasks
from trunkline.errors import MismatchError, TrunklineError
from trunkline.tasks import FAMILIES
from trunkline.tasks.classification import Scored, softmax
from trunkline.tasks.ner import Ner, best_paths, may_follow


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
        patch.setattr("trunkline.tasks.ner.BLOCK", block)
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
            assert Ner().decode([tasks[-1]]) == Ner().decode([zeros])
    alone = [Ner().decode([task])[0] for task in tasks]
    assert Ner().decode(tasks) == alone


def test_probabilities_of_large_outputs_are_finite_and_add_up_to_one() -> None:
    found = softmax(np.asarray([[1e30, -1e30, 0], [0, 0, 0]], np.float32))
    assert found.tolist()[0] == [1, 0, 0]
    assert found.sum(axis=1) == pytest.approx([1, 1])


@pytest.mark.parametrize(
    ("family", "labels", "message"),
    [
        ("classification", (), "no labels"),
        ("ner", (), "no labels"),
        ("ner", ("O", "X-a"), "the labels X-a\\."),
        ("ner", ("O", "B-"), "the labels B-\\."),
        ("qa", ("O", "start", "end"), "O, start, end, single"),
    ],
)
def test_labels_that_a_family_cannot_decode_are_refused(family: str, labels: tuple[str, ...], message: str) -> None:
    with pytest.raises(MismatchError, match=message):
        FAMILIES[family].check_labels(labels, "task t")


def test_labels_that_a_family_can_decode_pass() -> None:
    FAMILIES["ner"].check_labels(("I-a",), "task t")
    FAMILIES["classification"].check_labels(("x",), "task t")
    FAMILIES["qa"].check_labels(("O", "start", "end", "single", "no answer"), "task t")


def test_requests_are_checked() -> None:
    assert chosen_tasks(None, ["b", "a"]) == ["b", "a"]
    assert chosen_tasks(["b"], ["b", "a"]) == ["b"]
    for names, message in (("a", r"such as \['a'\]"), (["c"], r"'c'.*not in this bundle.*a, b")):
        with pytest.raises(TrunklineError, match=message):
            chosen_tasks(names, ["a", "b"])
