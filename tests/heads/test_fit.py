"""The fit of a head: what a naive cross-validation chooses, on all labels, with probabilities that mean something."""

from __future__ import annotations

import random
from typing import Any

import numpy as np
import pytest
from sklearn.linear_model import LogisticRegression
from sklearn.preprocessing import StandardScaler

import tiny_models
import trunkline
from trunkline.bundle.parts import Head
from trunkline.encoder.resolve import find_embedded
from trunkline.heads import fit
from trunkline.heads.fit import PENALTIES, LabelledFeatures, best_temperature, cross_validate, fit_head
from trunkline.heads.linear import head_path
from trunkline.tasks import get_family
from trunkline.tasks.base import softmax
from trunkline.text.examples import NerExample, Span, TextExample
from trunkline.text.words import split_words

WIDTH = 12
CLASSIFICATION, NER = get_family("classification"), get_family("ner")
needs_package = pytest.mark.skipif(find_embedded()[0] is None, reason="the default encoder is not installed")


def texts_of(counts: dict[str, int], seed: int = 0, noise: float = 1.0, width: int = WIDTH) -> LabelledFeatures:
    """Texts whose features are a point for their label, and noise."""
    rng = np.random.default_rng(seed)
    labels = [label for label, count in counts.items() for _ in range(count)]
    points = np.random.default_rng(99).normal(size=(len(counts), width))
    index = {label: number for number, label in enumerate(sorted(counts))}
    targets = [[index[label]] for label in labels]
    features = [(points[target] + noise * rng.normal(size=(1, width))).astype(np.float32) for target in targets]
    examples = [TextExample(f"text {seed} {number}", label) for number, label in enumerate(labels)]
    return LabelledFeatures(examples, [(example.text, ()) for example in examples], features, targets)


def sentences(count: int, seed: int = 0, noise: float = 1.5) -> tuple[LabelledFeatures, tuple[str, ...]]:
    """Sentences with entities; features are a point for each tag, and noise."""
    rng, points = np.random.default_rng(seed), np.random.default_rng(98).normal(size=(99, WIDTH))
    rows = tiny_models.ner_rows(count, seed)
    examples = [
        NerExample(row["text"], split_words(row["text"]), tuple(Span(*entity) for entity in row["entities"]))
        for row in rows
    ]
    labels = NER.labels(examples)
    targets = [NER.unit_targets(example, labels, example.words) for example in examples]
    features = [(points[own] + noise * rng.normal(size=(len(own), WIDTH))).astype(np.float32) for own in targets]
    return LabelledFeatures(examples, [(e.text, e.words) for e in examples], features, targets), labels


def joined(one: LabelledFeatures, other: LabelledFeatures) -> LabelledFeatures:
    pairs = zip(
        (one.examples, one.texts, one.features, one.targets),
        (other.examples, other.texts, other.features, other.targets),
        strict=True,
    )
    return LabelledFeatures(*([*left, *right] for left, right in pairs))


def predicted(head: Head, data: LabelledFeatures) -> np.ndarray:
    return np.concatenate([softmax(part @ head.weight + head.bias) for part in data.features])


def naive_losses(data: LabelledFeatures, fold: np.ndarray) -> dict[float, tuple[float, np.ndarray]]:
    """Penalty -> mean held-out log loss, and the held-out log-probabilities, by scikit-learn."""
    x, y = np.concatenate(data.features), np.concatenate(data.targets)
    found = {}
    for penalty in PENALTIES:
        logs = np.zeros((len(y), len(set(y))))
        for number in np.unique(fold):
            out = fold == number
            scaler = StandardScaler().fit(x[~out])
            theirs = LogisticRegression(C=penalty, tol=1e-9, max_iter=10_000).fit(scaler.transform(x[~out]), y[~out])
            logs[out] = theirs.predict_log_proba(scaler.transform(x[out]))
        found[penalty] = -float(logs[np.arange(len(y)), y].mean()), logs
    return found


