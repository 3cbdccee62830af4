"""Adapting a task: the head, LoRA from the head's start, and the same answers from the file as from the fit."""

from __future__ import annotations

import dataclasses
import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from sklearn.linear_model import LogisticRegression
from sklearn.preprocessing import StandardScaler
from trunkline.adapt.fit import TaskData, adapt, fitting
from trunkline.adapt.lora import _Batches, starting_lora

import tiny_models
import trunkline
from trunkline.config import AdapterSection, AdaptSection
from trunkline.encoder.adapter_file import AdapterFile, lora_hash
from trunkline.encoder.bundle_files import Loaded, add_task, load_any, save_bundle
from trunkline.errors import MismatchError, TrunklineError
from trunkline.heads.linear import LinearHead, best_head, fit_head, head_path, mean_loss
from trunkline.tasks import get_family
from trunkline.text.examples import NerExample, Span, TextExample
from trunkline.text.packing import text_unit
from trunkline.text.words import split_words

HEAD = AdaptSection(mode="head", precision="fp32")
LORA = AdaptSection(
    mode="lora",
    precision="fp32",
    epochs=4,
    patience=4,
    tokens=128,
    rate=5e-3,
    dropout=0.0,
    adapter=AdapterSection(rank=4),
)


def text_examples(count: int, seed: int) -> list[TextExample]:
    rng = random.Random(seed)
    rows = []
    for _ in range(count):
        label, words = rng.choice(
            [("place", tiny_models.PLACES), ("name", tiny_models.NAMES), ("org", tiny_models.ORGS)]
        )
        rows.append(TextExample(" ".join(rng.sample(words, 2)), label))
    return rows


def ner_examples(count: int, seed: int) -> list[NerExample]:
    return [
        NerExample(row["text"], split_words(row["text"]), tuple(Span(*entity) for entity in row["entities"]))
        for row in tiny_models.ner_rows(count, seed)
    ]


def task_of(family: str, **changes: Any) -> TaskData:
    make: Callable[[int, int], list[Any]] = text_examples if family == "classification" else ner_examples
    task = TaskData("easy", family, make(60, 1), make(30, 2), make(30, 3))
    return dataclasses.replace(task, **changes)


def with_primary(tiny: Loaded, family: str) -> Loaded:
    lora = tiny_models.random_adapter(tiny.encoder.config, (2, 3), seed=5)
    return dataclasses.replace(tiny, primaries={family: AdapterFile(family, tiny.backbone, 2, lora)})


def test_a_head_on_separable_features_is_always_right() -> None:
    rng = np.random.default_rng(0)
    targets = rng.integers(0, 4, 200)
    features = (np.eye(4)[targets] @ rng.normal(size=(4, 16)) * 5 + rng.normal(size=(200, 16)) * 0.1 + 3).astype(
        np.float32
    )
    for penalty in (0.01, 1.0):
        head = fit_head(features, targets, 4, penalty)
        assert (head.probabilities(features).argmax(1) == targets).all()
        assert head.probabilities(features).sum(1) == pytest.approx(np.ones(200), abs=1e-5)


@pytest.mark.parametrize("present", [(2,), (1, 3)])
def test_labels_without_an_example_never_win(present: tuple[int, ...]) -> None:
    rng = np.random.default_rng(0)
    targets = np.asarray(present)[rng.integers(0, len(present), 50)]
    features = (np.eye(5)[targets] + rng.normal(size=(50, 5)) * 0.1).astype(np.float32)
    head = fit_head(features, targets, 5, 1.0)
    assert (head.probabilities(features).argmax(1) == targets).all()
    assert set(head.probabilities(rng.normal(size=(500, 5)).astype(np.float32) * 100).argmax(1)) <= set(present)


