"""Primary adapters and tasks as files: float16 tensors with the low-rank factors folded in, bound by hashes. No torch.

The same file serves training and deployment. Reading checks it against the bundle that it is for.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from trunkline.bundle.lora import HEAD, FloatArray, Inputs, check_inputs, fuse
from trunkline.bundle.manifest import (
    ADAPTER_SCHEMA,
    MAX_ADAPTER_BYTES,
    MAX_SHOWN,
    TASK_SCHEMA,
    VERSION,
    Manifest,
    problems_of,
)
from trunkline.bundle.tensors import read_file, tensors_of, write_tensors
from trunkline.errors import DataError, MismatchError

TRANSITIONS = "head.transitions"
_HEAD_TENSORS = (*HEAD, TRANSITIONS)
_DESCRIPTION = "trunkline"


@dataclass(frozen=True, slots=True)
class Head:
    """A linear head in the layout of files and graphs.

    Attributes:
        weight: [hidden, labels].
        bias: [labels].
        transitions: [labels + 1, labels], added to the log-probability of a unit's label (column) by the label of the
            unit before it (row; the last row: it is the first unit); None for all zero.
    """

    weight: FloatArray
    bias: FloatArray
    transitions: FloatArray | None = None


@dataclass(frozen=True, slots=True)
class Task:
    """A task of a bundle.

    Attributes:
        name: In the bundle.
        family: Whose units and decoding apply.
        labels: The head's outputs.
        units: What gets a label: `words`, `pieces` of the tokenizer, the `text`, or words of a `question`'s context.
        inputs: What the branch graph is fed with: `head.weight` [hidden, labels], `head.bias` [labels] and the task's
            own `lora.*`, query, key and value side by side.
        transitions: As in `Head`.
        own_lora: Whether it has LoRA of its own; otherwise it sits on its family's primary adapter.
        alpha: Of its LoRA; its tensors hold the factor alpha / rank already.
        content: The file's bytes.
        info: How it was made; nothing depends on it.
    """

    name: str
    family: str
    labels: tuple[str, ...]
    units: str
    inputs: Inputs
    transitions: FloatArray | None
    own_lora: bool
    alpha: float
    content: bytes
    info: Mapping[str, Any] = field(default_factory=dict)

    @property
    def types(self) -> list[str]:
        """The labels as a user knows them: entity types for NER."""
        return sorted({label[2:] for label in self.labels if label != "O"}) if self.family == "ner" else [*self.labels]

    @property
    def head(self) -> Head:
        """Its head."""
        return Head(self.inputs["head.weight"], self.inputs["head.bias"], self.transitions)

    def lora_arrays(self) -> dict[str, FloatArray]:
        """Its LoRA as `lora.LAYER.TARGET.a` and `.b`; empty if it has none."""
        return _lora_arrays(self.content)


@dataclass(frozen=True, slots=True)
class PrimaryAdapter:
    """A family's primary adapter: `inputs` are the `lora.*` of the branch graph, the rest is as in `Task`."""

    family: str
    inputs: Inputs
    alpha: float
    content: bytes

    @property
    def reference(self) -> str:
        """What a task that sits on it names: FAMILY@SHA256 of the file."""
        return f"{self.family}@{hashlib.sha256(self.content).hexdigest()}"

    def lora_arrays(self) -> dict[str, FloatArray]:
        """Its LoRA as `lora.LAYER.TARGET.a` and `.b`."""
        return _lora_arrays(self.content)


def primary_bytes(family: str, backbone: str, fork: int, lora: Mapping[str, npt.NDArray[Any]], alpha: float) -> bytes:
    """The file of a primary adapter. Nothing but the adapter goes in, so that its SHA-256 stands for it.

    `lora` has `lora.LAYER.TARGET.a` [inputs, rank] and `.b` [rank, outputs], the factor alpha / rank included. Raises
    MismatchError for values that float16 cannot hold.
    """
    return _file({"kind": "adapter", "family": family, "backbone": backbone, "fork": fork, "alpha": alpha}, lora)


