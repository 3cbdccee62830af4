"""What settings reach when LoRA is trained: seed and class weight every fit of a head, the rate every parameter."""

from __future__ import annotations

import dataclasses
import random
from pathlib import Path
from typing import Any

import pytest

import tiny_models
import trunkline
from trunkline import adapt
from trunkline.encoder.bundle_files import Loaded, save_bundle
from trunkline.model import Model


@pytest.fixture
def model(tiny: Loaded, tmp_path: Path) -> Model:
    save_bundle(tiny, tmp_path / "bundle")
    return trunkline.load(tmp_path / "bundle")


def noise(count: int) -> tuple[list[str], list[str]]:
    """Texts whose labels say nothing of them."""
    rng = random.Random(0)
    names = [*tiny_models.NAMES, *tiny_models.PLACES]
    return [" ".join(rng.choices(names, k=3)) for _ in range(count)], [rng.choice("aab") for _ in range(count)]


def test_seed_and_class_weight_are_those_of_the_search_for_a_penalty(
    model: Model, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked, original = [], adapt.fit_head

    def watched(*parts: Any, **options: Any) -> Any:
        asked.append((options["seed"], options["class_weight"]))
        return original(*parts, **options)

    monkeypatch.setattr(adapt, "fit_head", watched)
    model.fit("a", *noise(20), mode="lora", steps=1, seed=7, class_weight="balanced")
    assert asked == [(7, "balanced")]


def test_a_head_that_auto_keeps_is_that_of_the_seed(model: Model) -> None:
    found = {}
    for seed in (0, 7):
        kept = model.fit(f"kept-{seed}", *noise(30), mode="auto", steps=1, rate=0.0, seed=seed)
        assert kept.mode == "head", "no LoRA is not better"
        found[seed] = {key: value for key, value in kept.cross_validation.items() if key not in ("head", "lora")}
        assert found[seed] == model.fit(f"alone-{seed}", *noise(30), seed=seed).cross_validation
    assert found[0] != found[7]


def test_heads_of_a_fold_are_fitted_on_what_the_updates_of_this_fold_make(
    model: Model, monkeypatch: pytest.MonkeyPatch
) -> None:
    made: list[Any] = []
    fitted: list[tuple[Any, list[int]]] = []
    features, heads = adapt._features, adapt.convex_heads

    def makes(*parts: Any) -> Any:
        made.append(features(*parts))
        return made[-1]

    def fits(family: Any, data: Any, numbers: Any, *more: Any) -> Any:
        fitted.append((data.features, list(numbers)))
        return heads(family, data, numbers, *more)

    monkeypatch.setattr(adapt, "_features", makes)
    monkeypatch.setattr(adapt, "convex_heads", fits)
    model.fit("a", *noise(20), mode="lora", steps=1)
    frozen = fitted[0][0]
    assert len(made) == adapt.FOLDS + 1
    for number, own in enumerate(made):
        (before, start), (after, end) = fitted[2 * number : 2 * number + 2]
        assert before is frozen
        assert all(read is made for read, made in zip(after, own, strict=True))
        assert start == end
    assert fitted[-1][1] == list(range(20))


def test_contrast_counts_by_its_weight(model: Model) -> None:
    texts = [*tiny_models.NAMES[:6], *tiny_models.PLACES[:6]], ["name"] * 6 + ["place"] * 6
    for name, weight in (("a", 1.0), ("b", 1.0), ("c", 3.0)):
        model.fit(name, *texts, mode="lora", steps=2, contrast=weight)
    a, b, c = (model._predictor.tasks[name].lora_arrays() for name in "abc")
    assert all((a[name] == b[name]).all() for name in a)
    assert any((a[name] != c[name]).any() for name in a)


def test_updates_and_head_learn_at_one_rate_that_rises_over_a_tenth_of_the_steps(
    model: Model, monkeypatch: pytest.MonkeyPatch
) -> None:
    rates: list[dict[str, float]] = []
    decays = set()

    def watched(module: Any, optimizer: Any, losses: Any, settings: Any, hooks: Any, **more: Any) -> int:
        def stepped(step: int) -> None:
            rates.append({group["name"]: group["lr"] for group in optimizer.param_groups})
            decays.update((group["name"], group["weight_decay"]) for group in optimizer.param_groups)

        return original(module, optimizer, losses, settings, dataclasses.replace(hooks, stepped=stepped), **more)

    original = adapt.run
    monkeypatch.setattr(adapt, "run", watched)
    model.fit("a", *noise(12), mode="lora", steps=20, rate=0.01)
    factors = [0.5, 1.0, *((18 - step) / 18 for step in range(18))]
    assert rates[-20:] == [pytest.approx({"lora": 0.01 * factor, "head": 0.01 * factor}) for factor in factors]
    assert len(rates) == 20 * (adapt.FOLDS + 1)
    assert decays == {("lora", 0.01), ("head", 0.01), ("head", 0.0)}
