"""Comparisons are paired: their interval holds the true difference as often as it says, and p finds it or does not."""

from __future__ import annotations

import itertools
import json
from typing import Any

import numpy as np
import pytest

from trunkline.errors import TrunklineError
from trunkline.results import Comparison, Evaluation, comparison
from trunkline.tasks import FAMILIES
from trunkline.text.examples import MultiLabelExample, NerExample, Span, TextExample


def evaluated(right: Any, task: str = "a") -> Evaluation:
    """Of predictions that are right or not; gold labels take turns."""
    gold = [TextExample(f"text {n}", "xy"[n % 2]) for n in range(len(right))]
    said = [example.label if ok else "yx"["xy".index(example.label)] for example, ok in zip(gold, right, strict=True)]
    found = [{"label": label, "score": 0.9, "probabilities": {label: 0.9}} for label in said]
    return Evaluation.of(task, FAMILIES["classification"], gold, found, ["x", "y"], f"bundle-{task}")


def drawn(count: int, rng: np.random.Generator) -> tuple[Any, Any]:
    """Two systems of 80 % and 70 % that are mostly right on the same texts: 68 % both, 12 % and 2 % one alone."""
    kind = rng.choice(4, size=count, p=[0.68, 0.12, 0.02, 0.18])
    return kind <= 1, (kind == 0) | (kind == 2)


def test_it_finds_a_difference_that_is_known_and_says_where_it_is() -> None:
    first, second = drawn(400, np.random.default_rng(0))
    found = evaluated(first).against(evaluated(second, "b"))
    row = found.measures["accuracy"]
    assert row["difference"] == pytest.approx(first.mean() - second.mean())
    low, high = row["interval"]
    assert low < row["difference"] < high
    assert 0 < low < 0.1 < high < 0.2
    assert row["p"] < 0.001
    # McNemar: the standard error of a paired difference.
    error = np.sqrt(np.var(first.astype(int) - second.astype(int)) / 400)
    assert high - low == pytest.approx(2 * 1.96 * error, rel=0.1)
    assert found.right == {
        "both": (first & second).sum(), "first": (first & ~second).sum(),
        "second": (second & ~first).sum(), "neither": (~first & ~second).sum(),
    }  # fmt: skip
    assert [row["index"] for row in found.changed] == np.flatnonzero(first != second).tolist()
    assert found.first == {"bundle": "bundle-a", "task": "a"}
    assert json.loads(json.dumps(found.to_dict(), allow_nan=False)) == found.to_dict()
    back = evaluated(second, "b").against(evaluated(first))
    assert back.measures["accuracy"]["interval"] == pytest.approx([-high, -low], abs=0.01)
    assert evaluated(first).against(evaluated(second, "b")) == found


def test_equal_systems_do_not_differ() -> None:
    right = np.arange(30) % 3 > 0
    found = evaluated(right).against(evaluated(right))
    for row in found.measures.values():
        assert (row["difference"], row["interval"], row["p"]) == (0, [0, 0], 1)
    assert found.changed == []


def test_p_is_the_share_of_all_swaps_that_differ_as_much() -> None:
    first, second = [True] * 7 + [False] * 2, [True] * 3 + [False] * 5 + [True]
    exact = []
    for swapped in itertools.product([0, 1], repeat=9):
        exact.append(sum((b - a) if s else (a - b) for a, b, s in zip(first, second, swapped, strict=True)))
    wanted = np.mean(np.abs(exact) >= sum(first) - sum(second))
    found = evaluated(first).against(evaluated(second)).measures["accuracy"]
    assert found["p"] == pytest.approx(wanted, abs=0.03)


def test_the_interval_holds_the_true_difference_as_often_as_it_says(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(comparison, "RESAMPLES", 200)
    rng, held, small = np.random.default_rng(5), 0, 0
    for _ in range(100):
        pair = drawn(80, rng)
        low, high = evaluated(pair[0]).against(evaluated(pair[1])).measures["accuracy"]["interval"]
        held += low <= 0.1 <= high
        # Without a difference: which of both is the first is left to a coin.
        coin = rng.integers(2, size=80).astype(bool)
        one, other = np.where(coin, *pair), np.where(coin, *pair[::-1])
        small += evaluated(one).against(evaluated(other)).measures["accuracy"]["p"] <= 0.05
    assert 0.89 <= held / 100 <= 0.99
    assert small / 100 <= 0.1


def test_entities_are_drawn_by_their_texts() -> None:
    rng = np.random.default_rng(2)
    gold = [NerExample("ann met bob", (), (Span(0, 3, "x"), Span(8, 11, "y"))) for _ in range(80)]

    def found(share: float) -> list[Any]:
        entities = [(0, 3, "ann", "x"), (8, 11, "bob", "y"), (4, 7, "met", "x")]
        keys = ("start", "end", "text", "label")
        return [
            [{**dict(zip(keys, e, strict=True)), "score": 0.5} for e in entities if rng.random() < share] for _ in gold
        ]

    def of(rows: list[Any]) -> Evaluation:
        return Evaluation.of("t", FAMILIES["ner"], gold, rows, ["x", "y"])

    rows = found(0.9), found(0.5)
    result = of(rows[0]).against(of(rows[1]))
    assert result.measures.keys() == {"f1", "precision", "recall", "macro_f1"}
    draws = np.random.default_rng(comparison.SEED)
    gains = []
    for _ in range(300):
        chosen = draws.integers(80, size=80)
        a, b = (FAMILIES["ner"].score([gold[n] for n in chosen], [part[n] for n in chosen])["f1"] for part in rows)
        gains.append(a - b)
    assert result.measures["f1"]["interval"] == pytest.approx(np.quantile(gains, (0.025, 0.975)), abs=0.02)


def test_of_several_labels_a_text_what_is_counted_is_compared() -> None:
    gold = [MultiLabelExample(f"text {n}", ("x", "y") if n % 2 else ()) for n in range(40)]
    chances = {"x": 0.9, "y": 0.9}
    found = [[{"labels": own, "probabilities": chances} for _ in gold] for own in (["x", "y"], ["x"])]
    first, second = (Evaluation.of("t", FAMILIES["multilabel"], gold, rows, ["x", "y"]) for rows in found)
    result = first.against(second)
    assert result.measures.keys() == {"micro_f1", "macro_f1", "exact_match"}
    assert result.measures["exact_match"]["difference"] == 0.5
    assert result.measures["exact_match"]["p"] < 0.01
    page = first.to_html(result)
    assert "&#x27;y&#x27; where there is none" in page
    assert "Confusion matrix" not in page


def test_other_examples_are_refused() -> None:
    for other in (evaluated([True] * 4), evaluated([True, False])):
        with pytest.raises(TrunklineError, match="the same examples in the same order"):
            Comparison.of(evaluated([True] * 3), other)
