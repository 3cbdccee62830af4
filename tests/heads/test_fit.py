"""The fit of a head: what a naive cross-validation chooses, on all labels, with probabilities that mean something."""

from __future__ import annotations

import random
from typing import Any

import numpy as np
import pytest
from scipy.optimize import minimize
from scipy.special import log_softmax
from sklearn.discriminant_analysis import LinearDiscriminantAnalysis
from sklearn.linear_model import LogisticRegression

import tiny_models
import trunkline
from scaling import scaler_of
from trunkline.bundle.parts import Head
from trunkline.encoder.resolve import find_embedded
from trunkline.errors import TrunklineError
from trunkline.heads import fit
from trunkline.heads.fit import FIRST, NOISE, PENALTIES, LabelledFeatures, convex_heads, cross_validate, fit_head
from trunkline.heads.linear import LEAST, STRENGTH
from trunkline.tasks import FAMILIES
from trunkline.tasks.classification import softmax
from trunkline.text.examples import NerExample, Span, TextExample
from trunkline.text.words import split_words

WIDTH = 12
CLASSIFICATION, NER = FAMILIES["classification"], FAMILIES["ner"]
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


def naive_factors(members: list[np.ndarray], y: np.ndarray) -> np.ndarray:
    """How much log-probabilities of models count, by a solver for general problems."""
    spreads = np.array([np.sqrt(np.square(part - part.mean(1, keepdims=True)).mean()) for part in members])
    scaled, even = np.stack(members) / spreads[:, None, None], 1 / len(members)

    def objective(found: np.ndarray) -> float:
        loss = -log_softmax(np.tensordot(found, scaled, 1), axis=1)[np.arange(len(y)), y].sum()
        return float(loss + len(members) * STRENGTH / 2 * np.square(found - even).sum())

    bounds = [(LEAST * even, None)] * len(members)
    return minimize(objective, np.full(len(members), even), bounds=bounds, tol=1e-12).x / spreads


def naive_fit(train: Any, fold: np.ndarray, fresh: np.ndarray) -> tuple[float, np.ndarray, np.ndarray]:
    """Penalty, held-out and fresh log-probabilities, by scikit-learn, one model after the other."""

    def logits(model: Any, rows: np.ndarray) -> np.ndarray:
        found = model.decision_function(rows)
        return found if found.ndim == 2 else np.stack([-found / 2, found / 2], axis=1)

    x, y = train
    scaler = scaler_of(x)
    x, fresh = scaler(x), scaler(fresh)

    def held_out(model: Any) -> np.ndarray:
        logs = np.zeros((len(y), len(set(y))))
        for number in np.unique(fold):
            out = fold == number
            logs[out] = logits(model.fit(x[~out], y[~out]), x[out])
        return logs

    def regression(penalty: float) -> Any:
        return LogisticRegression(C=penalty, tol=1e-9, max_iter=10_000)

    logs = {penalty: held_out(regression(penalty)) for penalty in PENALTIES}
    losses = {}
    for penalty, part in logs.items():
        factor = naive_factors([part], y)[0]
        losses[penalty] = -log_softmax(factor * part, axis=1)[np.arange(len(y)), y]
    first = place = PENALTIES.index(FIRST)
    for direction in (1, -1):
        while place == first or (place - first) * direction > 0:
            if not 0 <= place + direction < len(PENALTIES):
                break
            gain = losses[PENALTIES[place]] - losses[PENALTIES[place + direction]]
            if gain.mean() <= NOISE * gain.std() / np.sqrt(len(y)):
                break
            place += direction
    spread = LinearDiscriminantAnalysis(solver="lsqr", shrinkage=0.5)
    members = [logs[PENALTIES[place]], held_out(spread)]
    found = naive_factors(members, y)
    models = [regression(PENALTIES[place]).fit(x, y), spread.fit(x, y)]
    parts = [logits(model, fresh) for model in models]
    judged = np.zeros(members[0].shape)
    for out in (fold == number for number in np.unique(fold)):
        # What is held out has no say in its own factors.
        own = naive_factors([part[~out] for part in members], y[~out])
        judged[out] = np.tensordot(own, [part[out] for part in members], 1)
    return PENALTIES[place], log_softmax(judged, axis=1), log_softmax(np.tensordot(found, parts, 1), axis=1)


