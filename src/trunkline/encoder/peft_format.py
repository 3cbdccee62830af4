"""Adapters in the file format of Hugging Face PEFT: `adapter_config.json` and `adapter_model.safetensors`."""

from __future__ import annotations

import logging
import math
import re
from collections.abc import Mapping
from dataclasses import replace
from itertools import product
from pathlib import Path
from typing import Any

from safetensors.torch import save
from torch import Tensor

from trunkline.bundle.files import write_atomic
from trunkline.bundle.manifest import BRANCHES, LINEARS, branch_of
from trunkline.encoder.architectures import ARCHITECTURES, EncoderConfig
from trunkline.encoder.bundle_files import load_any, load_bundle, save_bundle
from trunkline.encoder.lora import LoraAdapter, lora_from_arrays
from trunkline.encoder.storage import read_json, read_tensors, write_json
from trunkline.errors import MismatchError
from trunkline.tasks import FAMILIES

log = logging.getLogger(__name__)

_REFUSED = {
    "use_dora": "DoRA",
    "alora_invocation_tokens": "aLoRA",
    "lora_bias": "biases in LoRA",
    "layer_replication": "replicated layers",
}
_CHANGES_BASE = ("pissa", "olora", "corda", "loftq", "lora_ga")
"""Initialisations after which PEFT's base weights are others than those of the backbone."""

_CLASSIFIER = re.compile(r"(base_model\.model\.)?(classifier|pre_classifier|score|qa_outputs)\..+")
"""What PEFT saves beside LoRA where it was told the kind of task (TOKEN_CLS, SEQ_CLS, QUESTION_ANS)."""


def export_peft(adapter: LoraAdapter, encoder: EncoderConfig, folder: str | Path, base_model: str = "") -> None:
    """Writes an adapter of an encoder so that `PeftModel.from_pretrained(AutoModel..., folder)` gives the same states.

    `base_model`, the name or folder of the backbone, goes into the configuration. Raises MismatchError for rank 0.
    """
    architecture, config = ARCHITECTURES[encoder.model_type], adapter.config
    if config.rank == 0:
        raise MismatchError("an adapter of rank 0 changes nothing and PEFT refuses it", expected="rank 1 or more")
    tensors: dict[str, Tensor] = {}
    modules = []
    for layer, target in product(config.layers, config.targets):
        part, module = adapter.part(layer, target), architecture.module_name(layer, target)
        modules.append(module)
        tensors[f"base_model.model.{module}.lora_A.weight"] = part.a.detach().cpu()
        tensors[f"base_model.model.{module}.lora_B.weight"] = part.b.detach().cpu()
    write_atomic(Path(folder) / "adapter_model.safetensors", save(tensors, {"format": "pt"}))
    facts: dict[str, Any] = {"peft_type": "LORA", "task_type": "FEATURE_EXTRACTION"}
    facts |= {"base_model_name_or_path": base_model, "inference_mode": True}
    facts |= {"r": config.rank, "lora_alpha": config.alpha, "target_modules": modules}
    write_json(facts, Path(folder) / "adapter_config.json")


