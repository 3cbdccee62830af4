"""LoRA from few labels: it starts at the head and the primary adapter, is judged on held-out labels, ends on all."""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import deployed
import tiny_models
import trunkline
from trunkline import adapt as few_labels
from trunkline.adapt import LoraSettings, TunedLora, tune_lora
from trunkline.encoder import encoder as encoder_module
from trunkline.encoder.bundle_files import Loaded, load_any, save_bundle
from trunkline.encoder.encoder import FeatureRequest, TokenBatch, TrunkStates, branch_features
from trunkline.encoder.lora import LoraAdapter
from trunkline.errors import TrunklineError
from trunkline.tasks import FAMILIES
from trunkline.text.examples import NerExample, Span, TextExample
from trunkline.text.tokens import UnitText, pack
from trunkline.text.words import split_words


def text_examples(count: int, seed: int, words: int = 2) -> list[TextExample]:
    rng = random.Random(seed)
    kinds = [("place", tiny_models.PLACES), ("name", tiny_models.NAMES), ("org", tiny_models.ORGS)]
    drawn = [rng.choice(kinds) for _ in range(count)]
    return [TextExample(" ".join(rng.choices(names, k=words)), label) for label, names in drawn]


def ner_examples(count: int, seed: int) -> list[NerExample]:
    return [
        NerExample(row["text"], split_words(row["text"]), tuple(Span(*entity) for entity in row["entities"]))
        for row in tiny_models.ner_rows(count, seed)
    ]


EXAMPLES: dict[str, Callable[[int, int], list[Any]]] = {"classification": text_examples, "ner": ner_examples}
QUICK = LoraSettings(rank=4, targets=("query", "value"), steps=12, rate=5e-3, batch=8, dropout=0.0)


@pytest.fixture(autouse=True)
def _exact(monkeypatch: pytest.MonkeyPatch) -> None:
    # Some processors train in bf16 by themselves, which says little of what is right to the last digits.
    monkeypatch.setattr(few_labels, "resolve_precision", lambda name: "fp32")


@pytest.fixture
def folder(tiny: Loaded, tmp_path: Path) -> Path:
    """A bundle with primary adapters and without tasks."""
    from dataclasses import replace

    save_bundle(replace(deployed.whole(tiny), tasks={}), tmp_path / "bundle")
    return tmp_path / "bundle"


def tuned(
    loaded: Loaded,
    family: str,
    examples: Sequence[Any],
    settings: LoraSettings = QUICK,
    primary: LoraAdapter | None = None,
    n_dev: int = 0,
) -> TunedLora:
    save_bundle(loaded, folder := Path(_scratch()) / "bundle")
    model, kind = trunkline.load(folder), FAMILIES[family]
    labels = kind.labels(examples[: len(examples) - n_dev])
    data, units = model.labelled(examples, family, "text" if family == "classification" else "words", labels)
    return tune_lora(loaded.encoder, primary, kind, data, units, labels, n_dev=n_dev, settings=settings)


def _scratch() -> str:
    import tempfile

    return tempfile.mkdtemp()


def tensors(lora: LoraAdapter) -> dict[str, torch.Tensor]:
    return {name: tensor.clone() for name, tensor in lora.state_dict().items()}


@pytest.mark.parametrize("family", ["classification", "ner"])
@pytest.mark.parametrize("primary", [False, True], ids=["bare", "primary"])
def test_an_easy_task_is_learnt_and_predicted_as_it_was_scored(
    family: str, primary: bool, tiny: Loaded, folder: Path, tmp_path: Path
) -> None:
    if not primary:
        save_bundle(tiny, folder := tmp_path / "bare")
    model, make = trunkline.load(folder), EXAMPLES[family]
    test = make(30, 3)
    report = model.fit("easy", make(60, 1), mode="lora", test=test, rank=4, steps=30, rate=5e-3)
    measure = FAMILIES[family].main_score
    assert report.test[measure] > 0.7
    assert report.cross_validation["scores"][measure] > 0.6
    again = trunkline.load(model.save(tmp_path / "saved"))
    found = [row["easy"] for row in again.predict([example.text for example in test])]
    assert FAMILIES[family].score(test, found) == report.test
    task = again.bundle.tasks["easy"]
    assert task.own_lora
    assert task.info["mode"] == "lora"
    assert task.info["cross_validation"]["rate"] == 5e-3


