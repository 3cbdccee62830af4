"""Training bundles of format 1 made into bundles of this version.

Encoder, tokenizer, windows and primary adapters are the same in both formats but for the layout of tensors. Tasks are
not: their heads were fitted on the last layer's states, and heads read the mean of the branch's layers. They would
answer wrongly, so they are left out and named. Deployed bundles are refused, as their graphs read the last layer.
"""

from __future__ import annotations

import json
import logging
from pathlib import Path
from typing import Any

import torch

from trunkline.bundle.files import check_free, read_manifest
from trunkline.bundle.manifest import ANYTHING, MANIFEST, NAME, SHA256, listed, name_of, problems_of, read_file
from trunkline.bundle.parts import tensors_of
from trunkline.encoder.bundle_files import Loaded, save_bundle
from trunkline.encoder.encoder import Encoder
from trunkline.encoder.lora import LoraAdapter, LoraConfig
from trunkline.encoder.storage import load_encoder, load_tokenizer, read_json
from trunkline.errors import DataError, MismatchError, TrunklineError

log = logging.getLogger(__name__)

_FORM: dict[Any, Any] = {
    "format": (1,),
    "backbone": SHA256,
    "fork": range(1001),
    "max_length": range(3, 2**20 + 1),
    "adapters": [NAME],
    "tasks": [NAME],
    "info": {ANYTHING: None},
}


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
    raw, place = _read_old(old), old / "backbone"
    check_free(new)
    left = sorted(raw["tasks"])
    encoder = load_encoder(place, raw["fork"], raw["backbone"])
    tokenizer, config = load_tokenizer(place, encoder.config, raw["max_length"]), read_json(place / "config.json")
    primaries = {family: _primary(old, family, encoder, raw) for family in raw["adapters"]}
    info = {**raw["info"], "converted_from": 1, **({"tasks_left_out": left} if left else {})}
    loaded = Loaded(encoder, tokenizer, config, raw["backbone"], primaries, info=info)
    save_bundle(loaded, new, name_of(new, "bundle"))
    if left:
        log.warning("left out, fit again: %s. Their heads read the last layer alone", ", ".join(left))
    return new


def _read_old(folder: Path) -> dict[str, Any]:
    """The manifest of a training bundle of format 1."""
    path = folder / MANIFEST
    raw = read_json(path)
    if not isinstance(raw, dict) or raw.get("format") != 1 or "backbone" not in raw:
        read_manifest(folder)
        raise TrunklineError(f"{folder} is a bundle of this version", expected="a training bundle of format 1")
    raw = {"info": {}, **raw}
    problems = list(problems_of(raw, _FORM))
    if problems:
        raise DataError(listed("the manifest has problems", problems), path=path, expected="a manifest of format 1")
    return raw


def _primary(folder: Path, family: str, encoder: Encoder, manifest: dict[str, Any]) -> LoraAdapter:
    path = folder / "adapters" / f"{family}.safetensors"
    tensors, metadata = tensors_of(read_file(path), path)
    try:
        said = json.loads(metadata["trunkline"])
        rank, alpha, targets, layers = (said["lora"][key] for key in ("rank", "alpha", "targets", "layers"))
        lora = LoraAdapter(LoraConfig(rank, alpha, tuple(targets), tuple(layers)), encoder.config)
        lora.load_state_dict({name.removeprefix("lora."): torch.from_numpy(x) for name, x in tensors.items()})
    except (KeyError, ValueError, TypeError, RuntimeError) as error:
        reason = " ".join(str(error).split())[:300]
        raise DataError(f"this is no adapter of format 1 ({reason})", path=path, expected="LoRA of a family") from error
    wanted = (family, manifest["backbone"], manifest["fork"])
    if (said.get("family"), said.get("backbone"), said.get("fork")) != wanted:
        raise MismatchError(f"{path} belongs to another bundle", expected=f"the adapter of {family} of this one")
    return lora.eval().requires_grad_(False)