def task_bytes(
    manifest: Manifest,
    family: str,
    labels: tuple[str, ...],
    head: Head,
    *,
    units: str,
    lora: Mapping[str, npt.NDArray[Any]] | None = None,
    alpha: float = 0.0,
    info: Mapping[str, Any] | None = None,
) -> bytes:
    """The file of a task that was fitted on the encoder of a manifest's bundle; arguments as in `Task`.

    `lora` is as for `primary_bytes`, as are errors; without it the task sits on its family's primary adapter.
    """
    tensors = {**(lora or {}), "head.weight": head.weight, "head.bias": head.bias}
    if head.transitions is not None:
        tensors[TRANSITIONS] = head.transitions
    description = {
        "kind": "task",
        "family": family,
        "backbone": manifest.backbone,
        "fork": manifest.encoder.fork,
        "labels": list(labels),
        "primary": "" if lora else primary_of(family, manifest),
        "alpha": alpha,
        "units": units,
        "info": dict(info or {}),
    }
    return _file(description, tensors)


def as_stored(head: Head) -> Head:
    """A head with the values that its file will hold, rounded to float16: what is scored is what is saved."""
    weight, bias, transitions = (
        None if part is None else _half(part, "head").astype(np.float32)
        for part in (head.weight, head.bias, head.transitions)
    )
    assert weight is not None and bias is not None
    return Head(weight, bias, transitions)


def read_task(source: Path | bytes, manifest: Manifest, name: str) -> Task:
    """Reads a task's file, or its bytes, for the bundle of a manifest.

    Raises:
        DataError: The file is damaged, or no task's.
        MismatchError: It belongs to another backbone or primary adapter, or does not fit the encoder.
    """
    content, where, tensors, raw = _opened(source, f"task {name}", "task", manifest)
    entry = manifest.tasks.get(name)
    if entry is not None and entry.family != raw["family"]:
        raise MismatchError(f"{where} is of family {raw['family']}", expected=f"{entry.family}, as the manifest says")
    transitions = _owned(tensors[TRANSITIONS]) if TRANSITIONS in tensors else None
    inputs = _inputs(tensors, where, manifest)
    own_lora = any(key.startswith("lora.") for key in inputs)
    expected = "" if own_lora else primary_of(raw["family"], manifest)
    if raw["primary"] != expected:
        raise MismatchError(
            f"{where} sits on the adapter {raw['primary'][:40] or 'none'}",
            expected=f"{expected[:40] or 'none'}, that of this bundle",
            todo="Fit the task again on this bundle",
        )
    _check_head(inputs, transitions, len(raw["labels"]), manifest.encoder.hidden_size, where)
    labels, alpha = tuple(raw["labels"]), float(raw["alpha"])
    return Task(name, raw["family"], labels, raw["units"], inputs, transitions, own_lora, alpha, content, raw["info"])


def read_primary(source: Path | bytes, manifest: Manifest, family: str) -> PrimaryAdapter:
    """Reads a primary adapter's file for a bundle; errors as for `read_task`."""
    content, where, tensors, raw = _opened(source, f"adapter {family}", "adapter", manifest)
    if raw["family"] != family:
        raise MismatchError(f"{where} is of family {raw['family']}", expected=family)
    inputs = _inputs(tensors, where, manifest)
    if not all(name.startswith("lora.") for name in inputs):
        raise MismatchError(f"{where} has a head", expected="a primary adapter, which is LoRA alone")
    return PrimaryAdapter(family, inputs, float(raw["alpha"]), content)


def primary_of(family: str, manifest: Manifest) -> str:
    """What a task without LoRA of its own must sit on: FAMILY@SHA256 of the family's adapter, or nothing."""
    file = manifest.adapters.get(family)
    return "" if file is None else f"{family}@{manifest.files[file].sha256}"


def _file(description: Mapping[str, Any], tensors: Mapping[str, npt.NDArray[Any]]) -> bytes:
    text = json.dumps(
        {"format": VERSION, **description}, ensure_ascii=False, sort_keys=True, separators=(",", ":"), allow_nan=False
    )
    return write_tensors({name: _half(tensor, name) for name, tensor in tensors.items()}, {_DESCRIPTION: text})


