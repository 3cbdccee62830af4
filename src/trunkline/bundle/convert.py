"""Training bundles of format 1 made into bundles of this version, by numpy alone.

Encoder, tokenizer, windows and primary adapters are the same in both formats but for the layout of tensors. Tasks are
not: their heads were fitted on the last layer's states, and heads read the mean of the branch's layers. They would
answer wrongly, so they are left out and named. Deployed bundles are refused, as their graphs read the last layer.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from trunkline import __version__
from trunkline.bundle.edit import Parts, write_bundle
from trunkline.bundle.lora import LORA_TARGETS, FloatArray
from trunkline.bundle.manifest import (
    MANIFEST,
    MAX_ADAPTER_BYTES,
    MAX_MANIFEST_BYTES,
    MAX_WEIGHTS_BYTES,
    TOKENIZER,
    Manifest,
    check_name,
    name_of,
    parse_manifest,
)
from trunkline.bundle.parts import primary_bytes
from trunkline.bundle.tensors import read_file, read_tensors
from trunkline.errors import DataError, MismatchError, TrunklineError

log = logging.getLogger("trunkline.bundle")

OVERLAP = 32
"""Tokens that neighbouring windows share, where windows are long enough."""

_KEYS = {"backbone": str, "fork": int, "max_length": int, "adapters": list, "tasks": list, "info": dict}


def convert_bundle(old: Path, new: Path) -> Path:
    """Writes a bundle of this version from a training bundle of format 1; says which tasks are left out.

    Args:
        old: Folder with `manifest.json`, `backbone/`, `adapters/` and `tasks/`.
        new: A new or empty folder, which is returned.

    Raises:
        TrunklineError: There is nothing to convert, or it cannot be: a deployed bundle; the place is taken.
        DataError: A file is missing or damaged.
        MismatchError: The parts of the bundle do not belong together.
    """
    from trunkline.encoder.architectures import ARCHITECTURES, encoder_facts, read_config, weights_hash

    raw = _read_old(old)
    place = old / "backbone"
    config = read_config(_json(place / "config.json"), str(place / "config.json"))
    stored = read_tensors(place / "model.safetensors", MAX_WEIGHTS_BYTES).tensors
    names = ARCHITECTURES[config.model_type].weight_names(config)
    missing = [theirs for theirs in names.values() if theirs not in stored]
    if missing or weights_hash(config, {ours: stored[theirs] for ours, theirs in names.items()}) != raw["backbone"]:
        raise MismatchError(
            f"{place}: {missing[0] + ' is missing' if missing else 'these are other weights'}",
            expected=f"the backbone {raw['backbone'][:12]}, as the manifest says",
            todo="Fetch or make the bundle again",
        )
    left = sorted(check_name(name) for name in raw["tasks"])
    windows = min(raw["max_length"], config.max_length)
    manifest = Manifest(
        name=name_of(new, "bundle"),
        trunkline=__version__,
        encoder=encoder_facts(config, raw["fork"], windows, min(OVERLAP, (windows - 2) // 2)),
        backbone=raw["backbone"],
        weights={"kind": "float32"},
        lora_targets=tuple(LORA_TARGETS),
        info={**raw["info"], "converted_from": 1, **({"tasks_left_out": left} if left else {})},
    )
    checkpoint: dict[str, bytes | Path] = {"config": place / "config.json", "weights": place / "model.safetensors"}
    adapters = {family: _primary(old, check_name(family), raw) for family in raw["adapters"]}
    write_bundle(new, manifest, Parts(tokenizer=place / TOKENIZER, checkpoint=checkpoint, adapters=adapters))
    if left:
        log.warning("left out, fit again: %s. Their heads read the last layer alone", ", ".join(left))
    return new


def _read_old(folder: Path) -> dict[str, Any]:
    """The manifest of a training bundle of format 1."""
    path = folder / MANIFEST
    raw = _json(path)
    raw = {"info": {}, **raw} if isinstance(raw, dict) else raw
    if not isinstance(raw, dict) or raw.get("format") != 1 or "backbone" not in raw:
        if isinstance(raw, dict) and raw.get("version") == 1:
            raise TrunklineError(
                f"{folder} is a deployed bundle of version 1, whose graphs read the last layer alone",
                expected="the training bundle that it was exported from",
                todo="Convert that one, fit its tasks again, and export it by `trunkline export`",
            )
        parse_manifest(read_file(path, MAX_MANIFEST_BYTES), path)
        raise TrunklineError(f"{folder} is a bundle of this version", expected="a training bundle of format 1")
    for key, kind in _KEYS.items():
        if type(raw.get(key)) is not kind:
            raise DataError(f"{key} is {raw.get(key)!r:.60}", path=path, expected=f"a value of type {kind.__name__}")
    return raw


def _json(path: Path) -> Any:
    try:
        return json.loads(read_file(path, MAX_MANIFEST_BYTES))
    except (ValueError, RecursionError) as error:
        raise DataError(f"this is no JSON ({error})", path=path, expected="the file as it was written") from error


def _primary(folder: Path, family: str, manifest: Mapping[str, Any]) -> bytes:
    """The file of a primary adapter: matrices the other way round, and the factor alpha / rank in `b`."""
    path = folder / "adapters" / f"{family}.safetensors"
    file = read_tensors(path, MAX_ADAPTER_BYTES)
    arrays: dict[str, FloatArray] = {}
    try:
        said = json.loads(file.metadata["trunkline"])
        alpha, backbone = float(said["lora"]["alpha"]), said["backbone"]
        for name, tensor in file.tensors.items():
            lora, _, layer, target, side = name.split(".")
            rank = file.tensors[f"lora.parts.{layer}.{target}.a"].shape[0]
            factor = np.float32(alpha / rank if side == "b" and rank else 1)
            arrays[f"{lora}.{layer}.{target}.{side}"] = tensor.T * factor
    except (KeyError, ValueError, TypeError) as error:
        raise DataError(f"this is no adapter of format 1 ({error})", path=path, expected="LoRA of a family") from error
    if (said.get("family"), backbone, said.get("fork")) != (family, manifest["backbone"], manifest["fork"]):
        raise MismatchError(f"{path} belongs to another bundle", expected=f"the adapter of {family} of this one")
    return primary_bytes(family, backbone, manifest["fork"], arrays, alpha)
