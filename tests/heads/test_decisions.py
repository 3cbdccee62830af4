"""Decisions from scores: sets that hold what they promise, thresholds that keep a precision, none of these."""

from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np
import pytest
from scipy.stats import beta, binom

from trunkline.bundle.parts import Task
from trunkline.errors import TrunklineError
from trunkline.heads import decisions
from trunkline.heads.decisions import (
    CONFIDENCE,
    OTHER,
    decider,
    least_chance,
    none_of,
    with_other,
    with_precision,
)
from trunkline.heads.fit import KEPT, LabelledFeatures, fit_head
from trunkline.tasks import FAMILIES
from trunkline.text.examples import NerExample, Span, TextExample

LABELS = ("a", "b", "c")


def task(held_out: Any = None, family: str = "classification", **said: Any) -> Task:
    kept = {} if held_out is None else {"held_out": held_out}
    return Task(family, {}, 0.0, b"", "kinds", LABELS, "text", None, None, False, kept | said)


def drawn(rng: np.random.Generator, count: int, sharp: float = 1.0) -> tuple[np.ndarray, np.ndarray]:
    """[count, labels] probabilities, and labels that come with these probabilities to the power of `sharp`."""
    chances = rng.dirichlet(np.full(len(LABELS), 0.5), count)
    true = chances**sharp / (chances**sharp).sum(1, keepdims=True)
    return chances, (rng.random((count, 1)) > true.cumsum(1)).sum(1).clip(max=len(LABELS) - 1)


def said(chances: np.ndarray) -> list[dict[str, Any]]:
    found = []
    for row in chances:
        ranked = {LABELS[n]: round(float(row[n]), 6) for n in np.argsort(-row)}
        best = next(iter(ranked))
        found.append({"label": best, "score": ranked[best], "probabilities": ranked})
    return found


def kept(chances: np.ndarray, y: np.ndarray) -> dict[str, Any]:
    examples = [TextExample("x", LABELS[n]) for n in y]
    return FAMILIES["classification"].evidence(list(zip(examples, said(chances), strict=True)))


@pytest.mark.parametrize("sharp", [1.0, 0.3])
@pytest.mark.parametrize(("count", "coverage"), [(9, 0.9), (16, 0.9), (16, 0.8), (60, 0.95)])
def test_sets_hold_the_right_label_as_often_as_is_asked(count: int, coverage: float, sharp: float) -> None:
    """Also where probabilities are wrong: 1,000 draws of few held-out texts, 50 new ones each."""
    rng = np.random.default_rng(count)
    hits = []
    for _ in range(1000):
        level = least_chance(task(kept(*drawn(rng, count, sharp))), coverage)
        fresh, y = drawn(rng, 50, sharp)
        hits.append((fresh[np.arange(50), y] >= level).mean())
    # Three standard errors; between two ranks the level is not exact, so that half a point is left.
    assert np.mean(hits) == pytest.approx(coverage, abs=0.005 + 3 * np.std(hits) / np.sqrt(len(hits)))


def test_the_level_of_a_set_is_a_rank_of_the_chances_of_right_labels() -> None:
    held = {"a": {"true": [0.1, 0.4, 0.9]}, "b": {"true": [0.6, 0.8, 0.95, 0.97, 0.99, 0.5]}}
    assert least_chance(task(held), 0.9) == 0.1, "the first of nine and a new one"
    assert least_chance(task(held), 0.8) == 0.4
    assert least_chance(task(held), 0.85) == pytest.approx(0.25)
    own = {"probabilities": {"a": 0.5, "b": 0.4, "c": 0.1}, "label": "a", "score": 0.5}
    assert decider({"t": task(held)}, coverage=0.8)({"t": own})["t"]["set"] == ["a", "b"], "the level itself is in"
    assert decider({"t": task(held)}, coverage=0.79)({"t": own})["t"]["set"] == ["a"]
    assert decider({"t": task(held)}, coverage=0.2)({"t": own})["t"]["set"] == []
    with pytest.raises(TrunklineError, match=r"9 held-out texts .* Expected at most 0.9, or 19 labelled texts"):
        least_chance(task(held), 0.95)
    with pytest.raises(TrunklineError, match=r"Expected at most 0\.9, or no sets at all"):
        least_chance(task(held), 1)
    with pytest.raises(TrunklineError, match=r"keeps no scores of held-out texts\. Fit the task again"):
        least_chance(task(), 0.9)


@pytest.mark.parametrize(("n", "k"), [(45, 45), (44, 44), (100, 97), (300, 290), (5, 0), (0, 0)])
def test_bounds_are_those_of_clopper_and_pearson(n: int, k: int) -> None:
    for p in (0.0, 0.5, 0.95, 1.0):
        assert decisions._tail(n, k, p) == pytest.approx(binom.sf(k - 1, n, p), abs=1e-12)
    assert decisions._bound(n, k) == pytest.approx(beta.ppf(1 - CONFIDENCE, k, n - k + 1) if k else 0.0, abs=1e-6)


