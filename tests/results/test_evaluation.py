"""What an evaluation counts is what scikit-learn or a plain loop counts."""

from __future__ import annotations

import random
from typing import Any

import numpy as np
import pytest

from trunkline.results import Evaluation
from trunkline.results.evaluation import LEAST
from trunkline.tasks import FAMILIES
from trunkline.tasks.classification import Counts
from trunkline.text.examples import NerExample, QaExample, Span, TextExample

LABELS = ["a", "b", "c", "d"]
WORDS = "ann met bob in oslo and paul saw rome with eva"
PLACES = [(0, 3), (8, 11), (15, 19), (24, 28), (33, 37), (43, 46)]


def classified(count: int, seed: int = 0) -> tuple[list[TextExample], list[dict[str, Any]]]:
    """Examples with predictions of three labels, of which they have four."""
    rng = np.random.default_rng(seed)
    gold = [TextExample(f"text {n}", str(rng.choice(LABELS))) for n in range(count)]
    found = []
    for example in gold:
        chances = rng.dirichlet([3.0 if label == example.label else 1.0 for label in "abc"]).round(6)
        order = np.argsort(-chances)
        ranked = {"abc"[n]: float(chances[n]) for n in order}
        found.append({"label": "abc"[order[0]], "score": float(chances[order[0]]), "probabilities": ranked})
    return gold, found


def tagged(count: int, seed: int = 0) -> tuple[list[NerExample], list[list[dict[str, Any]]]]:
    """Sentences with entities, and predictions that miss some, add some, and change borders and labels."""
    rng, gold, found = random.Random(seed), [], []
    for _ in range(count):
        spans = [Span(*place, rng.choice("xyz")) for place in PLACES if rng.random() < 0.6]
        said = []
        for start, end in PLACES:
            true = next((span.label for span in spans if span.start == start), None)
            if rng.random() < (0.8 if true else 0.2):
                label = true if true and rng.random() < 0.7 else rng.choice("xyz")
                end += 4 * (rng.random() < 0.2)
                said.append(
                    {"start": start, "end": end, "text": WORDS[start:end], "label": label, "score": rng.random()}
                )
        gold.append(NerExample(WORDS, (), tuple(spans)))
        found.append(said)
    return gold, found


def evaluated(family: str, gold: Any, found: Any, labels: Any = ()) -> Evaluation:
    return Evaluation.of("task", FAMILIES[family], gold, found, labels, "bundle")


def test_classification_is_counted_as_scikit_learn_does() -> None:
    metrics = pytest.importorskip("sklearn.metrics", reason="scikit-learn is not installed")
    gold, found = classified(200)
    result = evaluated("classification", gold, found, ["a", "b", "c", "never"])
    true, said = [example.label for example in gold], [row["label"] for row in found]
    names = ["a", "b", "c", "d", "never"]
    assert list(result.labels) == names
    columns = metrics.precision_recall_fscore_support(true, said, labels=names, zero_division=0)
    for name, *row in zip(names, *columns, strict=True):
        assert [result.labels[name][key] for key in ("precision", "recall", "f1", "support")] == pytest.approx(row)
    table = metrics.confusion_matrix(true, said, labels=names)
    assert [[result.confusion.get(a, {}).get(b, 0) for b in names] for a in names] == table.tolist()
    assert result.scores["accuracy"] == metrics.accuracy_score(true, said)
    wanted = metrics.f1_score(true, said, labels=["a", "b", "c", "d"], average="macro", zero_division=0)
    assert result.scores["macro_f1"] == pytest.approx(wanted)
    assert result.errors["right"] + result.errors["label"] == len(gold)
    known = [n for n, label in enumerate(true) if label != "d"]
    chances = [[found[n]["probabilities"][label] for label in "abc"] for n in known]
    loss = metrics.log_loss([true[n] for n in known], chances, labels=list("abc"))
    assert result.reliability["log_loss"] == pytest.approx(loss, abs=1e-5)
    assert "d" in result.warnings[0]
    assert "never" not in result.warnings[0]


def test_calibration_is_counted_as_scikit_learn_does() -> None:
    calibration = pytest.importorskip("sklearn.calibration", reason="scikit-learn is not installed")
    gold, found = classified(300, 4)
    right = np.array([e.label == f["label"] for e, f in zip(gold, found, strict=True)])
    scores = np.array([f["score"] for f in found])
    share, mean = calibration.calibration_curve(right, scores, n_bins=15, strategy="quantile")
    result = evaluated("classification", gold, found).reliability
    assert [one["count"] for one in result["bins"]] == [20] * 15
    assert [one["score"] for one in result["bins"]] == pytest.approx(mean, abs=0.01)
    assert [one["right"] for one in result["bins"]] == pytest.approx(share, abs=0.06)
    order = np.argsort(scores, kind="stable")
    parts = [order[n * 20 : (n + 1) * 20] for n in range(15)]
    assert result["ece"] == pytest.approx(np.mean([abs(scores[p].mean() - right[p].mean()) for p in parts]))
    histogram = result["histogram"]
    assert sum(histogram["right"]) == right.sum()
    assert sum(histogram["wrong"]) == (~right).sum()
    assert histogram["right"][19] == (right & (scores >= 0.95)).sum()


