"""Classification: labels, decoding and scores."""

import numpy as np
import pytest

from trunkline.tasks.classification import Classification, Scored
from trunkline.text.examples import TextExample

FAMILY = Classification()


def test_decode_ranks_all_labels():
    [found] = FAMILY.decode([Scored([np.array([[0.2, 0.5, 0.3]])], [("x", ())], ("a", "b", "c"))])[0]
    assert found["label"] == "b"
    assert list(found["probabilities"]) == ["b", "c", "a"]
    assert found["score"] == pytest.approx(0.5)


def test_scores():
    gold = [TextExample("x", label) for label in "aabb"]
    predicted = [{"label": label} for label in "aaab"]
    scores = FAMILY.score(gold, predicted)
    assert scores["accuracy"] == 0.75
    assert scores["macro_f1"] == pytest.approx((0.8 + 2 / 3) / 2)


def test_labels_unknown_to_the_head_are_left_out():
    assert FAMILY.labels([TextExample("x", "b"), TextExample("y", "a")]) == ("a", "b")
    assert FAMILY.unit_targets(TextExample("x", "c"), ("a", "b"), ()) == [-1]