def test_updates_start_at_a_copy_of_the_primary_adapter_and_leave_it_and_the_backbone_alone(tiny: Loaded) -> None:
    primary = deployed.half_adapter(tiny.encoder.config, (2, 3), seed=5)
    before, backbone = tensors(primary), tensors(tiny.encoder)  # type: ignore[arg-type]
    still = tuned(tiny, "ner", ner_examples(9, 9), LoraSettings(steps=2, rate=0.0, dropout=0.0), primary)
    assert tiny_models.same_bits(tensors(still.lora), before)
    moved = tuned(tiny, "ner", ner_examples(9, 9), primary=primary)
    assert moved.lora.config == primary.config
    assert not tiny_models.same_bits(tensors(moved.lora), before)
    assert tiny_models.same_bits(tensors(primary), before)
    assert tiny_models.same_bits(tensors(tiny.encoder), backbone)  # type: ignore[arg-type]


def test_without_a_primary_adapter_updates_start_at_nothing(tiny: Loaded) -> None:
    settings = LoraSettings(rank=2, targets=("up",), steps=2, rate=0.0, dropout=0.0)
    lora = tuned(tiny, "classification", text_examples(12, 1), settings).lora
    assert (lora.config.rank, lora.config.layers, lora.config.targets) == (2, (2, 3), ("up",))
    assert all(not tensor.any() for name, tensor in lora.state_dict().items() if name.endswith(".b"))


@pytest.fixture
def trainings(monkeypatch: pytest.MonkeyPatch) -> list[tuple[list[int], Any]]:
    """What is trained on, and the head that it starts from, of every training."""
    seen: list[tuple[list[int], Any]] = []
    original = few_labels._train

    def watched(task: Any, chosen: Any, start: Any) -> Any:
        seen.append((list(chosen), start))
        return original(task, chosen, start)

    monkeypatch.setattr(few_labels, "_train", watched)
    return seen


def test_it_starts_at_the_head_and_ends_on_all_labels(tiny: Loaded, trainings: list[tuple[list[int], Any]]) -> None:
    from trunkline.heads.fit import LabelledFeatures, convex_heads, fit_head

    examples = text_examples(24, 4)
    found = tuned(tiny, "classification", examples)
    folds, (chosen, start) = trainings[:-1], trainings[-1]
    assert chosen == list(range(24))
    held_out = [set(range(24)) - set(rows) for rows, _ in folds]
    assert sorted(number for rows in held_out for number in rows) == list(range(24))
    save_bundle(tiny, folder := Path(_scratch()) / "bundle")
    labels = ("name", "org", "place")
    data, units = trunkline.load(folder).labelled(examples, "classification", "text", labels)
    frozen, after = (branch_features(tiny.encoder, [FeatureRequest(units, lora)])[0] for lora in (None, found.lora))
    known = LabelledFeatures(data.examples, data.texts, frozen, data.targets)
    family = FAMILIES["classification"]
    penalty = fit_head(family, known, labels).penalty
    assert start.weight == pytest.approx(convex_heads(family, known, range(24), labels, penalty)[0].weight, abs=1e-5)
    for rows, head in folds:
        assert head.weight == pytest.approx(convex_heads(family, known, rows, labels, penalty)[0].weight, abs=1e-5)
    # The head that is kept is the convex one on the tuned features.
    tuned_data = LabelledFeatures(data.examples, data.texts, after, data.targets)
    one, other = convex_heads(family, tuned_data, range(24), labels, penalty)
    kept = one.weight / found.fitted.temperature + other.weight * found.fitted.discriminant
    assert found.fitted.head.weight == pytest.approx(kept, rel=5e-3, abs=2e-3)


