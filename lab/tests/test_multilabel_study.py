"""Several labels a text beside scikit-learn: what is read, and what is measured."""

from __future__ import annotations

import os

import pytest

from trunkline.text.examples import MultiLabelExample
from trunkline_lab import multilabel

TEXTS = [MultiLabelExample(f"{'a' * (n % 2)} {'b' * (n % 3)} c", tuple("ab"[: n % 3])) for n in range(30)]


def test_losses_are_of_yes_and_no_of_each_label() -> None:
    said = [{"labels": ["a"], "probabilities": {"a": 0.8, "b": 0.4}}] * 2
    found = multilabel.measure(said, [MultiLabelExample("x", ("a", "b")), MultiLabelExample("y", ())], 1.5)
    assert found["log_loss"] == pytest.approx(0.815, abs=1e-3)  # of 0.8, 0.4, 0.2 and 0.6
    assert found["micro_f1"] == 0.5
    assert found["seconds"] == 1.5


def test_scikit_learn_says_labels_and_probabilities() -> None:
    found = multilabel.one_vs_rest(multilabel.tf_idf)(TEXTS[:20], TEXTS[20:], 0)
    assert len(found) == 10
    assert set(found[0]["probabilities"]) == {"a", "b"}
    assert all((row["probabilities"]["a"] > 0.5) == ("a" in row["labels"]) for row in found)


def test_the_table_has_means_of_draws() -> None:
    about = {"draw": "natural", "labels": 8, "method": "head"}
    measures = dict.fromkeys(multilabel.MEASURES, 0.25)
    rows = [about | measures, about | measures | {"micro_f1": 0.75}]
    assert "| natural | 8 | head | 50.0 | 25.0 | 25.0 | 25.0 | 0.250 | 0.2 |" in multilabel.table(rows)


@pytest.mark.skipif("TRUNKLINE_DATA" not in os.environ, reason="TRUNKLINE_DATA is not set")
def test_goemotions_has_all_labels_of_a_row() -> None:
    found = multilabel.goemotions("test")
    assert len(found) == 5427
    assert sum(len(example.labels) > 1 for example in found) == 837
    assert {label for example in found for label in example.labels} >= {"joy", "neutral"}
