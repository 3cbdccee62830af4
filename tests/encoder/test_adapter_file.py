"""Adapters and tasks on their way from torch into files and back: what was read is what was written, bit for bit."""

from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np
import pytest

import deployed
import tiny_models
from trunkline.bundle.manifest import Manifest
from trunkline.bundle.parts import Head, primary_bytes, read_primary, read_task
from trunkline.encoder.bundle_files import Loaded, adapter_files, lora_of, manifest_of
from trunkline.encoder.lora import LoraAdapter
from trunkline.errors import MismatchError

LABELS = ("O", "B-Straße", "I-Straße")
INFO = {"scores": {"f1": 0.5}, "ü": [1, None]}
PLACE = "adapters/ner.safetensors"


def lora_for(tiny: Loaded, **changes: Any) -> LoraAdapter:
    options = {"layers": (2, 3), "targets": ("query", "down"), **changes}
    return deployed.half_adapter(tiny.encoder.config, options.pop("layers"), **options)


def with_primary(tiny: Loaded, lora: LoraAdapter) -> tuple[Manifest, bytes]:
    loaded = dataclasses.replace(tiny, primaries={"ner": lora})
    return manifest_of(loaded), adapter_files(loaded)[PLACE]


def same_lora(left: LoraAdapter, right: LoraAdapter) -> bool:
    return left.config == right.config and tiny_models.same_bits(left.state_dict(), right.state_dict())


def same_head(left: Head, right: Head) -> bool:
    pairs = ((left.weight, right.weight), (left.bias, right.bias), (left.transitions, right.transitions))
    return all(a is b if a is None or b is None else np.array_equal(a, b) for a, b in pairs)


@pytest.mark.parametrize("tuned", [True, False])
@pytest.mark.parametrize("head", [deployed.head(3, 1), deployed.head(3, 2, transitions=True)])
@pytest.mark.parametrize("units", ["words", "pieces"])
def test_a_task_that_was_read_is_the_one_that_was_written_bit_for_bit(
    tuned: bool, head: Head, units: str, tiny: Loaded
) -> None:
    lora, manifest = lora_for(tiny) if tuned else None, manifest_of(tiny)
    content = deployed.task_file(manifest, "ner", LABELS, head, lora, units=units, info=INFO)
    task = read_task(content, manifest, "x")
    assert (task.family, task.labels, task.units, task.info) == ("ner", LABELS, units, INFO)
    assert task.own_lora == tuned
    assert same_head(task.head, head)
    assert lora is None or same_lora(lora_of(task, tiny.encoder.config), lora)


def test_a_primary_adapter_that_was_read_is_the_one_that_was_written_bit_for_bit(tiny: Loaded) -> None:
    ours = lora_for(tiny)
    manifest, content = with_primary(tiny, ours)
    primary = read_primary(content, manifest, "ner")
    assert primary.family == "ner"
    assert same_lora(lora_of(primary, tiny.encoder.config), ours)


def test_equal_parts_give_equal_bytes_and_other_ones_another_reference(tiny: Loaded) -> None:
    head = deployed.head(3, 1)
    files = [deployed.task_file(manifest_of(tiny), "ner", LABELS, head, lora_for(tiny)) for _ in range(2)]
    assert files[0] == files[1]
    assert with_primary(tiny, lora_for(tiny)) == with_primary(tiny, lora_for(tiny))
    others = [lora_for(tiny, seed=1), lora_for(tiny, seed=2), lora_for(tiny, seed=1, alpha=16.0)]
    assert len({with_primary(tiny, lora)[0].files[PLACE].sha256 for lora in others}) == 3


def test_a_task_names_the_primary_adapter_that_it_sits_on_unless_it_has_its_own(tiny: Loaded) -> None:
    manifest, _ = with_primary(tiny, lora_for(tiny))
    head = deployed.head(3, 1)
    on_it, own = (deployed.task_file(manifest, "ner", LABELS, head, lora) for lora in (None, lora_for(tiny)))
    assert f"ner@{manifest.files[PLACE].sha256}".encode() in on_it
    assert b"ner@" not in own
    other, _ = with_primary(tiny, lora_for(tiny, layers=(3,), seed=9))
    assert read_task(own, other, "own").own_lora
    with pytest.raises(MismatchError, match="sits on the adapter ner@"):
        read_task(on_it, other, "on_it")


def test_what_is_no_adapter_is_not_read(tiny: Loaded) -> None:
    manifest = manifest_of(tiny)
    with pytest.raises(MismatchError, match="has a head"):
        read_primary(
            primary_bytes("ner", tiny.backbone, 2, {"head.weight": np.ones((32, 2)), "head.bias": np.ones(2)}, 1.0),
            manifest,
            "ner",
        )