def test_it_is_judged_on_what_it_was_not_trained_on(tiny: Loaded) -> None:
    # The labels are noise: what was seen would be known by heart.
    rng = random.Random(0)
    noise = [TextExample(example.text, rng.choice(["place", "name"])) for example in text_examples(30, 6)]
    found = tuned(tiny, "classification", noise, LoraSettings(rank=8, steps=60, rate=2e-2, dropout=0.0))
    assert found.fitted.scores["accuracy"] < 0.75
    assert found.before.scores["accuracy"] < 0.75
    assert found.fitted.log_loss is not None
    assert found.fitted.log_loss > 0.5


def test_a_dev_part_is_judged_on_and_not_trained_on(tiny: Loaded, trainings: list[tuple[list[int], Any]]) -> None:
    train, dev = text_examples(20, 1), text_examples(10, 2)
    found = tuned(tiny, "classification", [*train, *dev], n_dev=10)
    assert [rows for rows, _ in trainings] == [list(range(20))] * 2
    assert found.fitted.predictions[:20] == [None] * 20
    kept = [prediction["label"] for prediction in found.fitted.predictions[20:]]
    right = sum(label == example.label for label, example in zip(kept, dev, strict=True))
    assert found.fitted.scores["accuracy"] == pytest.approx(right / 10)