@pytest.mark.parametrize(("noise", "n_classes"), [(0.7, 2), (1.5, 2), (3.0, 2), (1.0, 4), (2.0, 4), (4.0, 4)])
def test_it_chooses_what_a_naive_cross_validation_by_log_loss_chooses(noise: float, n_classes: int) -> None:
    data = texts_of({"abcd"[number]: 12 + 4 * number for number in range(n_classes)}, noise=noise)
    fitted = fit_head(CLASSIFICATION, data, CLASSIFICATION.labels(data.examples), seed=3)
    folds = cross_validate(CLASSIFICATION, data, seed=3)
    fold = np.zeros(len(data.examples), int)
    for number, rows in folds.held_out.items():
        fold[list(rows)] = number
    naive = naive_losses(data, fold)
    best = min(naive, key=lambda penalty: naive[penalty][0])
    assert naive[fitted.penalty][0] == pytest.approx(naive[best][0], abs=2e-3)
    _, logs = naive[fitted.penalty]
    y = np.concatenate(data.targets)
    assert fitted.scores["accuracy"] == pytest.approx((logs.argmax(1) == y).mean(), abs=1e-6)
    temperature, loss = best_temperature(logs.astype(np.float32), y)
    assert fitted.temperature == pytest.approx(temperature, rel=0.05)
    assert fitted.log_loss == pytest.approx(loss, abs=3e-3)


def test_the_head_is_the_convex_fit_on_all_examples_at_the_chosen_penalty_and_temperature() -> None:
    data = texts_of({"a": 20, "b": 15, "c": 10}, noise=2.0)
    fitted = fit_head(CLASSIFICATION, data, ("a", "b", "c"))
    x, y = np.concatenate(data.features), np.concatenate(data.targets)
    whole = next(head_path(x, y, 3, (fitted.penalty,)))
    assert fitted.head.weight == pytest.approx(whole.weight.T / fitted.temperature, rel=2e-3, abs=1e-4)
    assert fitted.head.bias == pytest.approx(whole.bias / fitted.temperature, rel=2e-3, abs=1e-3)
    assert fitted.head.weight.astype(np.float16).astype(np.float32).tolist() == fitted.head.weight.tolist()


def test_the_penalty_is_chosen_by_log_loss_where_accuracy_is_right_for_all() -> None:
    data = texts_of({"a": 10, "b": 10}, noise=0.3)
    fitted = fit_head(CLASSIFICATION, data, ("a", "b"))
    assert fitted.scores["accuracy"] == 1.0
    sure = predicted(fitted.head, data).max(1)
    assert sure.min() > 0.95
    strongest = fit_head(CLASSIFICATION, data, ("a", "b"), penalties=(0.0003,))
    assert strongest.scores["accuracy"] == 1.0, "accuracy says nothing here"
    assert predicted(strongest.head, data).max(1).mean() < 0.8


def test_probabilities_are_right_as_often_as_they_say() -> None:
    train, fresh = texts_of({"a": 40, "b": 40}, 1, 2.0), texts_of({"a": 2000, "b": 2000}, 2, 2.0)
    fitted = fit_head(CLASSIFICATION, train, ("a", "b"))
    found, y = predicted(fitted.head, fresh), np.concatenate(fresh.targets)
    right, said = (found.argmax(1) == y).mean(), found.max(1).mean()
    assert abs(right - said) < 0.06
    loss = -np.log(found[np.arange(len(y)), y]).mean()
    assert loss == pytest.approx(fitted.log_loss, abs=0.12)