def test_units_without_a_known_label_do_not_change_the_head() -> None:
    rng = np.random.default_rng(0)
    features, targets = rng.normal(size=(60, 5)).astype(np.float32), rng.integers(0, 3, 60)
    noisy = np.concatenate([features, rng.normal(size=(40, 5)).astype(np.float32) * 50])
    one = fit_head(features, targets, 3, 0.1)
    two = fit_head(noisy, np.concatenate([targets, np.full(40, -1)]), 3, 0.1)
    assert (one.weight == two.weight).all()
    assert (one.bias == two.bias).all()


def test_the_best_penalty_is_kept_and_the_stronger_one_wins_ties() -> None:
    rng = np.random.default_rng(0)
    features, targets = rng.normal(size=(60, 5)).astype(np.float32), rng.integers(0, 3, 60)
    scores = iter([0.2, 0.9, 0.9])
    seen = []

    def finish(head: LinearHead) -> tuple[LinearHead, float]:
        seen.append(head)
        return dataclasses.replace(head, transitions=np.full((4, 3), len(seen), np.float32)), next(scores)

    head, penalty, score = best_head(features, targets, 3, (1.0, 0.01, 0.1), finish)
    assert (penalty, score) == (0.1, 0.9)
    assert (head.weight == seen[1].weight).all()
    assert head.transitions is not None
    assert (head.transitions == 2).all(), "what the choice adds is kept"


def test_a_head_sought_from_a_stronger_penalty_is_the_one_sought_from_nothing() -> None:
    rng = np.random.default_rng(0)
    features, targets = rng.normal(size=(400, 6)).astype(np.float32) * 3 + 1, rng.integers(0, 4, 400)
    features[:, 0] += targets
    penalties = (0.001, 0.01, 0.1)
    for penalty, warm in zip(penalties, head_path(features, targets, 4, penalties), strict=True):
        cold = fit_head(features, targets, 4, penalty)
        assert warm.probabilities(features) == pytest.approx(cold.probabilities(features), abs=0.01)


@pytest.mark.parametrize("n_labels", [2, 5])
def test_a_head_is_the_one_that_scikit_learn_finds(n_labels: int) -> None:
    rng = np.random.default_rng(n_labels)
    features = rng.normal(size=(3000, 12)).astype(np.float32) @ rng.normal(size=(12, 12)).astype(np.float32)
    targets = (features[:, :n_labels] + rng.gumbel(size=(3000, n_labels)) * 3).argmax(1)
    scaled = StandardScaler().fit_transform(features)
    for penalty, head in zip((0.001, 0.1), head_path(features, targets, n_labels, (0.001, 0.1)), strict=True):
        theirs = LogisticRegression(C=penalty, tol=1e-8, max_iter=5000).fit(scaled, targets)
        assert head.probabilities(features) == pytest.approx(theirs.predict_proba(scaled), abs=5e-3)


def test_the_loss_of_a_head_has_the_gradient_that_differences_give() -> None:
    rng = np.random.default_rng(0)
    # More rows than a block, so that blocks add up.
    x, y = rng.normal(size=(1500, 3)).astype(np.float32), rng.integers(0, 4, 1500)
    weight, bias = rng.normal(size=(4, 3)), rng.normal(size=4)
    value, by_weight, by_bias = mean_loss(x, y, weight, bias)
    logits = x.astype(np.float64) @ weight.T + bias
    assert value == pytest.approx(np.mean(np.log(np.exp(logits).sum(1)) - logits[np.arange(1500), y]), rel=1e-5)
    for label in range(4):
        bump = np.eye(4)[label] * 0.01
        change = (mean_loss(x, y, weight, bias + bump)[0] - mean_loss(x, y, weight, bias - bump)[0]) / 0.02
        assert by_bias[label] == pytest.approx(change, abs=1e-4)
        step = np.outer(bump, [1.0, 0.0, 0.0])
        change = (mean_loss(x, y, weight + step, bias)[0] - mean_loss(x, y, weight - step, bias)[0]) / 0.02
        assert by_weight[label, 0] == pytest.approx(change, abs=1e-4)


