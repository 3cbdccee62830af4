"""Primary adapters and tasks in torch, and their files."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from trunkline.bundle.manifest import Manifest
from trunkline.bundle.parts import Head, PrimaryAdapter, Task, primary_bytes, task_bytes
from trunkline.encoder.adapter_tensors import adapter_arrays, lora_from_arrays
from trunkline.encoder.architectures import EncoderConfig
from trunkline.encoder.lora import LoraAdapter
from trunkline.errors import MismatchError
from trunkline.heads.linear import LinearHead


@dataclass(frozen=True)
class AdapterFile:
    """A primary adapter (LoRA only) or a task (a head, with LoRA of its own or on its family's primary adapter).

    Attributes:
        family: The family whose units and decoding apply.
        backbone: `backbone_hash` of the backbone it was trained on.
        fork: First layer of the branches.
        lora: The low-rank updates, if any.
        head: The linear head, if any.
        labels: The head's outputs.
        units: As in `trunkline.bundle.parts.Task`.
        info: How it was made: task, scores, versions; for people, nothing depends on it.
    """

    family: str
    backbone: str
    fork: int
    lora: LoraAdapter | None = None
    head: LinearHead | None = None
    labels: tuple[str, ...] = ()
    units: str = "words"
    info: Mapping[str, Any] = field(default_factory=dict)


def primary_file(adapter: AdapterFile) -> bytes:
    """The file of a primary adapter; raises MismatchError if it has no LoRA, or values that float16 cannot hold."""
    if adapter.lora is None:
        raise MismatchError(f"a primary adapter of {adapter.family} without LoRA", expected="one with LoRA")
    arrays = adapter_arrays(adapter.lora)
    return primary_bytes(adapter.family, adapter.backbone, adapter.fork, arrays, adapter.lora.config.alpha)


def task_file(task: AdapterFile, manifest: Manifest) -> bytes:
    """The file of a task for a bundle; raises MismatchError if it has no head, or values that float16 cannot hold."""
    if task.head is None:
        raise MismatchError(f"a task of {task.family} without a head", expected="a task, not a primary adapter")
    head = Head(np.ascontiguousarray(task.head.weight.T), task.head.bias, task.head.transitions)
    lora = None if task.lora is None else adapter_arrays(task.lora)
    alpha = 0.0 if task.lora is None else task.lora.config.alpha
    return task_bytes(
        manifest, task.family, task.labels, head, units=task.units, lora=lora, alpha=alpha, info=task.info
    )


def primary_in_torch(primary: PrimaryAdapter, manifest: Manifest, encoder: EncoderConfig) -> AdapterFile:
    """A bundle's primary adapter in torch."""
    lora = lora_from_arrays(primary.lora_arrays(), primary.alpha, encoder)
    return AdapterFile(primary.family, manifest.backbone, manifest.encoder.fork, lora)


def task_in_torch(task: Task, manifest: Manifest, encoder: EncoderConfig) -> AdapterFile:
    """A bundle's task in torch."""
    lora = lora_from_arrays(task.lora_arrays(), task.alpha, encoder) if task.own_lora else None
    head = LinearHead(np.ascontiguousarray(task.head.weight.T), task.head.bias, task.transitions)
    place = manifest.backbone, manifest.encoder.fork
    return AdapterFile(task.family, *place, lora, head, task.labels, task.units, task.info)