@pytest.mark.parametrize(("noise", "n_classes"), [(0.7, 2), (1.5, 2), (3.0, 2), (1.0, 4), (2.0, 4), (6.0, 3)])
def test_it_is_what_models_of_scikit_learn_come_to_one_after_the_other(noise: float, n_classes: int) -> None:
    counts = {"abcd"[number]: 12 + 9 * number for number in range(n_classes)}
    data, fresh = texts_of(counts, noise=noise), texts_of(counts, 1, noise)
    fitted = fit_head(CLASSIFICATION, data, CLASSIFICATION.labels(data.examples), seed=3)
    folds = cross_validate(CLASSIFICATION, data, seed=3)
    fold = np.zeros(len(data.examples), int)
    for number, rows in enumerate(folds.held_out):
        fold[list(rows)] = number
    train = np.concatenate(data.features), np.concatenate(data.targets)
    penalty, held_out, logs = naive_fit(train, fold, np.concatenate(fresh.features))
    assert fitted.penalty == penalty
    y = train[1]
    assert fitted.log_loss == pytest.approx(-held_out[np.arange(len(y)), y].mean(), abs=5e-3)
    assert fitted.scores["accuracy"] == pytest.approx((held_out.argmax(1) == y).mean(), abs=1e-6)
    assert predicted(fitted.head, fresh) == pytest.approx(np.exp(logs), abs=0.02)
    assert fitted.head.weight.astype(np.float16).astype(np.float32).tolist() == fitted.head.weight.tolist()


def test_a_penalty_is_left_where_another_is_surely_better() -> None:
    clear, noise = (
        texts_of(dict.fromkeys("abcd", 100), noise=0.3),
        texts_of(dict.fromkeys("abcd", 100), noise=8.0, width=60),
    )
    weaker, stronger = (fit_head(CLASSIFICATION, data, tuple("abcd")).penalty for data in (clear, noise))
    assert stronger < FIRST < weaker


@pytest.mark.parametrize("count", [0, 5])
def test_the_first_penalty_stays_where_others_lose_as_much(count: int) -> None:
    asked: list[float] = []
    assert fit._climb(PENALTIES, lambda penalty: asked.append(penalty) or np.zeros(count)) == FIRST
    assert len(asked) == 3, "one on either side is tried"


def test_labels_count_alike_where_they_are_balanced() -> None:
    counts = {"common": 90, "rare": 10}
    data, fresh = texts_of(counts, noise=4.0), texts_of({"common": 500, "rare": 500}, 1, 4.0)
    plain, balanced = (fit_head(CLASSIFICATION, data, ("common", "rare"), class_weight=w) for w in (None, "balanced"))
    found = [predicted(fitted.head, fresh).argmax(1) for fitted in (plain, balanced)]
    recall = [(guess[500:] == 1).mean() for guess in found]
    assert recall[1] > recall[0] + 0.1
    even = texts_of({"a": 20, "b": 20}, noise=2.0)
    one, two = (fit_head(CLASSIFICATION, even, ("a", "b"), class_weight=weight) for weight in (None, "balanced"))
    assert one.record() == two.record()
    with pytest.raises(TrunklineError, match="class_weight='even' for classification"):
        fit_head(CLASSIFICATION, data, ("common", "rare"), class_weight="even")
    with pytest.raises(TrunklineError, match="for ner"):
        fit_head(NER, *sentences(9), class_weight="balanced")


def test_a_label_that_is_never_predicted_is_named() -> None:
    data = texts_of({"a": 60, "b": 60, "c": 2}, noise=3.0)
    fitted = fit_head(CLASSIFICATION, data, ("a", "b", "c"))
    said = {prediction["label"] for prediction in fitted.predictions}
    assert fitted.never_predicted == sorted({"a", "b", "c"} - said) == ["c"]
    assert fit_head(CLASSIFICATION, texts_of({"a": 9, "b": 9}, noise=0.3), ("a", "b")).never_predicted == []