def test_the_same_input_gives_the_same_heads() -> None:
    rng = np.random.default_rng(0)
    features, targets = rng.normal(size=(300, 20)).astype(np.float32), rng.integers(0, 7, 300)
    one, two = (list(head_path(features, targets, 7, (0.01, 1.0))) for _ in range(2))
    assert all((a.weight == b.weight).all() and (a.bias == b.bias).all() for a, b in zip(one, two, strict=True))


def test_a_bundle_decodes_with_the_transitions_of_its_task(tiny: Loaded, tmp_path: Path) -> None:
    task = task_of("ner")
    fitted = adapt(task, tiny, HEAD).adapter
    assert fitted.head is not None
    shifted = np.random.default_rng(0).normal(size=(len(fitted.labels) + 1, len(fitted.labels))).astype(np.float32) * 9
    head = dataclasses.replace(fitted.head, transitions=shifted)
    save_bundle(tiny, tmp_path)
    add_task(tmp_path, "easy", dataclasses.replace(fitted, head=head))
    family = get_family("ner")
    features = fitting.example_features(family, task.test, tiny.encoder, tiny.tokenizer)
    expected, plain = (fitting.predict(family, h, features, task.test, fitted.labels) for h in (head, fitted.head))
    found = trunkline.load(tmp_path).predict([example.text for example in task.test])
    assert [row["easy"] for row in found] == expected
    assert expected != plain


def test_transitions_are_weighted_on_dev_and_left_out_where_they_do_not_help(tiny: Loaded) -> None:
    task = task_of("ner")
    family = get_family("ner")
    labels = family.labels(task.train)
    features = fitting.example_features(family, task.dev, tiny.encoder, tiny.tokenizer)
    dev = features, task.dev
    targets = [family.unit_targets(example, labels, split_words(example.text)) for example in task.train]
    head = fit_head(
        np.concatenate(features),
        np.concatenate([family.unit_targets(e, labels, split_words(e.text)) for e in task.dev]),
        len(labels),
        1.0,
    )
    learned = family.transitions(targets, labels)
    assert learned is not None
    found = {
        weight: family.score(
            task.dev,
            fitting.predict(family, dataclasses.replace(head, transitions=learned * np.float32(weight)), *dev, labels),
        )["f1"]
        for weight in fitting.WEIGHTS
    }
    chosen, score = fitting.with_transitions(family, head, learned, dev, labels)
    assert score == pytest.approx(max(found.values()))
    assert family.score(task.dev, fitting.predict(family, chosen, *dev, labels))["f1"] == pytest.approx(score)
    harmful = -100 * np.abs(learned)
    assert fitting.with_transitions(family, chosen, harmful, dev, labels)[0].transitions is None


@pytest.mark.parametrize("section", [HEAD, LORA], ids=["head", "lora"])
@pytest.mark.parametrize("family", ["classification", "ner"])
def test_an_easy_task_is_learnt(family: str, section: AdaptSection, tiny: Loaded) -> None:
    result = adapt(task_of(family), tiny, section)
    measure = get_family(family).main_score
    assert result.dev[measure] > 0.8
    assert result.test[measure] > 0.8
    assert len(result.predictions) == 30
    assert result.adapter.info["mode"] == section.mode


@pytest.mark.parametrize("section", [HEAD, LORA], ids=["head", "lora"])
@pytest.mark.parametrize("family", ["classification", "ner"])
@pytest.mark.parametrize("primary", [False, True], ids=["bare", "primary"])
def test_the_bundle_predicts_what_the_fit_scored(
    family: str, section: AdaptSection, primary: bool, tiny: Loaded, tmp_path: Path
) -> None:
    start = with_primary(tiny, family) if primary else tiny
    save_bundle(start, tmp_path)
    # Fewer epochs than it takes, so that the predictions are not all right.
    task = task_of(family)
    result = adapt(dataclasses.replace(task, train=task.train[:12]), start, section.model_copy(update={"epochs": 1}))
    add_task(tmp_path, "easy", result.adapter)
    bundle = trunkline.load(tmp_path)
    predicted = [row["easy"] for row in bundle.predict([example.text for example in task.test])]
    assert get_family(family).score(task.test, predicted) == result.test
    for ours, theirs in zip(predicted, result.predictions, strict=True):
        if family == "classification":
            assert ours["label"] == theirs["label"]
            assert ours["score"] == pytest.approx(theirs["score"], abs=1e-4)
        else:
            assert [(e["start"], e["end"], e["label"]) for e in ours] == [
                (e["start"], e["end"], e["label"]) for e in theirs
            ]