def test_a_dev_part_is_chosen_on_and_not_trained_on() -> None:
    train, dev = texts_of({"a": 12, "b": 12}, 1, 1.5), texts_of({"a": 9, "b": 6}, 2, 1.5)
    fitted = fit_head(CLASSIFICATION, joined(train, dev), ("a", "b"), n_dev=15)
    x, y = np.concatenate(train.features), np.concatenate(train.targets)
    alone = next(head_path(x, y, 2, (fitted.penalty,)))
    assert fitted.head.weight == pytest.approx(alone.weight.T / fitted.temperature, rel=2e-3, abs=1e-4)
    losses = {}
    wanted = np.concatenate(dev.targets)
    for penalty, head in zip(PENALTIES, head_path(x, y, 2, PENALTIES), strict=True):
        chance = head.probabilities(np.concatenate(dev.features))
        losses[penalty] = -float(np.log(chance[np.arange(15), wanted]).mean())
    assert losses[fitted.penalty] == pytest.approx(min(losses.values()), abs=1e-3)
    right = predicted(fitted.head, dev).argmax(1) == wanted
    assert fitted.scores["accuracy"] == pytest.approx(right.mean())
    assert fitted.predictions[:24] == [None] * 24
    assert [row["label"] for row in fitted.predictions[24:]] == [
        ("a", "b")[number] for number in predicted(fitted.head, dev).argmax(1)
    ]


def test_held_out_predictions_are_those_of_heads_that_did_not_see_them() -> None:
    # The label of a text is noise: what was seen would be known by heart.
    rng = np.random.default_rng(0)
    data = texts_of({"a": 40, "b": 40}, noise=1.0, width=60)
    shuffled = [[int(rng.integers(2))] for _ in data.targets]
    examples = [TextExample(e.text, "ab"[t[0]]) for e, t in zip(data.examples, shuffled, strict=True)]
    noise = LabelledFeatures(examples, data.texts, [rng.normal(size=(1, 60)).astype("f4") for _ in examples], shuffled)
    fitted = fit_head(CLASSIFICATION, noise, ("a", "b"))
    assert fitted.scores["accuracy"] < 0.7
    assert fitted.log_loss == pytest.approx(np.log(2), abs=0.08), "nothing can be known, and that is said"
    assert predicted(fitted.head, noise).max(1).mean() < 0.75


@pytest.mark.parametrize("seed", range(5))
def test_no_label_is_lost_at_any_seed(seed: int) -> None:
    data = texts_of({**dict.fromkeys("abcdefghij", 2), "z": 1}, noise=0.3)
    labels = CLASSIFICATION.labels(data.examples)
    fitted = fit_head(CLASSIFICATION, data, labels, seed=seed)
    assert (predicted(fitted.head, data).argmax(1) == np.concatenate(data.targets)).all()
    assert len(fitted.predictions) == 21
    assert all(prediction is not None for prediction in fitted.predictions)


def test_one_example_of_each_class_gives_a_head_that_says_something() -> None:
    data = texts_of({"a": 1, "b": 1, "c": 1}, noise=0.3)
    fitted = fit_head(CLASSIFICATION, data, ("a", "b", "c"))
    assert fitted.log_loss is None
    assert fitted.record()["log_loss"] is None
    found = predicted(fitted.head, data)
    assert (found.argmax(1) == np.arange(3)).all()
    assert found.max(1).min() > 0.5


def test_texts_that_are_one_but_for_case_are_held_out_together() -> None:
    data = texts_of({"a": 15, "b": 15}, noise=1.0)
    texts = [("Same Text" if number % 3 else "same  text", ()) for number in range(30)]
    examples = [TextExample(text, e.label) for (text, _), e in zip(texts, data.examples, strict=True)]
    half = LabelledFeatures(
        [*examples[:15], *data.examples[15:]], [*texts[:15], *data.texts[15:]], data.features, data.targets
    )
    held_out = cross_validate(CLASSIFICATION, half, seed=1).held_out.values()
    assert [set(rows) & set(range(15)) for rows in held_out if set(rows) & set(range(15))] == [set(range(15))]
    # All are one: there is nothing to hold out, and a head all the same.
    fitted = fit_head(CLASSIFICATION, LabelledFeatures(examples, texts, data.features, data.targets), ("a", "b"))
    assert fitted.head.weight.shape == (WIDTH, 2)