@pytest.mark.parametrize(("before", "after", "mode"), [(0.5, 0.4, "lora"), (0.4, 0.5, "head"), (0.44, 0.4, "head")])
def test_auto_keeps_the_one_of_less_held_out_log_loss(
    before: float, after: float, mode: str, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from dataclasses import replace

    def judged(*arguments: Any, **options: Any) -> TunedLora:
        found = tune_lora(*arguments, **{**options, "settings": LoraSettings(**options["settings"].model_dump())})
        judged = replace(found.before, log_loss=before), replace(found.fitted, log_loss=after)
        return replace(found, before=judged[0], fitted=judged[1], noise=0.05)

    monkeypatch.setattr(few_labels, "tune_lora", judged)
    model = trunkline.load(folder)
    report = model.fit("kinds", text_examples(36, 1), mode="auto", steps=3)
    assert report.mode == mode
    alone = trunkline.load(folder)
    alone.fit("kinds", text_examples(36, 1))
    same = model._predictor.tasks["kinds"].head.weight == alone._predictor.tasks["kinds"].head.weight
    assert same.all() == (mode == "head")
    assert report.cross_validation["lora" if mode == "head" else "head"].keys() == {"log_loss", "scores"}


def test_auto_ends_after_a_fold_that_says_no(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    trained, original = [], few_labels._train

    def counted(task: Any, chosen: Any, start: Any) -> Any:
        trained.append(len(chosen))
        return original(task, chosen, start)

    monkeypatch.setattr(few_labels, "_train", counted)
    report = trunkline.load(folder).fit("kinds", text_examples(36, 1), mode="auto", steps=1, rate=0.0)
    assert (report.mode, trained) == ("head", [24])
    tried = report.cross_validation
    assert tried["lora"]["folds"] == 1 and tried["lora"]["log_loss"] >= tried["head"]["log_loss"]


def test_auto_without_torch_says_that_lora_was_not_tried(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("trunkline.model.find_spec", lambda name: None)
    report = trunkline.load(folder).fit("kinds", text_examples(36, 1), mode="auto")
    assert (report.mode, report.cross_validation["lora"]) == ("head", {"not_tried": "no extra [train]"})


def test_a_task_stays_small_however_many_labels_it_has() -> None:
    from trunkline.encoder.bundle_files import load_any

    encoder = load_any("default").encoder
    for labels, rank in ((2, 7), (50, 7), (77, 6), (150, 5)):
        found = few_labels.defaults(encoder, tuple(map(str, range(labels))), 16 * labels)
        assert found["rank"] == rank
        assert 2 * (rank * 20_736 + labels * 385) < 335_000
        assert found["steps"] == min(100, max(20, labels))
    assert few_labels.defaults(encoder, ("O", "B-a", "I-a"), 0) == {"rank": 7}


def test_auto_of_one_example_of_each_class_is_a_head(folder: Path) -> None:
    report = trunkline.load(folder).fit(
        "kinds", ["ann", "rome", "acme"], ["name", "place", "org"], mode="auto", steps=2
    )
    assert report.mode == "head"


def test_labels_count_alike_in_all_modes_where_they_are_balanced(folder: Path) -> None:
    # The labels are noise, so that only their shares are learnt.
    rare = [TextExample(e.text, "rare" if n % 9 == 0 else "common") for n, e in enumerate(text_examples(45, 1))]
    model = trunkline.load(folder)
    for mode in ("lora", "auto"):
        for weight in (None, "balanced"):
            model.fit(f"{mode}-{weight}", rare, mode=mode, steps=2, class_weight=weight)
        rows = model.predict([example.text for example in text_examples(20, 2)])
        chances = {name: np.mean([row[name]["probabilities"]["rare"] for row in rows]) for name in model.tasks}
        assert chances[f"{mode}-balanced"] > chances[f"{mode}-None"] + 0.1
    still = {"rate": 0.0, "steps": 1}
    assert model.fit("kept", rare, mode="auto", class_weight="balanced", **still).mode == "head", (
        "no LoRA is not better"
    )
    model.fit("alone", rare, class_weight="balanced")
    kept, alone = (model._predictor.tasks[name].head for name in ("kept", "alone"))
    assert (kept.weight == alone.weight).all()
    with pytest.raises(TrunklineError, match="class_weight='balanced' for ner"):
        model.fit("names", ner_examples(9, 1), mode="auto", class_weight="balanced")


def test_contrast_is_that_of_pairs_one_by_one() -> None:
    rng = np.random.default_rng(0)
    rows, labels = rng.normal(size=(7, 5)).astype(np.float32), [0, 1, 0, 2, 1, 0, 3]
    unit = rows / np.linalg.norm(rows, axis=1, keepdims=True)
    losses = []
    for i, own in enumerate(labels):
        right = [j for j, other in enumerate(labels) if other == own and j != i]
        if right:
            scores = [float(np.exp(unit[i] @ unit[j] / few_labels.TEMPERATURE)) for j in range(7)]
            whole = sum(score for j, score in enumerate(scores) if j != i)
            losses.append(-np.mean([np.log(scores[j] / whole) for j in right]))
    found = few_labels.supervised_contrast(torch.from_numpy(rows), torch.tensor(labels))
    assert float(found) == pytest.approx(np.mean(losses), rel=1e-4)
    alone = few_labels.supervised_contrast(torch.from_numpy(rows[:2]).requires_grad_(), torch.tensor([0, 1]))
    alone.backward()
    assert float(alone) == 0


@pytest.mark.parametrize(
    ("counts", "batch"), [((9, 9, 9), 6), ((1, 20), 16), ((2,) * 30, 16), ((1, 1), 2), ((40, 3), 8)]
)
def test_batches_have_two_of_a_label_where_there_are_and_bring_all_in_turn(
    counts: tuple[int, ...], batch: int, tiny: Loaded
) -> None:
    targets = [[label] for label, count in enumerate(counts) for _ in range(count)]
    data = few_labels.LabelledFeatures([], [], [], targets)
    task = few_labels._Task(
        FAMILIES["classification"], tiny.encoder, None, data, [], None, LoraSettings(batch=batch), False
    )
    chosen = set()
    for step in range(300):
        rows = few_labels._batch(task, range(len(targets)), step)
        assert rows == few_labels._batch(task, range(len(targets)), step)
        assert 1 <= len(rows) <= batch
        assert len(set(rows)) == len(rows)
        chosen |= set(rows)
        for row in rows:
            own = targets[row][0]
            assert counts[own] == 1 or sum(targets[other][0] == own for other in rows) > 1
    assert chosen == set(range(len(targets)))


@pytest.mark.parametrize(
    "change", [{"dropout": 0.5}, {"seed": 1}, {"batch": 4}, {"rate": 4e-3}, {"rank": 2}, {"steps": 11}]
)
def test_equal_settings_give_equal_bits_and_each_of_them_counts(change: dict[str, Any], tiny: Loaded) -> None:
    examples = ner_examples(8, 9)
    first = tuned(tiny, "ner", examples)
    torch.randn(5)
    np.random.rand(5)
    second, other = tuned(tiny, "ner", examples), tuned(tiny, "ner", examples, QUICK.model_copy(update=change))
    assert tiny_models.same_bits(tensors(first.lora), tensors(second.lora))
    assert first.fitted.record() == second.fitted.record()
    assert not tiny_models.same_bits(tensors(first.lora), tensors(other.lora))


def test_contrast_counts_where_a_text_has_one_label(tiny: Loaded) -> None:
    for family, counts in (("classification", True), ("ner", False)):
        examples = EXAMPLES[family](12, 1)
        one, other = (
            tuned(tiny, family, examples, QUICK.model_copy(update={"contrast": weight})) for weight in (0.0, 1.0)
        )
        assert tiny_models.same_bits(tensors(one.lora), tensors(other.lora)) != counts


def test_the_seed_is_that_of_the_start_and_of_the_batches(tiny: Loaded) -> None:
    still = [LoraSettings(steps=1, rate=0.0, seed=seed) for seed in (0, 0, 1)]
    starts = [tensors(tuned(tiny, "ner", ner_examples(6, 1), settings).lora) for settings in still]
    assert tiny_models.same_bits(starts[0], starts[1])
    assert not tiny_models.same_bits(starts[0], starts[2])
    data = few_labels.LabelledFeatures([], [], [], [[0], [1]] * 20)
    drawn = []
    for settings in still:
        task = few_labels._Task(FAMILIES["classification"], tiny.encoder, None, data, [], None, settings, False)
        drawn.append([few_labels._batch(task, range(40), step) for step in range(5)])
    assert drawn[0] == drawn[1] != drawn[2]
    assert drawn[0][0] != drawn[0][1]


def test_the_seed_is_that_of_the_folds_too(tiny: Loaded, trainings: list[tuple[list[int], Any]]) -> None:
    for seed in (0, 0, 1):
        tuned(tiny, "classification", text_examples(24, 4), QUICK.model_copy(update={"seed": seed, "steps": 1}))
    rows = [chosen for chosen, _ in trainings]
    assert rows[:4] == rows[4:8] != rows[8:]


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"rank": 0}, "mode lora: 1 problem.*rank: .*greater than 0, given 0"),
        ({"steps": 1.5}, r"steps: .*given 1\.5"),
        ({"rate": 1.5}, r"rate: .*less than 1, given 1\.5"),
        ({"batch": 1}, "batch: .*equal to 2, given 1"),
        ({"contrast": -1.0}, "contrast: .*given -1"),
        ({"dropout": 1.0}, r"dropout: .*given 1\.0"),
        ({"patience": 3}, "patience: unknown key.*rank"),
    ],
)
def test_settings_that_cannot_be_are_refused(wrong: dict[str, Any], message: str, folder: Path) -> None:
    with pytest.raises(TrunklineError, match="(?s)" + message):
        trunkline.load(folder).fit("a", text_examples(12, 1), mode="lora", **wrong)


