"""Strategies differ in what they train and how gradients meet, and in nothing else."""

from __future__ import annotations

import dataclasses
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import tiny_models
from trunkline.config import PrefinetuneRecipe, parse_recipe
from trunkline.encoder.bundle_files import load_any, save_bundle
from trunkline.errors import MismatchError, RecipeError, TrunklineError
from trunkline.prefinetune import prefinetune
from trunkline.prefinetune.run import Session
from trunkline.prefinetune.sources import recipe_sources
from trunkline.prefinetune.strategies import merge_bundles, merge_vectors, project_conflicts
from trunkline.text.tokens import TextTokenizer
from trunkline.training import Report

STRATEGIES = ("task-primary", "naive", "single-adapter", "frozen-backbone", "pcgrad")


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("data")


def changed(recipe: PrefinetuneRecipe, **changes: Any) -> PrefinetuneRecipe:
    raw = recipe.model_dump(mode="json")
    for key, value in changes.items():
        raw[key] = {**raw[key], **value} if isinstance(raw.get(key), dict) and isinstance(value, dict) else value
    return parse_recipe(raw, PrefinetuneRecipe, "changed")


def make_session(recipe: PrefinetuneRecipe, folder: Path) -> Session:
    start = load_any(recipe.encoder, fork=recipe.fork, max_length=recipe.max_length)
    torch.manual_seed(0)
    return Session(recipe, start, recipe_sources(recipe, start.tokenizer), folder, Report())


def gradients(session: Session, step: int = 0) -> dict[str, torch.Tensor | None]:
    session.model.zero_grad(set_to_none=True)
    for _, weight, loss in session.losses(step):
        (weight * loss).backward()
    return {name: p.grad for name, p in session.model.named_parameters()}


@pytest.mark.parametrize("strategy", STRATEGIES)
def test_a_run_of_every_strategy_makes_a_bundle_that_says_what_it_is(strategy, tiny_folder, data, tmp_path):
    recipe = changed(tiny_models.recipe_of(tiny_folder("bert"), data), strategy=strategy, optimizer={"steps": 3})
    bundle = load_any(str(prefinetune(recipe, tmp_path / "run")))
    start = load_any(recipe.encoder, fork=recipe.fork, max_length=recipe.max_length)
    has_adapters = strategy in ("task-primary", "single-adapter", "frozen-backbone")
    assert set(bundle.primaries) == (set(recipe.families) if has_adapters else set())
    assert (bundle.backbone == start.backbone) == (strategy == "frozen-backbone")
    if strategy == "single-adapter":
        one, other = (bundle.primaries.get(family) for family in recipe.families)
        assert one is not None and other is not None
        assert one.config.rank == 2 * recipe.adapter.rank and one.config.alpha == 2 * recipe.adapter.alpha
        assert all(torch.equal(a, b) for a, b in zip(one.parameters(), other.parameters(), strict=True))


def test_all_strategies_see_the_same_examples(tiny_folder, data, tmp_path):
    base = tiny_models.recipe_of(tiny_folder("bert"), data)
    seen = []
    for strategy in STRATEGIES:
        session = make_session(changed(base, strategy=strategy), tmp_path / strategy)
        list(session.losses(0))
        seen.append([batch.drawn for batch in session.batches.values()])
    assert all(other == seen[0] for other in seen)


@pytest.mark.parametrize(
    ("change", "trained"),
    [
        ({"strategy": "frozen-backbone"}, []),
        ({"optimizer": {"frozen_layers": 2}}, ["layers.2", "layers.3"]),
        ({}, ["embeddings", "layers.0", "layers.1", "layers.2", "layers.3"]),
    ],
)
def test_frozen_parts_get_no_gradient(change, trained, tiny_folder, data, tmp_path):
    recipe = changed(tiny_models.recipe_of(tiny_folder("bert"), data), **change)
    session = make_session(recipe, tmp_path)
    found = {
        name.split("encoder.")[1] for name, g in gradients(session).items() if "encoder." in name and g is not None
    }
    assert {".".join(name.split(".")[: 1 if name.startswith("e") else 2]) for name in found} == set(trained)


