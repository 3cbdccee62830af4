"""Any number of labels a text: decoding from thresholds, and scores that are scikit-learn's."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from sklearn.metrics import average_precision_score, f1_score

from trunkline.tasks import FAMILIES
from trunkline.tasks.classification import Scored
from trunkline.tasks.multilabel import average_precision
from trunkline.text.examples import MultiLabelExample

FAMILY = FAMILIES["multilabel"]
LABELS = ("a", "b", "c")


def decoded(chances: list[float], **decisions: Any) -> dict[str, Any]:
    scored = Scored([np.array([chances], np.float32)], [("x", ())], LABELS, None, decisions)
    found: dict[str, Any] = FAMILY.decode([scored])[0][0]
    return found


def test_labels_are_said_from_their_thresholds_on_best_first() -> None:
    assert decoded([0.5, 0.25, 0.75])["labels"] == ["c", "a"]
    assert decoded([0.5, 0.25, 0.75], thresholds={"a": 0.500001, "b": 0.25})["labels"] == ["c", "b"]
    assert decoded([0.1, 0.2, 0.3]) == {"labels": [], "probabilities": {"c": 0.3, "b": 0.2, "a": 0.1}}


def test_each_label_has_a_probability_of_its_own() -> None:
    logits = np.array([[0.0, 3.0, -100.0], [1e4, -1e4, 2.0]], np.float32)
    found = FAMILY.probabilities(logits)
    assert found.dtype == np.float32
    assert found == pytest.approx(np.array([[0.5, 0.952574, 0], [1, 0, 0.880797]]), abs=1e-6)


def test_targets_are_a_yes_or_no_a_label_and_none_is_an_answer() -> None:
    examples = [MultiLabelExample("x", ("b", "a")), MultiLabelExample("y", ())]
    assert FAMILY.labels(examples) == ("a", "b")
    assert [FAMILY.unit_targets(one, LABELS, ()) for one in examples] == [[1, 1, 0], [0, 0, 0]]


@pytest.mark.parametrize("seed", range(5))
def test_scores_are_those_of_scikit_learn(seed: int) -> None:
    rng = np.random.default_rng(seed)
    gold = rng.random((30, 3)) < 0.4
    gold[:, 2] |= not gold[:, 2].any()
    chances = np.round(rng.random((30, 3)), 1)  # with ties
    examples = [MultiLabelExample("x", tuple(np.array(LABELS)[row])) for row in gold]
    rows = [dict(zip(LABELS, row, strict=True)) for row in chances]
    predicted = [{"labels": [k for k in row if row[k] >= 0.5], "probabilities": row} for row in rows]
    scores, said = FAMILY.score(examples, predicted), chances >= 0.5
    assert next(iter(scores)) == FAMILY.main_score
    assert scores["micro_f1"] == pytest.approx(f1_score(gold, said, average="micro"))
    assert scores["macro_f1"] == pytest.approx(f1_score(gold, said, average="macro"))
    assert scores["exact_match"] == pytest.approx((gold == said).all(axis=1).mean())
    assert scores["average_precision"] == pytest.approx(average_precision_score(gold, chances, average="macro"))


def test_texts_without_labels_count() -> None:
    none = MultiLabelExample("x", ())
    silent = {"labels": [], "probabilities": {"a": 0.1}}
    assert FAMILY.score([none, none], [silent, {"labels": ["a"], "probabilities": {"a": 0.9}}])["exact_match"] == 0.5
    assert FAMILY.score([none], [silent]) == {
        "micro_f1": 0.0, "macro_f1": 0.0, "exact_match": 1.0, "average_precision": 0.0,
    }  # fmt: skip


def test_labels_that_the_task_does_not_know_are_misses() -> None:
    example, said = MultiLabelExample("x", ("a", "z")), {"labels": ["a"], "probabilities": {"a": 0.9, "b": 0.2}}
    assert FAMILY.score([example], [said])["micro_f1"] == pytest.approx(2 / 3)
    assert FAMILY.likelihood(example, said) is None
    assert FAMILY.likelihood(MultiLabelExample("x", ("a",)), said) == pytest.approx(0.9 * 0.8)
    assert FAMILY.align(example, said) == [(("a",), ("a",)), (("z",), None)]
    assert FAMILY.confidences(example, said) == {("a",): 0.9}


def test_equal_scores_are_one_place() -> None:
    assert average_precision([True, False, False, True], [0.5, 0.5, 0.5, 0.5]) == 0.5
    assert average_precision([False, True], [0.9, 0.1]) == 0.5