def test_a_head_remembers_the_primary_adapter_it_sits_on(tiny: Loaded, tmp_path: Path) -> None:
    start = with_primary(tiny, "classification")
    result = adapt(task_of("classification"), start, HEAD)
    assert result.adapter.lora is None
    assert result.adapter.primary == lora_hash(start.primary("classification")) != ""
    save_bundle(tiny, tmp_path)
    with pytest.raises(MismatchError, match="task easy sits on classification adapter"):
        add_task(tmp_path, "easy", result.adapter)


@pytest.mark.parametrize("missing", ["train", "dev"])
def test_a_task_without_train_or_dev_is_refused(missing: str, tiny: Loaded) -> None:
    with pytest.raises(TrunklineError, match=r"task easy has .*0 .*examples.*Give --dev"):
        adapt(task_of("classification", **{missing: []}), tiny, HEAD)


def test_a_task_without_test_has_no_test_scores(tiny: Loaded) -> None:
    result = adapt(task_of("classification", test=()), tiny, HEAD)
    assert (result.test, result.predictions) == ({}, [])
    assert result.dev["accuracy"] > 0.8


def test_lora_starts_at_a_copy_of_the_primary_adapter(tiny: Loaded) -> None:
    start = with_primary(tiny, "ner")
    primary = start.primary("ner")
    lora = starting_lora(start, "ner", AdapterSection(rank=2))
    assert lora_hash(lora) == lora_hash(primary)
    assert lora is not primary
    new = starting_lora(start, "classification", AdapterSection(rank=2, layers=1, targets=("up",)))
    assert (new.config.rank, new.config.layers, new.config.targets) == (2, (3,), ("up",))
    assert all(not tensor.any() for name, tensor in new.state_dict().items() if name.endswith(".b"))


@pytest.mark.parametrize("family", ["classification", "ner"])
def test_epoch_0_of_lora_is_the_head_and_training_never_ends_below_it(family: str, tiny: Loaded) -> None:
    start = with_primary(tiny, family)
    task = task_of(family)
    task = dataclasses.replace(task, train=task.train[:9])
    head = adapt(task, start, HEAD)
    still = LORA.model_copy(update={"rate": 1e-30, "head_rate": 1e-30, "epochs": 1})
    unmoved = adapt(task, start, still)
    assert unmoved.adapter.info["best_epoch"] == 0
    assert unmoved.dev == head.dev
    assert unmoved.test == head.test
    assert lora_hash(unmoved.adapter.lora) == lora_hash(start.primary(family))
    wild = adapt(task, start, LORA.model_copy(update={"rate": 1.0, "head_rate": 1.0}))
    measure = get_family(family).main_score
    assert wild.dev[measure] >= head.dev[measure]


def test_lora_trains_the_adapter_and_leaves_backbone_and_primary_adapter_alone(tiny: Loaded) -> None:
    start = with_primary(tiny, "ner")
    before = {name: tensor.clone() for name, tensor in start.encoder.state_dict().items()}
    primary = lora_hash(start.primary("ner"))
    result = adapt(task_of("ner", train=ner_examples(8, 9)), start, LORA)
    assert tiny_models.same_bits(start.encoder.state_dict(), before)
    assert lora_hash(start.primary("ner")) == primary
    assert result.adapter.info["best_epoch"] > 0
    assert lora_hash(result.adapter.lora) != primary
    assert result.adapter.primary == ""


