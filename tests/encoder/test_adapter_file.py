"""Adapter files: equal after a round trip, refused on another backbone, when damaged, or when they cannot be right."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file

import tiny_models
from trunkline.encoder.adapter_file import AdapterFile, load_adapter, lora_hash, save_adapter
from trunkline.encoder.bundle_files import Loaded
from trunkline.errors import EncoderError, MismatchError
from trunkline.heads.linear import LinearHead

LABELS = ("O", "B-Straße", "I-Straße")


def head(labels: int = 3, width: int = tiny_models.WIDTH) -> LinearHead:
    rng = np.random.default_rng(0)
    return LinearHead(rng.normal(size=(labels, width)).astype(np.float32), rng.normal(size=labels).astype(np.float32))


def adapter_of(tiny: Loaded, **changes: Any) -> AdapterFile:
    lora = tiny_models.random_adapter(tiny.encoder.config, (2, 3), rank=3, targets=("query", "down"))
    whole = AdapterFile("ner", tiny.backbone, 2, lora, head(), LABELS, info={"dev": {"f1": 0.5}})
    return dataclasses.replace(whole, **changes)


def rewrite(path: Path, tensors: dict[str, torch.Tensor] | None = None, **changes: Any) -> None:
    """Writes an adapter file again with changed tensors or a changed description."""
    with safe_open(str(path), framework="pt") as file:
        description = json.loads(file.metadata()["trunkline"]) | changes
    save_file(load_file(path) if tensors is None else tensors, path, {"trunkline": json.dumps(description)})


@pytest.fixture
def saved(tiny: Loaded, tmp_path: Path) -> Path:
    save_adapter(adapter_of(tiny), tmp_path / "task.safetensors")
    return tmp_path / "task.safetensors"


WITH_TRANSITIONS = dataclasses.replace(head(), transitions=np.linspace(-1, 1, 12, dtype=np.float32).reshape(4, 3))


@pytest.mark.parametrize(
    "parts", [{}, {"lora": None, "primary": "abc"}, {"head": None, "labels": ()}, {"head": WITH_TRANSITIONS}]
)
def test_a_loaded_adapter_is_the_saved_one_bit_for_bit(parts: dict[str, Any], tiny: Loaded, tmp_path: Path) -> None:
    ours = adapter_of(tiny, **parts)
    save_adapter(ours, tmp_path / "deep" / "task.safetensors")
    theirs = load_adapter(tmp_path / "deep" / "task.safetensors", tiny.encoder.config, tiny.backbone)
    for name in ("family", "backbone", "fork", "labels", "primary", "info"):
        assert getattr(theirs, name) == getattr(ours, name)
    assert lora_hash(theirs.lora) == lora_hash(ours.lora)
    assert (theirs.lora is None) == (ours.lora is None)
    assert (theirs.head is None) == (ours.head is None)
    if ours.lora is not None and theirs.lora is not None:
        assert theirs.lora.config == ours.lora.config
        assert tiny_models.same_bits(theirs.lora.state_dict(), ours.lora.state_dict())
    if ours.head is not None and theirs.head is not None:
        assert (theirs.head.weight == ours.head.weight).all()
        assert (theirs.head.bias == ours.head.bias).all()
        assert (theirs.head.transitions is None) == (ours.head.transitions is None)
        assert ours.head.transitions is None or (theirs.head.transitions == ours.head.transitions).all()


def lora_description(path: Path) -> dict[str, Any]:
    with safe_open(str(path), framework="pt") as file:
        return json.loads(file.metadata()["trunkline"])["lora"]


def test_ranks_by_layer_are_kept_and_one_rank_is_written_without_them(tiny: Loaded, tmp_path: Path) -> None:
    path = tmp_path / "task.safetensors"
    for pattern, keys in (((3, 3), set()), ((2, 4), {"rank_pattern"})):
        lora = tiny_models.random_adapter(tiny.encoder.config, (2, 3), rank=3, rank_pattern=pattern)
        save_adapter(adapter_of(tiny, lora=lora), path)
        assert set(lora_description(path)) == {"rank", "alpha", "targets", "layers"} | keys
        loaded = load_adapter(path, tiny.encoder.config, tiny.backbone).lora
        assert loaded is not None
        assert loaded.config == lora.config
        assert lora_hash(loaded) == lora_hash(lora)
        assert [loaded.config.rank_of(layer) for layer in (2, 3)] == list(pattern)


@pytest.mark.parametrize(
    ("pattern", "message"),
    [
        ([4, 2], "do not agree"),
        ([3], "1 LoRA ranks"),
        ([2, 400], "rank 400 in layer 3"),
        (["two", 4], "do not agree"),
        (7, "do not agree"),
    ],
)
def test_ranks_that_are_not_those_of_the_tensors_are_refused(
    pattern: Any, message: str, tiny: Loaded, tmp_path: Path
) -> None:
    path = tmp_path / "task.safetensors"
    lora = tiny_models.random_adapter(tiny.encoder.config, (2, 3), rank=3, rank_pattern=(2, 4))
    save_adapter(adapter_of(tiny, lora=lora), path)
    rewrite(path, lora=lora_description(path) | {"rank_pattern": pattern})
    with pytest.raises(MismatchError, match=message):
        load_adapter(path, tiny.encoder.config, tiny.backbone)


def test_saving_twice_gives_the_same_bytes(tiny: Loaded, saved: Path) -> None:
    first = saved.read_bytes()
    save_adapter(adapter_of(tiny), saved)
    assert saved.read_bytes() == first


def test_no_temporary_file_is_left_and_a_failed_write_keeps_the_old_file(
    tiny: Loaded, saved: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = saved.read_bytes()

    def fail(tensors: object, path: Path, metadata: object) -> None:
        path.write_bytes(b"half")
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("trunkline.encoder.storage.save_file", fail)
    with pytest.raises(OSError, match="No space"):
        save_adapter(adapter_of(tiny), saved)
    assert saved.read_bytes() == before
    assert [item.name for item in saved.parent.iterdir()] == [saved.name]


def test_an_adapter_of_another_backbone_is_refused_with_both_hashes(tiny: Loaded, saved: Path) -> None:
    with pytest.raises(MismatchError) as caught:
        load_adapter(saved, tiny.encoder.config, "f" * 64)
    assert tiny.backbone[:12] in str(caught.value)
    assert "f" * 12 in str(caught.value)


@pytest.mark.parametrize("kept", [0, 4, 100, -1])
def test_a_truncated_file_is_refused(kept: int, tiny: Loaded, saved: Path) -> None:
    saved.write_bytes(saved.read_bytes()[:kept])
    with pytest.raises(EncoderError, match=r"task\.safetensors cannot be read"):
        load_adapter(saved, tiny.encoder.config, tiny.backbone)


def test_another_format_number_is_refused(tiny: Loaded, saved: Path) -> None:
    rewrite(saved, format=2)
    with pytest.raises(MismatchError, match=r"format 2.*format 1.*Update"):
        load_adapter(saved, tiny.encoder.config, tiny.backbone)


@pytest.mark.parametrize("metadata", [None, {"trunkline": "{"}, {"trunkline": "[]"}, {"trunkline": "{}"}])
def test_a_foreign_safetensors_file_is_refused(metadata: dict[str, str] | None, tiny: Loaded, tmp_path: Path) -> None:
    save_file({"x": torch.zeros(2)}, tmp_path / "x.safetensors", metadata)
    with pytest.raises(MismatchError, match=r"not an adapter of trunkline.*import_peft"):
        load_adapter(tmp_path / "x.safetensors", tiny.encoder.config, tiny.backbone)


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
@pytest.mark.parametrize("name", ["head.weight", "head.bias", "lora.parts.2.query.b"])
def test_values_that_are_not_finite_are_refused(name: str, value: float, tiny: Loaded, saved: Path) -> None:
    tensors = load_file(saved)
    tensors[name].view(-1)[0] = value
    rewrite(saved, tensors)
    with pytest.raises(MismatchError, match="not finite"):
        load_adapter(saved, tiny.encoder.config, tiny.backbone)


def test_transitions_that_are_not_those_of_the_labels_are_refused(tiny: Loaded, saved: Path) -> None:
    rewrite(saved, load_file(saved) | {"head.transitions": torch.zeros(3, 3)})
    with pytest.raises(MismatchError, match=r"transitions are \(3, 3\).*\(4, 3\)"):
        load_adapter(saved, tiny.encoder.config, tiny.backbone)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"labels": ["O"]}, r"head is \(3, 32\).*\(1, 32\)"),
        ({"labels": 3}, "do not agree"),
        ({"fork": "two"}, "do not agree"),
        ({"fork": 3}, r"layers \[2\]"),
        ({"lora": {"rank": 4, "alpha": 8, "targets": ["query", "down"], "layers": [2, 3]}}, "do not agree"),
        ({"lora": {"rank": 3, "alpha": 8, "targets": ["query"], "layers": [2, 3]}}, "do not agree"),
        ({"lora": {"rank": 3, "alpha": 8, "targets": ["gate"], "layers": [2, 3]}}, "gate"),
        ({"lora": {"rank": 3}}, "do not agree"),
    ],
)
def test_a_description_that_contradicts_the_tensors_is_refused(
    changes: dict[str, Any], message: str, tiny: Loaded, saved: Path
) -> None:
    rewrite(saved, **changes)
    with pytest.raises(MismatchError, match=message):
        load_adapter(saved, tiny.encoder.config, tiny.backbone)


def test_half_a_head_is_refused(tiny: Loaded, saved: Path) -> None:
    tensors = load_file(saved)
    rewrite(saved, {name: tensor for name, tensor in tensors.items() if name != "head.bias"})
    with pytest.raises(MismatchError, match=r"do not agree.*head\.bias"):
        load_adapter(saved, tiny.encoder.config, tiny.backbone)


def test_the_lora_hash_tells_adapters_apart(tiny: Loaded) -> None:
    one, same, other = (tiny_models.random_adapter(tiny.encoder.config, (2, 3), seed=seed) for seed in (1, 1, 2))
    scaled = tiny_models.random_adapter(tiny.encoder.config, (2, 3), seed=1, alpha=9.0)
    assert lora_hash(one) == lora_hash(same)
    assert len({lora_hash(None), lora_hash(one), lora_hash(other), lora_hash(scaled)}) == 4
