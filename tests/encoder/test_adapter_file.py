"""Adapters and tasks of torch in their files: equal after a round trip, and equal bytes for equal parts."""

from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np
import pytest

import deployed
import tiny_models
from trunkline.bundle.edit import with_primaries
from trunkline.bundle.parts import Head, read_primary, read_task
from trunkline.encoder.bundle_files import (
    AdapterFile,
    Loaded,
    manifest_of,
    primary_file,
    primary_in_torch,
    task_file,
    task_in_torch,
)
from trunkline.encoder.lora import LoraAdapter
from trunkline.errors import MismatchError

LABELS = ("O", "B-Straße", "I-Straße")


def adapter_of(tiny: Loaded, **changes: Any) -> AdapterFile:
    lora = deployed.half_adapter(tiny.encoder.config, (2, 3), targets=("query", "down"))
    info = {"scores": {"f1": 0.5}, "ü": [1, None]}
    whole = AdapterFile("ner", tiny.backbone, 2, lora, deployed.head(3, 1), LABELS, info=info)
    return dataclasses.replace(whole, **changes)


def same_lora(left: LoraAdapter | None, right: LoraAdapter | None) -> bool:
    if left is None or right is None:
        return left is right
    return left.config == right.config and tiny_models.same_bits(left.state_dict(), right.state_dict())


def same_head(left: Head, right: Head) -> bool:
    pairs = ((left.weight, right.weight), (left.bias, right.bias), (left.transitions, right.transitions))
    return all(a is b if a is None or b is None else np.array_equal(a, b) for a, b in pairs)


@pytest.mark.parametrize(
    "changes", [{}, {"lora": None}, {"head": deployed.head(3, 2, transitions=True)}, {"units": "pieces"}]
)
def test_a_task_that_was_read_is_the_one_that_was_written_bit_for_bit(changes: dict[str, Any], tiny: Loaded) -> None:
    ours, manifest = adapter_of(tiny, **changes), manifest_of(tiny)
    theirs = task_in_torch(read_task(task_file(ours, manifest), manifest, "x"), manifest, tiny.encoder.config)
    for name in ("family", "backbone", "fork", "labels", "units", "info"):
        assert getattr(theirs, name) == getattr(ours, name)
    assert same_lora(ours.lora, theirs.lora)
    assert ours.head is not None
    assert theirs.head is not None
    assert same_head(ours.head, theirs.head)


def test_a_primary_adapter_that_was_read_is_the_one_that_was_written_bit_for_bit(tiny: Loaded) -> None:
    ours, manifest = adapter_of(tiny, head=None, labels=()), manifest_of(tiny)
    theirs = primary_in_torch(read_primary(primary_file(ours), manifest, "ner"), manifest, tiny.encoder.config)
    assert (theirs.family, theirs.backbone, theirs.fork, theirs.head) == ("ner", tiny.backbone, 2, None)
    assert same_lora(ours.lora, theirs.lora)


def test_equal_parts_give_equal_bytes_and_other_ones_another_reference(tiny: Loaded) -> None:
    manifest = manifest_of(tiny)
    assert task_file(adapter_of(tiny), manifest) == task_file(adapter_of(tiny), manifest)
    assert primary_file(adapter_of(tiny)) == primary_file(adapter_of(tiny))
    others = [deployed.half_adapter(tiny.encoder.config, (2, 3), seed=seed) for seed in (1, 2)]
    scaled = deployed.half_adapter(tiny.encoder.config, (2, 3), seed=1, alpha=16.0)
    files = [primary_file(adapter_of(tiny, lora=lora)) for lora in (*others, scaled)]
    references = {read_primary(file, manifest, "ner").reference for file in files}
    assert len(references) == 3


def test_a_task_names_the_primary_adapter_that_it_sits_on_unless_it_has_its_own(tiny: Loaded) -> None:
    content = primary_file(adapter_of(tiny))
    manifest = with_primaries(manifest_of(tiny), {"ner": content})
    primary = read_primary(content, manifest, "ner")
    on_it, own = (task_file(adapter_of(tiny, lora=lora), manifest) for lora in (None, adapter_of(tiny).lora))
    assert primary.reference.encode() in on_it
    assert b"ner@" not in own
    other = with_primaries(manifest, {"ner": primary_file(adapter_of(tiny, lora=deployed.half_adapter(
        tiny.encoder.config, (3,), seed=9
    )))})  # fmt: skip
    assert read_task(own, other, "own").own_lora
    with pytest.raises(MismatchError, match="sits on the adapter ner@"):
        read_task(on_it, other, "on_it")


def test_what_is_no_adapter_or_no_task_is_not_written(tiny: Loaded) -> None:
    with pytest.raises(MismatchError, match="without LoRA"):
        primary_file(adapter_of(tiny, lora=None))
    with pytest.raises(MismatchError, match="without a head"):
        task_file(adapter_of(tiny, head=None), manifest_of(tiny))