def test_a_task_of_another_family_can_be_replaced(folder: Path) -> None:
    model = trunkline.load(folder)
    model.fit("a", ner_examples(12, 1))
    model.save(folder)
    model = trunkline.load(folder)
    model.fit("a", text_examples(12, 1), mode="lora", replace=True, steps=1)
    assert model.tasks == {"a": "classification"}


def _mixed(count: int) -> list[TextExample]:
    rng = random.Random(0)
    return [text_examples(1, number, rng.choice([1, 3, 20]))[0] for number in range(count)]


@pytest.fixture
def short(tiny_folder: Callable[[str], Path]) -> Loaded:
    # Windows so short that most texts have several.
    return load_any(str(tiny_folder("bert")), fork=2, max_length=12)


def _units(start: Loaded) -> list[UnitText]:
    save_bundle(start, folder := Path(_scratch()) / "bundle")
    return trunkline.load(folder).labelled(_mixed(25), "classification", "text", ("name", "org", "place"))[1]


def test_states_are_those_of_the_trunk_whatever_the_batch(short: Loaded) -> None:
    units = _units(short)
    states = TrunkStates.of(short.encoder, units, bf16=False, budget=40)
    assert states is not None
    for chosen in ([0], [7, 3, 11, 20], list(range(25))):
        batch = TokenBatch.from_packed(pack([units[i] for i in chosen], short.encoder.config.pad_id))
        with torch.no_grad():
            expected = short.encoder.trunk(batch)
        real = batch.segments >= 0
        assert real.any()
        torch.testing.assert_close(states.rows(batch, chosen)[real], expected[real], atol=1e-5, rtol=1e-4)