@pytest.mark.parametrize("sharp", [1.0, 0.8])
def test_a_precision_that_is_promised_is_kept_as_often_as_is_said(sharp: float) -> None:
    """150 tasks of 300 texts; also where the scores are too sure of themselves."""
    rng, missed, promised = np.random.default_rng(3), 0, 0
    fresh, y = drawn(rng, 20_000, sharp)
    score, right = fresh.max(1), fresh.argmax(1) == y
    for _ in range(150):
        found = with_precision(task(kept(*drawn(rng, 300, sharp))), 0.8)
        own, level = found["chosen"], found["min_score"]
        promised += own["promised"]
        missed += own["promised"] and right[score >= level].mean() < 0.8
    assert promised > 50
    assert missed / promised < 1 - CONFIDENCE + 3 * np.sqrt(0.09 / promised)


def test_a_precision_is_that_of_what_is_said_from_the_threshold_on() -> None:
    right, wrong = [0.9 + n / 1000 for n in range(50)], [0.5, 0.6]
    found = with_precision(task({"a": {"right": right, "wrong": wrong, "count": 60}}), 0.95)
    assert found["min_score"] == 0.905, "45 answers are enough, and those a fifth more hold the two wrong ones"
    expected = {"promised": True, "answers": 45, "right": 45, "needed": 45, "recall": round(45 / 60, 4)}
    assert found["chosen"] | expected == found["chosen"]
    few = with_precision(task({"a": {"right": right[:20], "wrong": [0.5], "count": 20}}), 0.95)
    assert few["chosen"] | {"promised": False, "answers": 21, "right": 20, "recall": 1.0} == few["chosen"]
    assert few["min_score"] == 0.5
    none = with_precision(task({"a": {"right": [0.4], "wrong": [0.8], "count": 1}}), 0.95)
    assert (none["min_score"], none["chosen"]["answers"]) == (1.0, 0)
    # An error among the surest is not hidden by the many behind it.
    late = with_precision(task({"a": {"right": right, "wrong": [0.95], "count": 50}}), 0.99)
    assert not late["chosen"]["promised"]


def test_what_scores_lower_than_almost_all_labelled_texts_has_none_of_the_labels() -> None:
    scores = [n / 100 for n in range(100)]
    found = with_other(task({"a": {"right": scores[:90], "wrong": scores[90:]}}), 0.05)
    assert found["min_score"] == 0.05
    decide = decider({"t": task(min_score=found["min_score"])})
    for score, label in ((0.05, "a"), (0.049999, None)):
        own = {"label": "a", "score": score, "probabilities": {"a": score}}
        assert decide({"t": own})["t"]["label"] == label
    assert decider({"t": task(min_score=0.5)}, min_score=0.0)({"t": own})["t"]["label"] == "a", "what is asked for wins"


def test_entities_and_several_labels_are_left_out_below_the_least_score() -> None:
    found = [{"label": "a", "score": score} for score in (0.2, 0.5, 0.9)]
    decide = decider({"n": task(family="ner"), "m": task(family="ner", min_score=0.6)}, min_score={"n": 0.5})
    assert decide({"n": found, "m": found}) == {"n": found[1:], "m": found[2:]}
    own = {"labels": ["a"], "probabilities": {"a": 0.9, "b": 0.4, "c": 0.1}}
    several = {"t": task(family="multilabel")}
    assert decider(several, min_score=0.4)({"t": own})["t"]["labels"] == ["a", "b"]
    assert decider({"t": task(family="multilabel", min_score=0.95)})({"t": own})["t"]["labels"] == []
    assert decider(several, top_k=1)({"t": own})["t"] == {"labels": ["a"], "probabilities": {"a": 0.9}}


def test_the_label_of_none_is_said_as_none_and_in_no_set() -> None:
    held = {"a": {"true": [0.3] * 20}, OTHER: {"true": [0.0] * 20}}
    own = {"label": OTHER, "score": 0.6, "probabilities": {OTHER: 0.6, "a": 0.3, "b": 0.1}}
    found = decider({"t": task(held, other=OTHER)}, coverage=0.9, top_k=2)({"t": own})["t"]
    assert found == {"label": None, "score": 0.6, "probabilities": {OTHER: 0.6, "a": 0.3}, "set": ["a"]}
    assert FAMILIES["classification"].compare(TextExample("x", "a"), found) == (frozenset({("a",)}), frozenset())


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"top_k": 0}, "top_k=0. Expected a whole number from 1"),
        ({"min_score": 1.5}, r"task n: min_score=1.5. Expected a number from 0 to 1"),
        ({"min_score": {"x": 0.5}}, "min_score for task x. Expected some of n, t"),
        ({"coverage": "much"}, "coverage='much'"),
    ],
)
def test_what_no_task_can_be_asked_for_is_refused(options: dict[str, Any], message: str) -> None:
    with pytest.raises(TrunklineError, match=message):
        decider({"n": task(family="ner"), "t": task()}, **options)
    for option in ({"top_k": 1}, {"coverage": 0.9}):
        with pytest.raises(TrunklineError, match=r"for n\. Expected a task"):
            decider({"n": task(family="ner")}, **option)


