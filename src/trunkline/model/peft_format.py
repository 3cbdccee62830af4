"""Adapters in the file format of Hugging Face PEFT: `adapter_config.json` and `adapter_model.safetensors`."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from torch import Tensor

from trunkline.errors import MismatchError
from trunkline.model.architectures import ARCHITECTURES, LINEARS, EncoderConfig
from trunkline.model.lora import LoraAdapter, LoraConfig
from trunkline.model.storage import read_json, read_tensors, write_json, write_tensors

_REFUSED = {"use_dora": "DoRA", "lora_bias": "biases in LoRA", "layer_replication": "replicated layers"}
_CHANGES_BASE = ("pissa", "olora", "corda", "loftq", "lora_ga")
"""Initialisations after which PEFT's base weights are others than those of the backbone."""


def export_peft(adapter: LoraAdapter, encoder: EncoderConfig, folder: str | Path, base_model: str = "") -> None:
    """Writes an adapter so that `PeftModel.from_pretrained(AutoModel..., folder)` gives the same states.

    Args:
        adapter: The adapter.
        encoder: The encoder it belongs to.
        folder: Where the two files go.
        base_model: Name or folder of the backbone, written into the configuration.

    Raises:
        MismatchError: The adapter has rank 0.
    """
    architecture = ARCHITECTURES[encoder.model_type]
    config = adapter.config
    if config.rank == 0:
        raise MismatchError("an adapter of rank 0 changes nothing and PEFT refuses it", expected="rank 1 or more")
    tensors: dict[str, Tensor] = {}
    modules = []
    for layer in config.layers:
        for target in config.targets:
            part, module = adapter.part(layer, target), architecture.module_name(layer, target)
            if part is not None:
                modules.append(module)
                tensors[f"base_model.model.{module}.lora_A.weight"] = part.a
                tensors[f"base_model.model.{module}.lora_B.weight"] = part.b
    write_tensors(tensors, Path(folder) / "adapter_model.safetensors", {"format": "pt"})
    write_json(
        {
            "peft_type": "LORA",
            "task_type": "FEATURE_EXTRACTION",
            "base_model_name_or_path": base_model,
            "r": config.rank,
            "lora_alpha": config.alpha,
            "lora_dropout": 0.0,
            "bias": "none",
            "fan_in_fan_out": False,
            "inference_mode": True,
            "target_modules": modules,
        },
        Path(folder) / "adapter_config.json",
    )


def import_peft(folder: str | Path, encoder: EncoderConfig) -> LoraAdapter:
    """Reads a PEFT LoRA adapter of an encoder, whatever task model it was trained under.

    Tensors that are no LoRA of the encoder's linear layers, such as a trained classifier, are refused, not dropped.

    Raises:
        MismatchError: It is no plain LoRA, has different ranks by layer, or does not fit the encoder.
        EncoderError: A file is missing or damaged.
    """
    folder = Path(folder)
    raw = read_json(folder / "adapter_config.json")
    _refuse(raw, folder)
    found, unused = _parts(read_tensors(folder / "adapter_model.safetensors"), encoder)
    if unused or not found:
        raise MismatchError(
            f"{folder}: {len(unused)} tensors are no LoRA of a {encoder.model_type} encoder, such as {unused[:2]}",
            expected="LoRA on " + ", ".join(LINEARS),
            todo="Save the adapter without modules_to_save; a head is fitted again by `trunkline adapt`",
        )
    ranks = {sides["A"].shape[0] for sides in found.values() if "A" in sides}
    layers = tuple(sorted({layer for layer, _ in found}))
    targets = tuple(name for name in LINEARS if any(target == name for _, target in found))
    complete = all({"A", "B"} <= found.get((layer, name), {}).keys() for layer in layers for name in targets)
    if len(ranks) != 1 or not complete:
        raise MismatchError(f"{folder}: ranks {sorted(ranks)}", expected="one rank and the same targets in every layer")
    rank = ranks.pop()
    alpha = float(raw["lora_alpha"]) * (math.sqrt(rank) if raw.get("use_rslora") else 1.0)
    config = LoraConfig(rank, alpha, targets, layers)
    config.check(encoder, 0)
    adapter = LoraAdapter(config, encoder)
    try:
        adapter.load_state_dict(
            {f"parts.{n}.{t}.{side.lower()}": x.float() for (n, t), s in found.items() for side, x in s.items()}
        )
    except RuntimeError as error:
        raise MismatchError(f"{folder} does not fit the encoder ({error})") from error
    return adapter.eval().requires_grad_(False)


def _refuse(raw: Any, folder: Path) -> None:
    if not isinstance(raw, dict) or raw.get("peft_type") != "LORA":
        kind = raw.get("peft_type") if isinstance(raw, dict) else type(raw).__name__
        raise MismatchError(f"{folder} is a PEFT adapter of type {kind!r}", expected="LORA")
    if not isinstance(raw.get("lora_alpha"), int | float):
        raise MismatchError(f"{folder} has lora_alpha {raw.get('lora_alpha')!r}", expected="a number")
    refused = [name for key, name in _REFUSED.items() if raw.get(key)]
    start = str(raw.get("init_lora_weights", "")).lower()
    refused += [f"the initialisation {start}, which changes the base"] if start.startswith(_CHANGES_BASE) else []
    refused += ["trained biases"] if raw.get("bias", "none") != "none" else []
    refused += ["ranks or alphas by layer"] if raw.get("rank_pattern") or raw.get("alpha_pattern") else []
    if refused:
        raise MismatchError(f"{folder} uses " + ", ".join(refused), expected="plain LoRA")


def _parts(
    tensors: Mapping[str, Tensor], encoder: EncoderConfig
) -> tuple[dict[tuple[int, str], dict[str, Tensor]], list[str]]:
    architecture = ARCHITECTURES[encoder.model_type]
    modules = {
        architecture.module_name(layer, name): (layer, name) for layer in range(encoder.n_layers) for name in LINEARS
    }
    prefix = rf"(?:base_model\.model\.)?(?:{architecture.prefix}\.)?"
    pattern = re.compile(prefix + r"(?P<module>.+)\.lora_(?P<side>[AB])(?:\.default)?\.weight")
    found: dict[tuple[int, str], dict[str, Tensor]] = {}
    unused = []
    for key, tensor in tensors.items():
        match = pattern.fullmatch(key)
        if match and match["module"] in modules:
            found.setdefault(modules[match["module"]], {})[match["side"]] = tensor
        else:
            unused.append(key)
    return found, unused