def test_features_by_kept_states_are_the_features(short: Loaded) -> None:
    units = _units(short)
    lora = tiny_models.random_adapter(short.encoder.config, (2, 3), seed=5)
    states = TrunkStates.of(short.encoder, units, bf16=False)
    (kept,) = branch_features(short.encoder, [FeatureRequest(units, lora)], states=states)
    (computed,) = branch_features(short.encoder, [FeatureRequest(units, lora)])
    assert np.concatenate(kept) == pytest.approx(np.concatenate(computed), abs=1e-5)


def test_training_on_kept_states_is_training_on_the_trunk(short: Loaded, monkeypatch: pytest.MonkeyPatch) -> None:
    trunk, calls = short.encoder.trunk, []
    monkeypatch.setattr(short.encoder, "trunk", lambda batch: calls.append(1) or trunk(batch))
    examples = _mixed(25)
    kept = tuned(short, "classification", examples)
    assert len(calls) == 1, "the trunk is run once"
    monkeypatch.setattr(encoder_module, "MOST_STATES", 0)
    computed = tuned(short, "classification", examples)
    assert len(calls) > 10
    for one, other in zip(kept.lora.parameters(), computed.lora.parameters(), strict=True):
        torch.testing.assert_close(one, other, atol=1e-4, rtol=1e-3)


def test_updates_are_those_that_the_graphs_have_inputs_for(tiny: Loaded, tmp_path: Path) -> None:
    narrow = trunkline.load(deployed.with_both(tiny, tmp_path / "narrow", lora_targets=("qkv", "down")))
    narrow.fit("kinds", text_examples(12, 1), mode="lora", steps=2)
    names = {name.split(".")[2] for name in narrow._predictor.tasks["kinds"].lora_arrays()}
    assert names == {"query", "key", "value", "down"}
    with pytest.raises(TrunklineError, match=r"LoRA on up\. Expected some of down, key, query, value"):
        narrow.fit("more", text_examples(12, 1), mode="lora", targets=("up", "query"))
    none = trunkline.load(deployed.with_both(tiny, tmp_path / "none", lora_targets=()))
    with pytest.raises(TrunklineError, match="LoRA on no linear layer"):
        none.fit("kinds", text_examples(12, 1), mode="lora")