def test_evidence_is_what_was_said_of_texts_and_entities() -> None:
    chances = np.array([[0.7, 0.2, 0.1], [0.4, 0.5, 0.1], [0.1, 0.3, 0.6]])
    assert kept(chances, np.array([0, 0, 1])) == {
        "a": {"right": [0.7], "wrong": [], "true": [0.7, 0.4], "count": 2},
        "b": {"right": [], "wrong": [0.5], "true": [0.3], "count": 1},
        "c": {"right": [], "wrong": [0.6], "true": [], "count": 0},
    }
    text = NerExample("Ann in Rome", (), (Span(0, 3, "name"), Span(7, 11, "place")))
    guess = [(0, 3, "Ann", 0.8), (4, 6, "in", 0.3)]
    rows = [{"start": a, "end": b, "text": own, "label": "name", "score": score} for a, b, own, score in guess]
    found = FAMILIES["ner"].evidence([(text, rows)])
    assert found["name"] == {"right": [0.8], "wrong": [0.3], "true": [], "count": 1}
    assert found["place"] == {"right": [], "wrong": [], "true": [], "count": 1}
    y, x = clouds(np.random.default_rng(0), "ab", 2 * KEPT + 2)
    held = fit_head(FAMILIES["classification"], data_of(y, x, ("a", "b")), ("a", "b")).head.decisions["held_out"]
    assert sum(own["count"] for own in held.values()) == (2 * KEPT + 2) // 3


def clouds(rng: np.random.Generator, labels: str, count: int, noise: float = 1.0) -> tuple[list[str], np.ndarray]:
    """Features of texts around a place for each label."""
    places = {"a": 0, "b": 1, "c": 2, "d": 3}
    y = [labels[n % len(labels)] for n in range(count)]
    centres = 4.0 * np.eye(4, 12)[[places[label] for label in y]]
    return y, (centres + noise * rng.normal(size=(count, 12))).astype(np.float32)


def data_of(y: list[str], x: np.ndarray, labels: tuple[str, ...]) -> LabelledFeatures:
    texts = [f"text {n}" for n in range(len(y))]
    examples = [TextExample(text, label) for text, label in zip(texts, y, strict=True)]
    return LabelledFeatures(examples, [(text, []) for text in texts], list(x[:, None]), [[labels.index(o)] for o in y])


def test_unlabelled_texts_of_none_of_the_labels_are_found_and_learnt() -> None:
    rng = np.random.default_rng(5)
    y, x = clouds(rng, "abc", 36)
    mixed, unlabelled = clouds(rng, "abcd", 200)
    data = data_of(y, x, LABELS)
    taken = none_of(data, LABELS, list(unlabelled[:, None]), seed=0)
    assert len(taken) == 12, "as many as a label has"
    assert np.mean([mixed[n] == "d" for n in taken]) > 0.5, "a quarter of the unlabelled texts are"
    alike = clouds(rng, "abc", 30, noise=0.1)[1]
    assert none_of(data, LABELS, list(alike[:, None]), seed=0) == []

    def separation(labels: tuple[str, ...], rows: LabelledFeatures, score: Any) -> float:
        head = fit_head(FAMILIES["classification"], rows, labels).head
        own, fresh = clouds(np.random.default_rng(6), "abcd", 400)
        out, level = np.array(own) == "d", score(fresh @ head.weight + head.bias)
        return float(np.mean(level[out][:, None] > level[~out]))

    more = data_of(y + [OTHER] * len(taken), np.concatenate([x, unlabelled[taken]]), (*LABELS, OTHER))
    learnt = separation((*LABELS, OTHER), more, lambda z: z[:, -1] - np.logaddexp.reduce(z[:, :-1], axis=1))
    by_scores = separation(LABELS, data, lambda z: -(z - np.logaddexp.reduce(z, axis=1)[:, None]).max(axis=1))
    assert learnt > 0.98 > 0.97 > by_scores


def test_held_out_texts_have_no_say_in_their_own_factors() -> None:
    """Few held-out scores are not better than those of new texts: the mean over 40 draws of 12 texts."""
    gaps = []
    for seed in range(40):
        rng = np.random.default_rng(seed)
        y, x = clouds(rng, "ab", 12, noise=3.0)
        fitted = fit_head(FAMILIES["classification"], data_of(y, x, ("a", "b")), ("a", "b"))
        own, fresh = clouds(rng, "ab", 500, noise=3.0)
        z = fresh @ fitted.head.weight + fitted.head.bias
        chances = np.exp(z - np.logaddexp.reduce(z, axis=1)[:, None])
        index = np.array([("a", "b").index(label) for label in own])
        assert fitted.log_loss is not None
        gaps.append(fitted.log_loss + np.log(chances[np.arange(500), index]).mean())
    assert np.mean(gaps) > -np.std(gaps) / np.sqrt(len(gaps))
    assert dataclasses.asdict(fitted)["logits"].shape == (12, 2)