def test_entities_are_counted_as_a_loop_does() -> None:
    gold, found = tagged(60)
    result = evaluated("ner", gold, found, ["x", "y", "z"])
    true = {(n, s.start, s.end, s.label) for n, example in enumerate(gold) for s in example.spans}
    said = {(n, e["start"], e["end"], e["label"]) for n, row in enumerate(found) for e in row}
    assert result.scores["f1"] == 2 * len(true & said) / (len(true) + len(said))
    for label, row in result.labels.items():
        own, other = ({one for one in part if one[-1] == label} for part in (true, said))
        assert (row["support"], row["predicted"]) == (len(own), len(other))
        assert row["f1"] == 2 * len(own & other) / (len(own) + len(other))
    # Here an entity overlaps at most the one that begins where it begins.
    at = [{one[:2]: one for one in part} for part in (true, said)]
    pairs = [(at[0].get(place), at[1].get(place)) for place in at[0].keys() | at[1].keys()]
    for a in ("x", "y", "z", ""):
        for b in ("x", "y", "z", ""):
            count = sum((t[-1] if t else "", s[-1] if s else "") == (a, b) for t, s in pairs)
            assert result.confusion.get(a, {}).get(b, 0) == count
    both = [(t, s) for t, s in pairs if t and s]
    assert result.errors == {
        "right": len(true & said),
        "label": sum(t[2] == s[2] and t[3] != s[3] for t, s in both),
        "borders": sum(t[2] != s[2] and t[3] == s[3] for t, s in both),
        "both": sum(t[2] != s[2] and t[3] != s[3] for t, s in both),
        "missed": sum(s is None for _, s in pairs),
        "spurious": sum(t is None for t, _ in pairs),
    }
    assert result.reliability["answers"] == len(said)
    assert result.reliability["log_loss"] is None


def test_entities_that_overlap_are_paired_one_for_one() -> None:
    spans = (Span(0, 10, "x"), Span(11, 14, "y"))

    def said(*places: tuple[int, int, str]) -> list[dict[str, Any]]:
        return [{"start": a, "end": b, "text": WORDS[a:b], "label": label, "score": 0.5} for a, b, label in places]

    def errors(*places: tuple[int, int, str]) -> dict[str, int]:
        found = evaluated("ner", [NerExample(WORDS, (), spans)], [said(*places)]).errors
        return {kind: count for kind, count in found.items() if count}

    assert errors((0, 10, "x"), (11, 14, "y")) == {"right": 2}
    assert errors((0, 14, "x")) == {"borders": 1, "missed": 1}
    assert errors((0, 10, "y"), (0, 10, "x")) == {"right": 1, "missed": 1, "spurious": 1}
    assert errors((0, 3, "x"), (4, 10, "x"), (11, 14, "x")) == {"borders": 1, "spurious": 1, "label": 1}
    assert errors((0, 11, "z"), (40, 43, "x")) == {"both": 1, "missed": 1, "spurious": 1}


def test_the_surest_errors_come_first_and_probabilities_of_zero_are_bounded() -> None:
    gold, found = classified(100, 2)
    result = evaluated("classification", gold, found)
    assert [row["scores"][0] for row in result.wrong] == sorted(
        (row["scores"][0] for row in result.wrong), reverse=True
    )
    assert all(gold[row["index"]].text == row["text"] for row in result.wrong)
    sure = {"label": "a", "score": 1.0, "probabilities": {"a": 1.0, "b": 0.0}}
    only = evaluated("classification", [TextExample("t", "b")], [sure])
    assert only.reliability["log_loss"] == pytest.approx(-np.log(LEAST))
    assert only.reliability["ece"] == 1


def test_of_questions_there_are_no_labels() -> None:
    gold = [QaExample("who?", "Ana met Bo", ((0, 3),)), QaExample("what?", "Ana met Bo", ())]
    found = [
        {"answer": "Ana met", "start": 0, "end": 7, "score": 0.6},
        {"answer": "", "start": None, "end": None, "score": 0.9},
    ]
    result = evaluated("qa", gold, found)
    assert result.scores == {"token_f1": pytest.approx((2 / 3 + 1) / 2), "exact_match": 0.5}
    assert (result.labels, result.confusion, result.errors) == ({}, {}, {})
    assert result.reliability["answers"] == 2
    assert [row["index"] for row in result.wrong] == [0]


@pytest.mark.parametrize("family", ["classification", "ner"])
def test_counts_of_a_draw_are_the_scores_of_the_drawn_examples(family: str) -> None:
    gold, found = classified(40) if family == "classification" else tagged(40)
    kind, rng = FAMILIES[family], np.random.default_rng(1)
    drawn = rng.integers(40, size=(5, 40))
    weights = np.stack([np.bincount(row, minlength=40) for row in drawn]).astype(float)
    values = kind.measures(Counts.of(kind.tally(gold, found).totals(weights)))
    for number, row in enumerate(drawn):
        # The answers of equal texts are told apart by their place in the list alone.
        scores = kind.score([gold[n] for n in row], [found[n] for n in row])
        assert {name: value[number] for name, value in values.items()} == pytest.approx(scores)