def test_nine_texts_that_are_told_apart_make_nobody_certain() -> None:
    data = texts_of({"a": 3, "b": 3, "c": 3}, noise=0.05)
    fitted = fit_head(CLASSIFICATION, data, ("a", "b", "c"))
    sure = predicted(fitted.head, data).max(1)
    assert fitted.scores["accuracy"] == 1.0
    assert 0.7 < sure.min() <= sure.max() < 0.98


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
    wanted = np.concatenate(dev.targets)
    flipped = LabelledFeatures(
        [TextExample(e.text, "ba"[t[0]]) for e, t in zip(dev.examples, dev.targets, strict=True)],
        dev.texts,
        dev.features,
        [[1 - t[0]] for t in dev.targets],
    )
    # Wrong labels of dev change how sure the head is, not which side of the border a text is on.
    other = fit_head(CLASSIFICATION, joined(train, flipped), ("a", "b"), n_dev=15, penalties=(fitted.penalty,))
    for part in (train, dev):
        assert (predicted(other.head, part).argmax(1) == predicted(fitted.head, part).argmax(1)).all()
    assert predicted(other.head, dev).max(1).mean() < predicted(fitted.head, dev).max(1).mean() - 0.1
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
    held_out = cross_validate(CLASSIFICATION, half, seed=1).held_out
    assert [set(rows) & set(range(15)) for rows in held_out if set(rows) & set(range(15))] == [set(range(15))]
    # All are one: there is nothing to hold out, and a head all the same.
    fitted = fit_head(CLASSIFICATION, LabelledFeatures(examples, texts, data.features, data.targets), ("a", "b"))
    assert fitted.head.weight.shape == (WIDTH, 2)


@pytest.mark.parametrize("family", ["classification", "ner"])
def test_it_is_deterministic_and_the_seed_is_that_of_the_folds(family: str) -> None:
    data, labels = (texts_of({"a": 15, "b": 15, "c": 9}, noise=2.5), ("a", "b", "c"))
    if family == "ner":
        data, labels = sentences(25)
    found = [fit_head(FAMILIES[family], data, labels, seed=seed) for seed in (0, 0, 1)]
    assert found[0].record() == found[1].record() != found[2].record()
    assert (found[0].head.weight == found[1].head.weight).all()


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


@pytest.mark.parametrize("n_dev", [0, 6])
def test_transitions_are_learnt_from_what_is_trained_on_alone(n_dev: int, monkeypatch: pytest.MonkeyPatch) -> None:
    data, labels = sentences(20)
    learnt, original = [], type(NER).transitions

    def watched(self: Any, targets: Any, labels: Any) -> Any:
        learnt.append(list(targets))
        return original(self, targets, labels)

    monkeypatch.setattr(type(NER), "transitions", watched)
    fit_head(NER, data, labels, n_dev=n_dev, seed=1)
    trained = cross_validate(NER, data, n_dev, seed=1).trained
    assert learnt == [[data.targets[number] for number in rows] for rows in [*trained, range(20 - n_dev)]]


def test_of_transitions_that_score_alike_the_weakest_are_taken() -> None:
    fitted = fit_head(NER, *sentences(30, noise=0.2))
    assert fitted.scores["f1"] == 1.0
    assert fitted.head.transitions is None


def test_tags_of_one_type_learn_from_each_other(monkeypatch: pytest.MonkeyPatch) -> None:
    data, labels = sentences(20)

    def likeness() -> list[float]:
        """Of the weights of B and I of a type, for both ways of fitting."""
        heads = fit_head(NER, data, labels).head, convex_heads(NER, data, range(20), labels, FIRST)[0]
        columns = [part.weight / np.maximum(np.linalg.norm(part.weight, axis=0), 1e-9) for part in heads]
        return [float((part[:, 1::2] * part[:, 2::2]).sum(axis=0).mean()) for part in columns]

    before = likeness()
    monkeypatch.setattr(type(NER), "label_covariance", lambda self, labels: None)
    assert all(one > other + 0.05 for one, other in zip(before, likeness(), strict=True))


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


@needs_package
def test_a_report_names_the_labels_that_nothing_predicts_and_balanced_weights_make_them_likelier() -> None:
    texts = [f"please {('send', 'give', 'bring')[number % 3]} me item {number}" for number in range(43)]
    labels = ["gift" if number in (7, 20, 33) else "order" for number in range(43)]
    model = trunkline.load()
    plain = model.fit("plain", texts, labels)
    model.fit("balanced", texts, labels, class_weight="balanced")
    assert plain.cross_validation["never_predicted"] == ["gift"]
    assert any(w.startswith("never predicted on held-out examples: gift (3 examples)") for w in plain.warnings)
    rows = model.predict(["please send me item 50", "please give me item 51"])
    chances = [[row[task]["probabilities"]["gift"] for row in rows] for task in ("plain", "balanced")]
    assert np.mean(chances[1]) > np.mean(chances[0]) + 0.1
