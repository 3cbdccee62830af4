"""Adapter files: one safetensors file with LoRA tensors, a head, or both, bound to its backbone by hash."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from trunkline.encoder.architectures import EncoderConfig
from trunkline.encoder.lora import LoraAdapter, LoraConfig
from trunkline.encoder.storage import read_metadata, read_tensors, write_tensors
from trunkline.errors import MismatchError
from trunkline.heads.linear import LinearHead

FORMAT = 1


@dataclass(frozen=True)
class AdapterFile:
    """A primary adapter (LoRA only) or a task adapter (a head, with LoRA of its own or on a primary adapter).

    Attributes:
        family: The family whose units and decoding apply.
        backbone: `backbone_hash` of the backbone it was trained on.
        fork: First layer of the branches.
        lora: The low-rank updates, if any.
        head: The linear head, if any.
        labels: The head's outputs.
        primary: `lora_hash` of the primary adapter that a head without LoRA sits on; empty for the bare backbone.
        info: How it was made: task, scores on dev, versions; for people, nothing depends on it.
    """

    family: str
    backbone: str
    fork: int
    lora: LoraAdapter | None = None
    head: LinearHead | None = None
    labels: tuple[str, ...] = ()
    primary: str = ""
    info: Mapping[str, Any] = field(default_factory=dict)


def lora_hash(adapter: LoraAdapter | None) -> str:
    """SHA-256 of an adapter's tensors; empty for no adapter."""
    if adapter is None:
        return ""
    digest = hashlib.sha256(repr(adapter.config).encode())
    for name, tensor in sorted(adapter.state_dict().items()):
        digest.update(name.encode())
        digest.update(tensor.detach().to("cpu", torch.float32).contiguous().numpy().data)
    return digest.hexdigest()


def save_adapter(adapter: AdapterFile, path: Path) -> None:
    """Writes an adapter file, complete or not at all."""
    tensors: dict[str, Tensor] = {}
    description: dict[str, Any] = {
        "format": FORMAT,
        "family": adapter.family,
        "backbone": adapter.backbone,
        "fork": adapter.fork,
        "labels": list(adapter.labels),
        "primary": adapter.primary,
        "info": dict(adapter.info),
    }
    if adapter.lora is not None:
        config = adapter.lora.config
        description["lora"] = {
            "rank": config.rank,
            "alpha": config.alpha,
            "targets": list(config.targets),
            "layers": list(config.layers),
        }
        if config.rank_pattern:
            description["lora"]["rank_pattern"] = list(config.rank_pattern)
        tensors |= {f"lora.{name}": tensor for name, tensor in adapter.lora.state_dict().items()}
    if adapter.head is not None:
        tensors["head.weight"] = torch.from_numpy(adapter.head.weight)
        tensors["head.bias"] = torch.from_numpy(adapter.head.bias)
        if adapter.head.transitions is not None:
            tensors["head.transitions"] = torch.from_numpy(adapter.head.transitions)
    write_tensors(tensors, path, {"trunkline": json.dumps(description, ensure_ascii=False)})


def load_adapter(path: Path, encoder: EncoderConfig, backbone: str) -> AdapterFile:
    """Reads an adapter file for a backbone.

    Raises:
        EncoderError: The file is missing or damaged.
        MismatchError: It is no adapter of ours, of another format, for another backbone, or its tensors do not fit.
    """
    try:
        description = json.loads(read_metadata(path)["trunkline"])
        version = description["format"]
    except (KeyError, ValueError, TypeError) as error:
        raise MismatchError(
            f"{path} is not an adapter of trunkline", todo="PEFT adapters are read by `trunkline.import_peft`"
        ) from error
    if version != FORMAT:
        raise MismatchError(f"{path} has format {version}", expected=f"format {FORMAT}", todo="Update trunkline")
    if description.get("backbone") != backbone:
        raise MismatchError(
            f"{path} was trained on backbone {str(description.get('backbone'))[:12]}",
            expected=f"this backbone, {backbone[:12]}",
            todo="Adapt the task again on this backbone, or load the backbone that the adapter came with",
        )
    tensors = read_tensors(path)
    wrong = sorted(name for name, tensor in tensors.items() if not torch.isfinite(tensor).all())
    if wrong:
        raise MismatchError(f"{path}: {wrong[0]} has values that are not finite", todo="Adapt the task again")
    try:
        lora = _read_lora(description.get("lora"), tensors, encoder, int(description["fork"]))
        return AdapterFile(
            family=str(description["family"]),
            backbone=backbone,
            fork=int(description["fork"]),
            lora=lora,
            head=_read_head(tensors, len(description["labels"]), encoder, path),
            labels=tuple(map(str, description["labels"])),
            primary=str(description["primary"]),
            info=description["info"],
        )
    except (KeyError, TypeError, ValueError, RuntimeError) as error:
        raise MismatchError(f"{path}: its description and its tensors do not agree ({error})") from error


def _read_lora(raw: Any, tensors: Mapping[str, Tensor], encoder: EncoderConfig, fork: int) -> LoraAdapter | None:
    if raw is None:
        return None
    config = LoraConfig(
        int(raw["rank"]),
        float(raw["alpha"]),
        tuple(raw["targets"]),
        tuple(map(int, raw["layers"])),
        tuple(map(int, raw.get("rank_pattern", ()))),
    )
    config.check(encoder, fork)
    adapter = LoraAdapter(config, encoder)
    adapter.load_state_dict({k.removeprefix("lora."): v.float() for k, v in tensors.items() if k.startswith("lora.")})
    return adapter.eval().requires_grad_(False)


def _read_head(tensors: Mapping[str, Tensor], n_labels: int, encoder: EncoderConfig, path: Path) -> LinearHead | None:
    if "head.weight" not in tensors:
        return None
    weight, bias = tensors["head.weight"].float(), tensors["head.bias"].float()
    if weight.shape != (n_labels, encoder.hidden_size) or bias.shape != (n_labels,):
        raise MismatchError(
            f"{path}: the head is {tuple(weight.shape)}", expected=f"({n_labels}, {encoder.hidden_size})"
        )
    if "head.transitions" not in tensors:
        return LinearHead(weight.numpy(), bias.numpy())
    transitions = tensors["head.transitions"].float()
    if transitions.shape != (n_labels + 1, n_labels):
        raise MismatchError(
            f"{path}: the head's transitions are {tuple(transitions.shape)}", expected=f"({n_labels + 1}, {n_labels})"
        )
    return LinearHead(weight.numpy(), bias.numpy(), transitions.numpy())
