"""Bundles of format 1 made into bundles of this version: the same encoder and adapters, and nothing silently wrong."""

from __future__ import annotations

import json
import logging
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from typer.testing import CliRunner

import tiny_models
import trunkline
from trunkline.bundle.files import open_bundle
from trunkline.cli import app
from trunkline.encoder.bundle_files import Loaded, load_bundle
from trunkline.encoder.convert import convert_bundle
from trunkline.encoder.lora import LoraAdapter
from trunkline.errors import DataError, EncoderError, MismatchError, TrunklineError


def write_old(folder: Path, tiny: Loaded, adapters: dict[str, LoraAdapter], max_length: int = 48) -> Path:
    """A training bundle of format 1: adapters as torch has them, alpha and ranks in their description, a task."""
    tiny_models.save_encoder(tiny.encoder, folder / "backbone", tiny.config)
    tiny.tokenizer.tokenizer.save(str(folder / "backbone" / "tokenizer.json"))
    for family, lora in adapters.items():
        config = lora.config
        shape = {"rank": config.rank, "alpha": config.alpha, "targets": config.targets, "layers": config.layers}
        said = {"format": 1, "family": family, "backbone": tiny.backbone, "fork": 2, "labels": [], "primary": ""}
        _save(folder / "adapters" / family, {f"lora.{name}": t for name, t in lora.state_dict().items()}, {
            **said, "info": {}, "lora": shape,
        })  # fmt: skip
    said = {"format": 1, "family": "ner", "backbone": tiny.backbone, "fork": 2, "primary": "0" * 64, "info": {}}
    head = {"head.weight": torch.ones(2, tiny_models.WIDTH), "head.bias": torch.zeros(2)}
    _save(folder / "tasks" / "people", head, {**said, "labels": ["a", "b"]})
    manifest = {
        "format": 1,
        "backbone": tiny.backbone,
        "fork": 2,
        "max_length": max_length,
        "adapters": sorted(adapters),
        "tasks": ["people"],
        "info": {"encoder": "tiny"},
    }
    (folder / "manifest.json").write_text(json.dumps(manifest, indent=2))
    return folder


def _save(path: Path, tensors: dict[str, torch.Tensor], description: dict[str, Any]) -> None:
    path.parent.mkdir(exist_ok=True)
    whole = {name: tensor.contiguous() for name, tensor in tensors.items()}
    save_file(whole, path.with_suffix(".safetensors"), {"trunkline": json.dumps(description)})


@pytest.fixture
def adapters(tiny: Loaded) -> dict[str, LoraAdapter]:
    config = tiny.encoder.config
    return {
        "ner": tiny_models.random_adapter(config, (2, 3), rank=3, seed=1, targets=("query", "down"), alpha=7.0),
        "classification": tiny_models.random_adapter(
            config, (2, 3), rank=3, seed=2, targets=("value", "up"), rank_pattern=(2, 4)
        ),
    }


@pytest.fixture
def old(tiny: Loaded, adapters: dict[str, LoraAdapter], tmp_path: Path) -> Path:
    return write_old(tmp_path / "old", tiny, adapters)


def test_encoder_windows_and_adapters_are_the_same_afterwards(
    old: Path, tiny: Loaded, adapters: dict[str, LoraAdapter], tmp_path: Path
) -> None:
    new = convert_bundle(old, tmp_path / "new-bundle")
    loaded, opened = load_bundle(new), open_bundle(new)
    assert loaded.backbone == tiny.backbone
    assert (opened.manifest.name, opened.manifest.encoder.fork) == ("new-bundle", 2)
    assert (loaded.tokenizer.max_length, loaded.tokenizer.overlap) == (48, 23)
    assert tiny_models.same_bits(loaded.encoder.state_dict(), tiny.encoder.state_dict())
    assert loaded.primaries.keys() == adapters.keys()
    for family, lora in adapters.items():
        ours = tiny_models.states(loaded.encoder, loaded.tokenizer, deltas=loaded.primaries.get(family))
        theirs = tiny_models.states(tiny.encoder, loaded.tokenizer, deltas=lora)
        assert tiny_models.difference(ours, theirs) < 3e-3
        bare = tiny_models.states(tiny.encoder, loaded.tokenizer)
        assert tiny_models.difference(bare, theirs) > 3e-2
    report = trunkline.load(new).fit("kinds", ["ann", "bob", "rome", "oslo"], ["name", "name", "place", "place"])
    assert report.task == "kinds"