def _half(tensor: npt.NDArray[Any], name: str) -> npt.NDArray[np.float16]:
    with np.errstate(over="ignore"):
        half = np.asarray(tensor).astype(np.float16)
    if not np.isfinite(half).all():
        raise MismatchError(
            f"{name} has values that float16 cannot hold",
            expected="finite values up to 65504",
            todo="Fit or train again, with a stronger penalty or a lower rate",
        )
    return half


def _lora_arrays(content: bytes) -> dict[str, FloatArray]:
    tensors = tensors_of(content, "").tensors
    return {name: tensor for name, tensor in tensors.items() if name.startswith("lora.")}


def _opened(
    source: Path | bytes, called: str, kind: str, manifest: Manifest
) -> tuple[bytes, str, Mapping[str, FloatArray], Mapping[str, Any]]:
    """A file's bytes, what messages call it, its tensors, and its description, which is of the bundle's backbone."""
    content = read_file(source, MAX_ADAPTER_BYTES) if isinstance(source, Path) else source
    where = str(source) if isinstance(source, Path) else called
    file = tensors_of(content, where)
    text = file.metadata.get(_DESCRIPTION, "")
    try:
        raw = _parsed(text, kind)
    except (ValueError, RecursionError) as error:
        old = '"format": 1' in text or '"format":1' in text
        raise DataError(
            f"this is no {kind} of a bundle ({' '.join(str(error).split())[:300]})",
            path=where,
            expected=f"a file of kind {kind} and format {VERSION}",
            todo="`trunkline bundle convert` converts the bundle that it is from" if old else "Make or fetch it again",
        ) from error
    if raw["backbone"] != manifest.backbone:
        raise MismatchError(
            f"{where} was trained on backbone {raw['backbone'][:12]}",
            expected=f"{manifest.backbone[:12]}, the bundle's",
            todo="Fit the task again on the backbone of this bundle",
        )
    return content, where, file.tensors, raw


@lru_cache(maxsize=256)
def _parsed(text: str, kind: str) -> Mapping[str, Any]:
    raw = json.loads(text)
    problems = list(problems_of(raw, TASK_SCHEMA if kind == "task" else ADAPTER_SCHEMA, "its description"))
    if problems:
        raise ValueError("; ".join(problems[:MAX_SHOWN]))
    if kind == "task" and len(set(raw["labels"])) < len(raw["labels"]):
        raise ValueError("a label stands there twice")
    return dict(raw)


def _inputs(tensors: Mapping[str, FloatArray], where: str, manifest: Manifest) -> Inputs:
    unknown = [name for name in tensors if name.startswith("head.") and name not in _HEAD_TENSORS]
    if unknown:
        raise MismatchError(f"{where} has the tensor {unknown[0][:60]}", expected=", ".join(_HEAD_TENSORS))
    try:
        inputs = fuse(tensors)
        check_inputs(inputs, manifest.shapes)
    except MismatchError as error:
        raise MismatchError(f"{where}: {error.given}", expected=error.expected, todo=error.todo) from error
    return {name: _owned(tensor) for name, tensor in inputs.items()}


def _owned(tensor: FloatArray) -> FloatArray:
    """A tensor that does not keep the whole file's numbers, of which it is a part, in memory."""
    return tensor if tensor.base is None else tensor.copy()


def _check_head(inputs: Inputs, transitions: FloatArray | None, labels: int, hidden: int, where: str) -> None:
    found: dict[str, tuple[int, ...]] = {name: inputs[name].shape for name in HEAD if name in inputs}
    wanted: dict[str, tuple[int, ...]] = {"head.weight": (hidden, labels), "head.bias": (labels,)}
    if transitions is not None:
        found[TRANSITIONS], wanted[TRANSITIONS] = transitions.shape, (labels + 1, labels)
    if found != wanted:
        raise MismatchError(f"{where} has a head of {found}", expected=f"{wanted}, for its {labels} labels")