def test_each_group_has_its_rate_and_a_double_rank_its_limit(tiny_folder, data, tmp_path):
    rates = {"backbone_rate": 1e-3, "adapter_rate": 1e-2, "objective_rate": 3e-3}
    base = tiny_models.recipe_of(tiny_folder("bert"), data)
    session = make_session(changed(base, optimizer=rates), tmp_path)
    found = {id(p): group["base_rate"] for group in session.optimizer.param_groups for p in group["params"]}
    named = dict(session.model.named_parameters())
    for part, rate in (("encoder", 1e-3), ("adapters", 1e-2), ("objectives", 3e-3)):
        assert {found[id(p)] for name, p in named.items() if name.startswith(part)} == {rate}
    assert len(found) == len(named)
    with pytest.raises(MismatchError, match=r"rank 34.*width 32"):
        make_session(changed(base, strategy="single-adapter", adapter={"rank": 17}), tmp_path)


def losses_of(vectors, shared):
    def make():
        for number, vector in enumerate(vectors):
            yield f"family {number}", 1.0, (shared * torch.tensor(vector)).sum()

    return make


@pytest.mark.parametrize(
    ("vectors", "expected"),
    [
        ([[1.0, 0.0], [0.0, 1.0]], [1.0, 1.0]),  # no conflict: the sum
        ([[1.0, 0.0], [-1.0, 1.0]], [0.5, 1.5]),  # each loses what points against the other
        ([[1.0, 0.0], [-2.0, 0.0]], [0.0, 0.0]),  # opposite: nothing is left
    ],
)
def test_projected_gradients_are_those_of_the_paper(vectors, expected):
    shared, own = torch.nn.Parameter(torch.zeros(2)), torch.nn.Parameter(torch.zeros(2))
    for _, weight, loss in project_conflicts(losses_of(vectors, shared)(), [shared], np.random.default_rng(0)):
        (weight * (loss + own.sum())).backward()
    assert shared.grad is not None and own.grad is not None
    assert shared.grad.tolist() == pytest.approx(expected)
    assert own.grad.tolist() == [len(vectors)] * 2, "parameters that are not shared keep their sum"


def test_merged_vectors_are_those_of_the_papers():
    one, two = torch.tensor([4.0, 1.0, -3.0, 0.5]), torch.tensor([-1.0, 2.0, -5.0, 0.0])
    assert merge_vectors([one, two], "average").tolist() == [1.5, 1.5, -4.0, 0.25]
    # density 0.5 keeps [4, 0, -3, 0] and [0, 2, -5, 0]
    assert merge_vectors([one, two], "ties", density=0.5).tolist() == [4.0, 2.0, -4.0, 0.0]
    # all kept: the signs elected are +, +, -, +; entries against them are left out
    assert merge_vectors([one, two], "ties", density=1.0).tolist() == [4.0, 1.5, -4.0, 0.5]