def import_peft(folder: str | Path, encoder: EncoderConfig) -> LoraAdapter:
    """Reads a PEFT LoRA adapter of an encoder, whatever task model it was trained under.

    A trained classifier is left out with a message; other tensors that are no LoRA of the encoder's linear layers are
    refused. Where ranks or alphas differ (`rank_pattern`, `alpha_pattern`), zeros fill up to the largest rank, and B
    takes up the difference of the factors.

    Raises:
        MismatchError: It is no plain LoRA, or does not fit the encoder.
        EncoderError: A file is missing or damaged.
    """
    folder = Path(folder)
    raw = read_json(folder / "adapter_config.json")
    _refuse(raw, folder)
    architecture = ARCHITECTURES[encoder.model_type]
    places = product(range(encoder.n_layers), LINEARS)
    modules = {architecture.module_name(layer, name): f"lora.{layer}.{name}" for layer, name in places}
    module = rf"(?P<path>(?:{architecture.prefix}\.)?(?P<module>.+))"
    pattern = re.compile(rf"(?:base_model\.model\.)?{module}\.lora_(?P<side>[AB])(?:\.default)?\.weight")
    arrays, alphas = {}, []
    left_out: list[str] = []
    unused: list[str] = []
    for key, tensor in read_tensors(folder / "adapter_model.safetensors").items():
        match = pattern.fullmatch(key)
        if match and match["module"] in modules and tensor.ndim == 2:
            side, rank = match["side"], tensor.shape[match["side"] == "B"]
            alphas.append(_alpha(raw, match["path"], rank, folder))
            # In float64, so that the factor can be taken out again without a trace.
            value = tensor.double() * (alphas[-1] / max(rank, 1) if side == "B" else 1)
            arrays[f"{modules[match['module']]}.{side.lower()}"] = value.T.numpy()
        else:
            (left_out if _CLASSIFIER.fullmatch(key) and ".lora_" not in key else unused).append(key)
    if unused or not arrays:
        raise MismatchError(
            f"{folder}: {len(unused)} tensors are no LoRA of a {encoder.model_type} encoder, such as {unused[:2]}",
            expected="LoRA on " + ", ".join(LINEARS),
            todo="Save the adapter without modules_to_save",
        )
    if left_out:
        log.warning("%s: the classifier (%s) is left out; `trunkline fit` makes a head", folder, ", ".join(left_out))
    return lora_from_arrays(arrays, max(alphas, key=abs) or 1.0, encoder)


def _refuse(raw: Any, folder: Path) -> None:
    kind = raw.get("peft_type") if isinstance(raw, dict) else type(raw).__name__
    if kind != "LORA":
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


def _alpha(raw: Mapping[str, Any], path: str, rank: int, folder: Path) -> float:
    """The alpha of a module, such that PEFT's factor is alpha / rank.

    A key of alpha_pattern names a module by its path or the end of it.
    """
    alpha = raw["lora_alpha"]
    for key, own in reversed((raw.get("alpha_pattern") or {}).items()):
        name = key.removeprefix("^").removesuffix("$").replace("\\.", ".")
        # PEFT runs keys as regular expressions. One that comes with a file could be made to run for ever.
        if not re.fullmatch(r"[\w.]+", name):
            raise MismatchError(
                f"{folder}: alpha_pattern has the regular expression {key!r}",
                expected="names of modules",
                todo="Write the names of the modules out",
            )
        if path == name or (not key.startswith("^") and path.endswith("." + name)):
            alpha = own
    return float(alpha) * (math.sqrt(rank) if raw.get("use_rslora") else 1.0)


def with_peft(bundle: Path, family: str, folder: Path, out: Path) -> Path:
    """Copies a bundle with a PEFT adapter as a family's primary adapter; tasks that sat on another one are left out.

    Raises MismatchError for an unknown family; other errors are those of `import_peft`.
    """
    if family not in FAMILIES or family in BRANCHES:
        known = ", ".join(name for name in FAMILIES if name not in BRANCHES)
        raise MismatchError(f"the family {family!r}", expected=f"one of {known}")
    loaded = load_any(str(bundle))
    adapter = import_peft(folder, loaded.encoder.config)
    tasks = {name: task for name, task in loaded.tasks.items() if branch_of(task.family) != family or task.own_lora}
    save_bundle(replace(loaded, primaries={**loaded.primaries, family: adapter}, tasks=tasks), out)
    return out


def primary_to_peft(bundle: Path, family: str, out: Path) -> Path:
    """Writes a bundle's primary adapter of a family as PEFT reads it; raises MismatchError if it has none."""
    loaded = load_bundle(bundle)
    adapter = loaded.primaries.get(family)
    if adapter is None:
        raise MismatchError(
            f"{bundle} has no primary adapter of family {family}",
            expected="one of " + (", ".join(sorted(loaded.primaries)) or "(none)"),
        )
    export_peft(adapter, loaded.encoder.config, out, str(loaded.info.get("encoder", "")))
    return out