def test_the_same_seed_gives_the_same_adapter_and_another_seed_another(tiny: Loaded) -> None:
    task = task_of("ner", train=ner_examples(8, 9))
    hashes = []
    for seed in (0, 0, 1):
        torch.randn(5)
        hashes.append(lora_hash(adapt(task, tiny, LORA.model_copy(update={"dropout": 0.3}), seed=seed).adapter.lora))
    assert hashes[0] == hashes[1] != hashes[2]


def test_known_features_give_the_same_result_as_computed_ones(tiny: Loaded) -> None:
    from trunkline.adapt.fit import task_features

    task = task_of("ner")
    start = with_primary(tiny, "ner")
    known = adapt(task, start, HEAD, features=task_features(task, start))
    computed = adapt(task, start, HEAD)
    assert (known.test, known.dev) == (computed.test, computed.dev)
    assert known.adapter.head is not None
    assert computed.adapter.head is not None
    assert (known.adapter.head.weight == computed.adapter.head.weight).all()


def test_gradients_of_the_loop_are_those_of_the_features_that_are_scored(tiny: Loaded) -> None:
    from trunkline.adapt.lora import TaskModel

    start = with_primary(tiny, "classification")
    family = get_family("classification")
    task = task_of("classification")
    labels = family.labels(task.train)
    head = fit_head(np.random.default_rng(0).normal(size=(30, 32)).astype(np.float32), np.arange(30) % 3, 3, 1.0)
    model = TaskModel(starting_lora(start, "classification", AdapterSection()), head).eval()
    batch = tiny_models.token_batch(start.tokenizer, [example.text for example in task.dev])
    with torch.no_grad():
        logits = model(start.encoder, batch, 0.5)
    features = fitting.example_features(
        family, task.dev, start.encoder, start.tokenizer, start.primary("classification")
    )
    expected = np.concatenate([head.probabilities(part) for part in features])
    assert logits.softmax(-1).numpy() == pytest.approx(expected, abs=1e-5)
    assert len(labels) == 3


def test_texts_longer_than_the_token_budget_are_trained_on(tiny: Loaded) -> None:
    rng = random.Random(0)
    long = [
        TextExample(" ".join(rng.choices(words, k=rng.choice([2, 90, 200]))), label)
        for label, words in (("place", tiny_models.PLACES), ("name", tiny_models.NAMES))
        for _ in range(6)
    ]
    task = TaskData("long", "classification", long, text_examples(9, 1)[:9])
    result = adapt(task, tiny, LORA.model_copy(update={"tokens": 16, "epochs": 1}))
    assert result.adapter.info["epochs"] == 1


@pytest.mark.parametrize("budget", [1, 16, 64, 100, 10**6])
def test_every_batch_of_an_epoch_has_examples_and_every_example_is_in_one(budget: int, tiny: Loaded) -> None:
    rng = random.Random(budget)
    texts = [" ".join(rng.choices(tiny_models.WORDS, k=rng.choice([1, 3, 150]))) for _ in range(23)]
    units = [text_unit(tokens) for tokens in tiny.tokenizer.encode(texts)]
    order = _Batches(units, budget, seed=0)
    epochs = []
    for epoch in range(3):
        batches = [order.at(epoch * order.per_epoch + number) for number in range(order.per_epoch)]
        assert all(batches)
        epochs.append([index for batch in batches for index in batch])
        assert sorted(epochs[-1]) == list(range(23))
    assert epochs[0] != epochs[1]


def test_adapting_in_another_precision_after_pre_finetuning_in_one_process(
    tiny_folder: Callable[[str], Path], tmp_path: Path
) -> None:
    from trunkline.prefinetune import prefinetune

    recipe = tiny_models.recipe_of(tiny_folder("bert"), tmp_path / "data", optimizer={"steps": 1})
    start = load_any(str(prefinetune(recipe, tmp_path / "run")))
    section = LORA.model_copy(update={"precision": "bf16", "epochs": 1})
    assert adapt(task_of("classification"), start, section).dev["accuracy"] > 0.5
    assert adapt(task_of("classification"), start, LORA.model_copy(update={"epochs": 1})).dev["accuracy"] > 0.5
