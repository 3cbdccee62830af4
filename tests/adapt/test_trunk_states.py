"""States at the fork that are kept give what is computed each time, and too many are not kept."""

from __future__ import annotations

import random
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from trunkline.adapt.lora import train_lora

import tiny_models
from trunkline.config import AdaptSection
from trunkline.encoder import features
from trunkline.encoder.batch import TokenBatch
from trunkline.encoder.bundle_files import Loaded, load_any
from trunkline.encoder.features import Branch, TrunkStates, branch_features
from trunkline.tasks import get_family
from trunkline.text.examples import TextExample
from trunkline.text.packing import UnitText, pack
from trunkline_lab import fitting
from trunkline_lab.fitting import TaskData

FAMILY = get_family("classification")


@pytest.fixture
def start(tiny_folder: Callable[..., Path]) -> Loaded:
    # Windows so short that most texts have several.
    return load_any(str(tiny_folder("bert")), fork=2, max_length=12)


def _task() -> TaskData:
    rng = random.Random(0)
    places, names = tiny_models.PLACES, tiny_models.NAMES

    def example(number: int) -> TextExample:
        words = [rng.choice(names if number % 2 else places) for _ in range(rng.randint(1, 20))]
        return TextExample(" ".join(words), "name" if number % 2 else "place")

    examples = [example(number) for number in range(45)]
    return TaskData("kinds", "classification", examples[:25], examples[25:35], examples[35:])


def _units(start: Loaded) -> list[UnitText]:
    return fitting.example_units(FAMILY, _task().train, start.tokenizer)


def test_states_are_those_of_the_trunk_whatever_the_batch(start: Loaded) -> None:
    units = _units(start)
    states = TrunkStates.of(start.encoder, units, bf16=False, budget=40)
    assert states is not None
    for chosen in ([0], [7, 3, 11, 20], list(range(25))):
        batch = TokenBatch.from_packed(pack([units[i] for i in chosen], start.encoder.config.pad_id))
        with torch.no_grad():
            expected = start.encoder.trunk(batch)
        real = batch.segments >= 0
        assert real.any()
        torch.testing.assert_close(states.rows(batch, chosen)[real], expected[real], atol=1e-5, rtol=1e-4)


def test_features_by_kept_states_are_the_features(start: Loaded) -> None:
    units = _units(start)
    lora = tiny_models.random_adapter(start.encoder.config, (2, 3), seed=5)
    states = TrunkStates.of(start.encoder, units, bf16=False)
    (kept,) = branch_features(start.encoder, [Branch(units, lora)], states=states)
    (computed,) = branch_features(start.encoder, [Branch(units, lora)])
    assert np.concatenate(kept) == pytest.approx(np.concatenate(computed), abs=1e-5)


def test_training_on_kept_states_is_training_on_the_trunk(start: Loaded, monkeypatch: pytest.MonkeyPatch) -> None:
    task, section = _task(), AdaptSection(mode="lora", precision="fp32", epochs=3, patience=3, tokens=64, dropout=0.0)
    labels = FAMILY.labels(task.train)
    parts = [fitting.example_features(FAMILY, p, start.encoder, start.tokenizer) for p in (task.train, task.dev)]
    head, _, _ = fitting.fit(FAMILY, (parts[0], task.train), (parts[1], task.dev), labels, (0.01,))
    trunk, calls = start.encoder.trunk, []
    monkeypatch.setattr(start.encoder, "trunk", lambda batch: calls.append(1) or trunk(batch))

    def trained() -> list[torch.Tensor]:
        calls.clear()
        done = train_lora(task.train, task.dev, start, section, (FAMILY, labels, head), seed=0)
        assert done.epochs == 3
        return [parameter.detach().clone() for parameter in done.lora.parameters()]

    kept = trained()
    assert len(calls) == 2, "the trunk is run once for train and once for dev"
    monkeypatch.setattr(features, "MOST_STATES", 0)
    computed = trained()
    assert len(calls) > 10
    for one, other in zip(kept, computed, strict=True):
        torch.testing.assert_close(one, other, atol=1e-4, rtol=1e-3)