@pytest.mark.parametrize("family", ["classification", "ner"])
def test_it_is_deterministic_and_the_seed_is_that_of_the_folds(family: str) -> None:
    data, labels = (texts_of({"a": 15, "b": 15, "c": 9}, noise=2.5), ("a", "b", "c"))
    if family == "ner":
        data, labels = sentences(25)
    found = [fit_head(get_family(family), data, labels, seed=seed) for seed in (0, 0, 1)]
    assert found[0].record() == found[1].record() != found[2].record()
    assert (found[0].head.weight == found[1].head.weight).all()


def test_temperature_is_the_best_of_all() -> None:
    from scipy.optimize import minimize_scalar

    rng = np.random.default_rng(0)
    y = rng.integers(0, 3, 400)
    for spread in (0.6, 1.0, 3.0):
        logits = (spread * (np.eye(3)[y] * 2 + rng.gumbel(size=(400, 3)))).astype(np.float32)

        def loss(t: float, logits: Any = logits) -> float:
            return -float(np.log(softmax(logits / t))[np.arange(400), y].mean())

        best = minimize_scalar(loss, bounds=(0.5, 4.0), method="bounded").x
        temperature, found = best_temperature(logits, y)
        assert temperature == pytest.approx(best, rel=0.03)
        assert found == pytest.approx(loss(best), abs=1e-4)


def test_transitions_are_those_of_the_best_held_out_score_and_left_out_where_they_do_not_help(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    data, labels = sentences(40)
    chosen = fit_head(NER, data, labels)
    weights, scores = fit.TRANSITION_WEIGHTS, {}
    for weight in weights:
        monkeypatch.setattr(fit, "TRANSITION_WEIGHTS", (weight,))
        scores[weight] = fit_head(NER, data, labels).scores["f1"]
    assert chosen.scores["f1"] == max(scores.values()) > scores[0.0]
    assert chosen.head.transitions is not None
    learned = NER.transitions(data.targets, labels)
    assert learned is not None
    best = min(weight for weight, score in scores.items() if score == max(scores.values()))
    assert chosen.head.transitions == pytest.approx(learned * best, rel=1e-3, abs=1e-3)
    monkeypatch.setattr(fit, "TRANSITION_WEIGHTS", weights)
    monkeypatch.setattr(type(NER), "transitions", lambda self, targets, labels: -100 * np.abs(learned))
    assert fit_head(NER, data, labels).head.transitions is None


def test_held_out_scores_of_entities_are_those_of_exact_characters() -> None:
    data, labels = sentences(30, noise=0.2)
    fitted = fit_head(NER, data, labels)
    assert fitted.scores["f1"] == 1.0
    assert NER.score(data.examples, fitted.predictions)["f1"] == 1.0
    # An entity that the units cannot hold is a miss, though its units are labelled right.
    examples = [
        NerExample(e.text, e.words, tuple(Span(s.start, s.end - 1, s.label) for s in e.spans)) for e in data.examples
    ]
    assert fit_head(NER, LabelledFeatures(examples, data.texts, data.features, data.targets), labels).scores["f1"] == 0


@needs_package
def test_an_easy_task_of_the_default_model_gets_probabilities_that_can_be_used() -> None:
    rng = random.Random(0)
    things = ["milk", "bread", "two apples", "coffee", "a lamp", "socks", "rice", "paint", "candles", "a kettle"]
    people = ["mum", "the office", "Ana", "my landlord", "the garage", "Tom", "the vet", "grandpa", "Lena", "school"]
    lists = [f"{rng.choice(['put', 'add', 'write'])} {thing} on the shopping list" for thing in things]
    calls = [f"{rng.choice(['call', 'ring', 'phone'])} {person} for me please" for person in people]
    model = trunkline.load()
    report = model.fit("easy", [*lists[:6], *calls[:6]], ["list"] * 6 + ["call"] * 6)
    assert report.cross_validation["scores"]["accuracy"] == 1.0
    rows = [row["easy"] for row in model.predict([*lists[6:], *calls[6:]])]
    assert [row["label"] for row in rows] == ["list"] * 4 + ["call"] * 4
    assert min(row["score"] for row in rows) > 0.8