def test_merging_bundles(tiny_folder, data, tmp_path):
    base = tiny_models.recipe_of(tiny_folder("bert"), data)
    bundles = []
    for family in base.families:
        raw = base.model_dump(mode="json")
        raw = {**raw, "strategy": "individual", "families": {family: raw["families"][family]}}
        raw["optimizer"]["steps"] = 2
        bundles.append(prefinetune(parse_recipe(raw, PrefinetuneRecipe, "r"), tmp_path / family))
    merged = load_any(str(merge_bundles(bundles, tmp_path / "merged", base=base.encoder)))
    start, *parts = (load_any(str(path), fork=base.fork) for path in (base.encoder, *bundles))
    for name, tensor in merged.encoder.state_dict().items():
        mean = sum(part.encoder.state_dict()[name] for part in parts) / 2
        assert torch.allclose(tensor, mean, atol=1e-6)
    assert merged.encoder.fork == start.encoder.fork
    healed = prefinetune(changed(base, encoder=str(tmp_path / "merged"), optimizer={"steps": 2}), tmp_path / "healed")
    assert set(load_any(str(healed)).primaries) == set(base.families)
    with pytest.raises(TrunklineError, match="no encoder to merge"):
        merge_bundles([], tmp_path / "none", base=base.encoder)
    for scale, density, words in ((math.nan, 0.2, "scale is nan"), (1.0, 0.0, "density is 0.0"), (1.0, 1.5, "1.5")):
        with pytest.raises(TrunklineError, match=words):
            merge_bundles(bundles, tmp_path / "none", base=base.encoder, scale=scale, density=density)
    assert not (tmp_path / "none").exists()
    assert merged.tokenizer.max_length == base.max_length == 32, "the windows that they were trained on"
    again = load_any(str(merge_bundles([tmp_path / "merged"], tmp_path / "again", base=base.encoder)))
    assert again.backbone == merged.backbone, "a merged bundle started from the base, too"


def test_a_base_that_a_bundle_did_not_start_from_is_refused(tiny_folder, data, tmp_path):
    recipe = tiny_models.recipe_of(tiny_folder("bert"), data, optimizer={"steps": 1}, monitor={"every": 0})
    bundle = prefinetune(recipe, tmp_path / "run")
    second = prefinetune(changed(recipe, encoder=str(bundle)), tmp_path / "second")
    for base in (str(bundle), str(tiny_folder("distilbert"))):
        with pytest.raises(MismatchError, match=r"bundle 1 started from [0-9a-f]{40}.*--base"):
            merge_bundles([bundle], tmp_path / "none", base=base)
    assert load_any(str(merge_bundles([second], tmp_path / "half", base=str(bundle), scale=0.5))).primaries
    loaded = load_any(str(bundle))
    save_bundle(dataclasses.replace(loaded, info={}), tmp_path / "unnamed")
    with pytest.raises(MismatchError, match="an encoder that it does not name"):
        merge_bundles([tmp_path / "unnamed"], tmp_path / "none", base=recipe.encoder)
    longer = dataclasses.replace(loaded, tokenizer=TextTokenizer(loaded.tokenizer.tokenizer, 48))
    save_bundle(longer, tmp_path / "longer")
    with pytest.raises(MismatchError, match=r"windows of \[32, 48\] tokens"):
        merge_bundles([bundle, tmp_path / "longer"], tmp_path / "none", base=recipe.encoder)


def test_half_of_what_a_bundle_learnt_adapters_included(tiny_folder, data, tmp_path):
    base = tiny_models.recipe_of(tiny_folder("bert"), data)
    bundle = prefinetune(changed(base, optimizer={"steps": 4}), tmp_path / "run")
    half = load_any(str(merge_bundles([bundle], tmp_path / "half", base=base.encoder, scale=0.5)))
    start, whole = (load_any(str(path), fork=base.fork) for path in (base.encoder, bundle))
    for name, tensor in half.encoder.state_dict().items():
        assert torch.allclose(
            tensor, (start.encoder.state_dict()[name] + whole.encoder.state_dict()[name]) / 2, atol=1e-6
        )
    assert set(half.primaries) == set(whole.primaries) == set(base.families)
    for family, lora in whole.primaries.items():
        for layer in lora.config.layers:
            for target in lora.config.targets:
                one, other = (adapter.part(layer, target) for adapter in (lora, half.primaries[family]))
                assert torch.allclose(other.b @ other.a, 0.5 * one.b @ one.a, atol=1e-7)
                assert (one.b != 0).any()


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"strategy": "single-adapter", "adapter": {"rank": 0}}, "needs adapters"),
        ({"optimizer": {"sharpen": 0.2}}, "unknown key"),
    ],
)
def test_contradictions_are_named(change, words, tiny_folder, data):
    with pytest.raises(RecipeError, match=words):
        changed(tiny_models.recipe_of(tiny_folder("bert"), data), **change)