def test_tasks_are_left_out_and_named(old: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING, "trunkline"):
        new = convert_bundle(old, tmp_path / "new")
    assert "people" in caplog.text
    assert "fit again" in caplog.text
    manifest = open_bundle(new).manifest
    assert manifest.tasks == {}
    assert manifest.info == {"encoder": "tiny", "converted_from": 1, "tasks_left_out": ["people"]}


def test_the_command_converts(old: Path, tmp_path: Path) -> None:
    result = CliRunner().invoke(app, ["bundle", "convert", str(old), "--out", str(tmp_path / "new")])
    assert result.exit_code == 0, result.output
    assert trunkline.load(tmp_path / "new").tasks == {}


def test_every_way_to_open_the_old_one_says_what_to_do(old: Path, tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"earlier format.*trunkline bundle convert"):
        trunkline.load(old)
    with pytest.raises(DataError, match="bundle convert"):
        trunkline.load(convert_bundle(old, tmp_path / "new")).add("people", old / "tasks" / "people.safetensors")


def test_deployed_bundles_are_refused_with_what_to_do(tmp_path: Path) -> None:
    (tmp_path / "manifest.json").write_text(json.dumps({"format": "trunkline-bundle", "version": 1}))
    with pytest.raises(TrunklineError, match=r"has version 1.*Convert the bundle that .* export that again"):
        convert_bundle(tmp_path, tmp_path / "new")
    assert not (tmp_path / "new").exists()


def change(path: Path, **changes: Any) -> None:
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))


def test_damaged_and_mixed_bundles_are_refused(old: Path, tmp_path: Path, tiny: Loaded) -> None:
    weights, adapter = old / "backbone" / "model.safetensors", old / "adapters" / "ner.safetensors"
    before = {path: path.read_bytes() for path in (weights, adapter, old / "manifest.json")}

    def refused(kind: type[TrunklineError], message: str) -> None:
        with pytest.raises(kind, match=message):
            convert_bundle(old, tmp_path / "new")
        assert not (tmp_path / "new").exists()
        for path, content in before.items():
            path.write_bytes(content)

    tensors = load_file(weights)
    tensors["encoder.layer.0.output.dense.bias"][0] += 0.5
    save_file(tensors, weights, {"format": "pt"})
    refused(MismatchError, "these are other weights")
    del tensors["encoder.layer.0.output.dense.bias"]
    save_file(tensors, weights, {"format": "pt"})
    refused(EncoderError, "are missing")
    weights.write_bytes(before[weights][:-3])
    refused(EncoderError, r"model\.safetensors")
    parts = load_file(adapter)
    description = json.loads(_metadata(adapter))
    for changes, kind, message in (
        ({"backbone": "0" * 64}, MismatchError, "belongs to another bundle"),
        ({"family": "classification"}, MismatchError, "belongs to another bundle"),
        ({"lora": {}}, DataError, "no adapter of format 1"),
    ):
        save_file(parts, adapter, {"trunkline": json.dumps(description | changes)})
        refused(kind, message)
    save_file({"lora.parts.2.gate.a": torch.ones(2, 2)}, adapter, {"trunkline": json.dumps(description)})
    refused(TrunklineError, "gate")
    for changes, message in (
        ({"fork": "two"}, "fork is 'two'"),
        ({"tasks": 3}, "tasks is 3"),
        ({"adapters": ["../x"]}, r"adapters\[0\] is"),
        ({"fork": 40}, "fork at layer 40"),
        ({"max_length": 1}, "max_length"),
    ):
        change(old / "manifest.json", **changes)
        refused(TrunklineError, message)
    (old / "backbone" / "config.json").write_text("{}")
    refused(EncoderError, "architecture")


def _metadata(path: Path) -> str:
    from safetensors import safe_open

    with safe_open(str(path), framework="pt") as file:
        return str(file.metadata()["trunkline"])


def test_what_is_none_of_ours_or_new_is_said(old: Path, tmp_path: Path) -> None:
    new = convert_bundle(old, tmp_path / "new")
    with pytest.raises(TrunklineError, match="a bundle of this version"):
        convert_bundle(new, tmp_path / "again")
    with pytest.raises(TrunklineError, match="has files already"):
        convert_bundle(old, new)
    (tmp_path / "manifest.json").write_text("{}")
    for folder in (tmp_path, tmp_path / "missing"):
        with pytest.raises(TrunklineError, match=r"manifest\.json"):
            convert_bundle(folder, tmp_path / "again")
