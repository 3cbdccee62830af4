"""Adapters in the file format of Hugging Face PEFT: `adapter_config.json` and `adapter_model.safetensors`."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from torch import Tensor

from trunkline.encoder.architectures import ARCHITECTURES, LINEARS, EncoderConfig
from trunkline.encoder.lora import LoraAdapter, LoraConfig
from trunkline.encoder.storage import read_json, read_tensors, write_json, write_tensors
from trunkline.errors import MismatchError

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
    pattern: dict[str, int] = {}
    for layer in config.layers:
        for target in config.targets:
            part, module = adapter.part(layer, target), architecture.module_name(layer, target)
            if part is not None:
                modules.append(module)
                if config.rank_of(layer) != config.rank:
                    pattern[module] = config.rank_of(layer)
                tensors[f"base_model.model.{module}.lora_A.weight"] = part.a
                tensors[f"base_model.model.{module}.lora_B.weight"] = part.b
    write_tensors(tensors, Path(folder) / "adapter_model.safetensors", {"format": "pt"})
    # PEFT divides alpha by the rank of the module, as `LoraConfig` does, so no alpha_pattern is needed.
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
            **({"rank_pattern": pattern} if pattern else {}),
        },
        Path(folder) / "adapter_config.json",
    )


def import_peft(folder: str | Path, encoder: EncoderConfig) -> LoraAdapter:
    """Reads a PEFT LoRA adapter of an encoder, whatever task model it was trained under.

    Tensors that are no LoRA of the encoder's linear layers, such as a trained classifier, are refused, not dropped.
    Ranks may differ from layer to layer (`rank_pattern`). Where alphas differ too (`alpha_pattern`, or rank-stabilised
    LoRA with several ranks), B takes up the difference, so that the update is PEFT's.

    Raises:
        MismatchError: It is no plain LoRA, has different ranks within a layer, or does not fit the encoder.
        EncoderError: A file is missing or damaged.
    """
    folder = Path(folder)
    raw = read_json(folder / "adapter_config.json")
    _refuse(raw, folder)
    found, paths, unused = _parts(read_tensors(folder / "adapter_model.safetensors"), encoder)
    if unused or not found:
        raise MismatchError(
            f"{folder}: {len(unused)} tensors are no LoRA of a {encoder.model_type} encoder, such as {unused[:2]}",
            expected="LoRA on " + ", ".join(LINEARS),
            todo="Save the adapter without modules_to_save; a head is fitted again by `trunkline adapt`",
        )
    layers = tuple(sorted({layer for layer, _ in found}))
    targets = tuple(name for name in LINEARS if any(target == name for _, target in found))
    complete = all({"A", "B"} <= found.get((layer, name), {}).keys() for layer in layers for name in targets)
    ranks = {place: sides["A"].shape[0] for place, sides in found.items() if "A" in sides}
    if not complete or any(ranks[layer, name] != ranks[layer, targets[0]] for layer in layers for name in targets):
        raise MismatchError(
            f"{folder}: ranks {sorted(set(ranks.values()))} on {', '.join(targets)} of layers {list(layers)}",
            expected="one rank within a layer and the same targets in every layer",
        )
    pattern = tuple(ranks[layer, targets[0]] for layer in layers)
    alphas = {place: _alpha(raw, paths[place], rank, folder) for place, rank in ranks.items()}
    alpha = max(alphas.values(), key=abs)
    config = LoraConfig(_nominal(raw, pattern, folder), alpha, targets, layers, pattern)
    config.check(encoder, 0)
    adapter = LoraAdapter(config, encoder)
    state = {f"parts.{n}.{t}.{side.lower()}": x.float() for (n, t), s in found.items() for side, x in s.items()}
    for (layer, name), own in alphas.items():
        if own != alpha:
            state[f"parts.{layer}.{name}.b"] *= own / alpha
    try:
        adapter.load_state_dict(state)
    except RuntimeError as error:
        raise MismatchError(f"{folder} does not fit the encoder ({error})") from error
    return adapter.eval().requires_grad_(False)


def _refuse(raw: Any, folder: Path) -> None:
    if not isinstance(raw, dict) or raw.get("peft_type") != "LORA":
        kind = raw.get("peft_type") if isinstance(raw, dict) else type(raw).__name__
        raise MismatchError(f"{folder} is a PEFT adapter of type {kind!r}", expected="LORA")
    patterns = raw.get("alpha_pattern") or {}
    if not isinstance(patterns, dict):
        raise MismatchError(f"{folder} has alpha_pattern {patterns!r}", expected="an alpha for each name of a module")
    for key, alpha in {"lora_alpha": raw.get("lora_alpha"), **patterns}.items():
        if not isinstance(alpha, int | float) or not math.isfinite(alpha):
            raise MismatchError(f"{folder} has {key} {alpha!r}", expected="a number")
    refused = [name for key, name in _REFUSED.items() if raw.get(key)]
    start = str(raw.get("init_lora_weights", "")).lower()
    refused += [f"the initialisation {start}, which changes the base"] if start.startswith(_CHANGES_BASE) else []
    refused += ["trained biases"] if raw.get("bias", "none") != "none" else []
    if refused:
        raise MismatchError(f"{folder} uses " + ", ".join(refused), expected="plain LoRA")


def _nominal(raw: Mapping[str, Any], pattern: tuple[int, ...], folder: Path) -> int:
    if len(set(pattern)) == 1:
        return pattern[0]
    if not isinstance(raw.get("r"), int):
        raise MismatchError(f"{folder} has r {raw.get('r')!r}", expected="a whole number")
    return int(raw["r"])


def _alpha(raw: Mapping[str, Any], path: str, rank: int, folder: Path) -> float:
    """The alpha of a module, such that PEFT's factor is alpha / rank."""
    alpha = next(
        (alpha for key, alpha in (raw.get("alpha_pattern") or {}).items() if _names(key, path, folder)),
        raw["lora_alpha"],
    )
    return float(alpha) * (math.sqrt(rank) if raw.get("use_rslora") else 1.0)


