"""Primary adapters and tasks as files of a deployed bundle: float16, low-rank factors folded in, bound by hashes."""

from __future__ import annotations

import copy
import json
from pathlib import Path
from typing import Any

import numpy as np
import torch

from trunkline.bundle.files import primary_of
from trunkline.bundle.manifest import MAX_ADAPTER_BYTES, Manifest
from trunkline.bundle.tensors import read_tensors, write_tensors
from trunkline.encoder.adapter_file import AdapterFile, load_adapter, lora_hash
from trunkline.encoder.architectures import EncoderConfig
from trunkline.encoder.lora import LoraAdapter
from trunkline.errors import MismatchError
from trunkline.export.adapters import adapter_tensors, to_half
from trunkline.export.parity import Adapter
from trunkline.heads.linear import LinearHead
from trunkline.tasks import FAMILIES


def primary_bytes(primary: AdapterFile) -> bytes:
    """The file of a family's primary adapter. Nothing but the adapter goes in, so that its SHA-256 stands for it."""
    description = {
        "format": 1,
        "kind": "adapter",
        "family": primary.family,
        "backbone": primary.backbone,
        "fork": primary.fork,
        "lora": lora_hash(primary.lora),
    }
    return write_tensors(to_half(adapter_tensors(primary.lora)), {"trunkline": _json(description)})


def task_bytes(task: AdapterFile, primary: str) -> bytes:
    """The file of a task.

    Args:
        task: With a head.
        primary: FAMILY@SHA256 of the deployed adapter that it sits on; empty for none, and left out if it has LoRA.

    Raises:
        MismatchError: No head, no rule for its family, or values that float16 cannot hold.
    """
    if task.head is None or task.family not in FAMILIES:
        raise MismatchError(
            f"a task of family {task.family} {'without' if task.head is None else 'with'} a head",
            expected="a head, and one of the families " + ", ".join(FAMILIES),
        )
    description = {
        "format": 1,
        "kind": "task",
        "family": task.family,
        "backbone": task.backbone,
        "fork": task.fork,
        "labels": list(task.labels),
        "primary": "" if task.lora is not None else primary,
        "info": dict(task.info),
    }
    return write_tensors(to_half(adapter_tensors(task.lora, task.head)), {"trunkline": _json(description)})


def converted_task(path: Path, folder: Path, manifest: Manifest) -> bytes:
    """A task file of a training bundle as one of a deployed bundle.

    Args:
        path: The file.
        folder: The deployed bundle.
        manifest: Its manifest.

    Raises:
        MismatchError: The task belongs to another backbone or primary adapter.
        EncoderError: The file is damaged.
    """
    task = load_adapter(path, _encoder_of(manifest), manifest.backbone)
    if task.lora is None:
        file = manifest.adapters.get(task.family)
        known = "" if file is None else _lora_of(folder / file)
        if task.primary != known:
            raise MismatchError(
                f"{path} sits on the adapter {task.primary[:12] or 'none'}",
                expected=f"{known[:12] or 'none'}, that of this bundle",
                todo="Adapt the task again on the training bundle that this bundle was exported from",
            )
    return task_bytes(task, primary_of(task.family, manifest))


def as_deployed(lora: LoraAdapter | None, head: LinearHead | None = None) -> Adapter:
    """An adapter and a head for torch with the values that a deployed file has, rounded to float16.

    What was exported is compared with this, so that a wrong file does not hide behind the rounding.
    """
    halves = to_half(adapter_tensors(lora, head))
    values = {name: half.astype(np.float32) for name, half in halves.items()}
    rounded = copy.deepcopy(lora)
    for layer in rounded.config.layers if rounded is not None else ():
        for target in rounded.config.targets if rounded is not None else ():
            part = rounded.part(layer, target) if rounded is not None else None
            if part is not None and part.a.numel():
                name = f"lora.{layer}.{target}"
                part.a.data = torch.from_numpy(values[f"{name}.a"].T.copy())
                part.b.data = torch.from_numpy(values[f"{name}.b"].T / part.scale)
    if head is None:
        return Adapter(rounded)
    weight = np.ascontiguousarray(values["head.weight"].T)
    return Adapter(rounded, LinearHead(weight, values["head.bias"], values.get("head.transitions")))


def _encoder_of(manifest: Manifest) -> EncoderConfig:
    """What reading an adapter needs of the encoder's configuration."""
    facts = manifest.encoder
    return EncoderConfig(
        model_type=facts.model_type,
        vocab_size=facts.vocabulary_size,
        hidden_size=facts.hidden_size,
        embedding_size=facts.hidden_size,
        n_layers=facts.n_layers,
        n_heads=facts.n_heads,
        intermediate_size=facts.intermediate_size,
        activation=facts.activation,
        max_positions=facts.max_length,
        type_vocab_size=0,
        norm_eps=1e-12,
        pad_id=facts.pad_id,
    )


def _lora_of(path: Path) -> str:
    text = read_tensors(path, MAX_ADAPTER_BYTES).metadata.get("trunkline", "{}")
    return str(json.loads(text).get("lora", ""))


def _json(description: dict[str, Any]) -> str:
    return json.dumps(description, ensure_ascii=False, sort_keys=True, separators=(",", ":"))