def _names(key: str, path: str, folder: Path) -> bool:
    """Whether a key of alpha_pattern names a module, by its path or the end of it."""
    name = key.removeprefix("^").removesuffix("$").replace("\\.", ".")
    # PEFT runs keys as regular expressions. One that comes with a file could be made to run for ever.
    if not re.fullmatch(r"[\w.]+", name):
        raise MismatchError(
            f"{folder}: alpha_pattern has the regular expression {key!r}",
            expected="names of modules",
            todo="Write the names of the modules out",
        )
    return path == name or (not key.startswith("^") and path.endswith("." + name))


def _parts(
    tensors: Mapping[str, Tensor], encoder: EncoderConfig
) -> tuple[dict[tuple[int, str], dict[str, Tensor]], dict[tuple[int, str], str], list[str]]:
    """The matrices by layer and target, the path of each module in the model that PEFT wrapped, and other tensors."""
    architecture = ARCHITECTURES[encoder.model_type]
    modules = {
        architecture.module_name(layer, name): (layer, name) for layer in range(encoder.n_layers) for name in LINEARS
    }
    module = rf"(?P<path>(?:{architecture.prefix}\.)?(?P<module>.+))"
    pattern = re.compile(rf"(?:base_model\.model\.)?{module}\.lora_(?P<side>[AB])(?:\.default)?\.weight")
    found: dict[tuple[int, str], dict[str, Tensor]] = {}
    paths: dict[tuple[int, str], str] = {}
    unused = []
    for key, tensor in tensors.items():
        match = pattern.fullmatch(key)
        if match and match["module"] in modules and tensor.ndim == 2:
            place = modules[match["module"]]
            found.setdefault(place, {})[match["side"]] = tensor
            paths[place] = match["path"]
        else:
            unused.append(key)
    return found, paths, unused


def with_peft(bundle: Path, family: str, folder: Path, out: Path) -> Path:
    """Copies a bundle with a PEFT adapter as a family's primary adapter; tasks that sat on another one are left out.

    Raises:
        TrunklineError: The adapter is none of this encoder, or the folder is taken.
    """
    from trunkline.encoder.adapter_file import AdapterFile
    from trunkline.encoder.bundle_files import load_any, save_bundle

    loaded = load_any(str(bundle))
    adapter = AdapterFile(family, loaded.backbone, loaded.encoder.fork, import_peft(folder, loaded.encoder.config))
    tasks = {name: task for name, task in loaded.tasks.items() if task.family != family or task.lora is not None}
    save_bundle(replace(loaded, primaries={**loaded.primaries, family: adapter}, tasks=tasks), out)
    return out


def primary_to_peft(bundle: Path, family: str, out: Path) -> Path:
    """Writes a bundle's primary adapter of a family as PEFT reads it; raises MismatchError if it has none."""
    from trunkline.encoder.bundle_files import load_bundle

    loaded = load_bundle(bundle)
    adapter = loaded.primary(family)
    if adapter is None:
        raise MismatchError(
            f"{bundle} has no primary adapter of family {family}",
            expected="one of " + (", ".join(sorted(loaded.primaries)) or "(none)"),
        )
    export_peft(adapter, loaded.encoder.config, out, str(loaded.info.get("encoder", "")))
    return out
