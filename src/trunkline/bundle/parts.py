"""Primary adapters and tasks as files: float16 tensors with the low-rank factors folded in, bound by hashes. No torch.

The same file serves training and deployment. It has, for each adapted linear layer, `lora.LAYER.TARGET.a` [inputs,
rank] and `lora.LAYER.TARGET.b` [rank, outputs]; the update of the layer's output is `x a b`. A graph computes query,
key and value as one product, so that it has one pair of inputs for all three, `lora.LAYER.qkv.a` and `.b`: with it, an
update costs two operations a layer, not six. Reading a file checks it against the bundle that it is for.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import safetensors
import safetensors.numpy

from trunkline.bundle.manifest import (
    ANYTHING,
    DECISIONS,
    HEAD,
    LINEARS,
    LORA_TARGETS,
    MAX_SHOWN,
    NAME,
    SHA256,
    SHAPES,
    TEXT,
    VERSION,
    FloatArray,
    Inputs,
    Manifest,
    Shapes,
    branch_of,
    problems_of,
    read_file,
)
from trunkline.errors import DataError, MismatchError

Array = npt.NDArray[Any]

TRANSITIONS = "head.transitions"
SHAPES_OF = "head.shapes"
MAX_HEADER_BYTES = 4 * 2**20
MAX_AXES = 8

_DESCRIPTION = "trunkline"
_COMMON = {"format": (VERSION,), "family": NAME, "backbone": SHA256, "fork": range(1001), "alpha": float}
_OF_TASKS: dict[Any, Any] = {
    "labels": [TEXT],
    "primary": re.compile(f"({NAME.pattern}@{SHA256.pattern})?"),
    "units": ("words", "pieces", "text", "question"),
    "decisions": DECISIONS,
    "info": {ANYTHING: None},
}
_FORMS = {"adapter": {"kind": ("adapter",), **_COMMON}, "task": {"kind": ("task",), **_COMMON, **_OF_TASKS}}
"""What files say of themselves, as in `manifest.FORM`; `primary` is FAMILY@SHA256 of the adapter's file, or empty."""

_TYPES = {"F16": np.float16, "F32": np.float32}
_EXPECTED = "a complete safetensors file of float16 or float32 tensors"
_NAME = re.compile(rf"lora\.(0|[1-9][0-9]{{0,3}})\.({'|'.join(LINEARS)})\.(.+)")


@dataclass(frozen=True, slots=True)
class Head:
    """A linear head in the layout of files and graphs.

    Attributes:
        weight: [hidden, labels]; as it is fitted in tasks of NER, with the rows of `Task.shapes` behind.
        bias: [labels].
        transitions: [labels + 1, labels], added to the log-probability of a unit's label (column) by the label of the
            unit before it (row; the last row: it is the first unit); None for all zero.
        decisions: What is made of its outputs, see `trunkline.bundle.manifest.DECISIONS`.
    """

    weight: FloatArray
    bias: FloatArray
    transitions: FloatArray | None = None
    decisions: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class PrimaryAdapter:
    """A family's primary adapter.

    Attributes:
        family: Whose.
        inputs: The `lora.*` inputs of the branch graph, query, key and value side by side.
        alpha: Of its LoRA; its tensors hold the factor alpha / rank already.
        content: The file's bytes.
    """

    family: str
    inputs: Inputs
    alpha: float
    content: bytes

    def lora_arrays(self) -> dict[str, FloatArray]:
        """Its LoRA as `lora.LAYER.TARGET.a` and `.b`; empty if it has none."""
        return {name: tensor for name, tensor in tensors_of(self.content, "")[0].items() if name.startswith("lora.")}


@dataclass(frozen=True, slots=True)
class Task(PrimaryAdapter):
    """A task of a bundle: a head, and LoRA of its own or none.

    Attributes:
        inputs: As in `PrimaryAdapter`, besides `head.weight` [hidden, labels] and `head.bias` [labels].
        name: In the bundle.
        labels: The head's outputs.
        units: What gets a label: `words`, `pieces` of the tokenizer, the `text`, or words of a `question`'s context.
        transitions, decisions: As in `Head`.
        shapes: [`SHAPES` of the manifest, labels], what the shapes of units add to the outputs; None for nothing.
        own_lora: Whether it has LoRA of its own; otherwise it sits on its family's primary adapter.
        info: How it was made; nothing depends on it.
    """

    name: str
    labels: tuple[str, ...]
    units: str
    transitions: FloatArray | None
    shapes: FloatArray | None
    own_lora: bool
    decisions: Mapping[str, Any] = field(default_factory=dict)
    info: Mapping[str, Any] = field(default_factory=dict)

    @property
    def types(self) -> list[str]:
        """The labels as a user knows them: entity types for NER."""
        types = {label[2:]: None for label in self.labels if label != "O"} if self.family == "ner" else self.labels
        return [label for label in types if label != self.decisions.get("other")]

    @property
    def head(self) -> Head:
        """Its head."""
        return Head(self.inputs["head.weight"], self.inputs["head.bias"], self.transitions, self.decisions)


def primary_bytes(family: str, backbone: str, fork: int, lora: Mapping[str, Array], alpha: float) -> bytes:
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
    lora: Mapping[str, Array] | None = None,
    alpha: float = 0.0,
    info: Mapping[str, Any] | None = None,
) -> bytes:
    """The file of a task that was fitted on the encoder of a manifest's bundle; arguments as in `Task`.

    `lora` is as for `primary_bytes`, as are errors; without it the task sits on its family's primary adapter.
    """
    hidden = manifest.encoder.hidden_size
    tensors = {**(lora or {}), "head.weight": head.weight[:hidden], "head.bias": head.bias}
    if len(head.weight) > hidden:
        tensors[SHAPES_OF] = head.weight[hidden:]
    if head.transitions is not None:
        tensors[TRANSITIONS] = head.transitions
    common = {"kind": "task", "family": family, "backbone": manifest.backbone, "fork": manifest.encoder.fork}
    own = {"labels": list(labels), "units": units, "alpha": alpha, "info": dict(info or {})}
    own |= {"decisions": dict(head.decisions)} if head.decisions else {}
    return _file({**common, **own, "primary": "" if lora else _primary_of(family, manifest)}, tensors)


def as_stored(head: Head) -> Head:
    """A head with the values that its file will hold, rounded to float16: what is scored is what is saved."""
    parts = {name: getattr(head, name) for name in ("weight", "bias", "transitions")}
    halves: dict[str, Any] = {
        name: _half(part, "head").astype(np.float32) for name, part in parts.items() if part is not None
    }
    return replace(head, **halves)


def _file(description: Mapping[str, Any], tensors: Mapping[str, Array]) -> bytes:
    said = {"format": VERSION, **description}
    text = json.dumps(said, ensure_ascii=False, sort_keys=True, separators=(",", ":"), allow_nan=False)
    return write_tensors({name: _half(tensor, name) for name, tensor in tensors.items()}, {_DESCRIPTION: text})


def _half(tensor: Array, name: str) -> npt.NDArray[np.float16]:
    with np.errstate(over="ignore"):
        half = np.asarray(tensor).astype(np.float16)
    if not np.isfinite(half).all():
        todo = "Fit or train again, with a stronger penalty or a lower rate"
        raise MismatchError(f"{name} has values that float16 cannot hold", expected="values up to 65504", todo=todo)
    return half


def read_task(source: Path | bytes, manifest: Manifest, name: str) -> Task:
    """Reads a task's file, or its bytes, for the bundle of a manifest.

    Raises:
        DataError: The file is damaged, or no task's.
        MismatchError: It belongs to another backbone or primary adapter, or does not fit the encoder.
    """
    known = manifest.tasks[name].family if name in manifest.tasks else None
    where, content, tensors, inputs, raw = _opened(source, "task", name, known, manifest)
    family, labels = raw["family"], tuple(raw["labels"])
    transitions, shapes, own_lora = (
        tensors.get(TRANSITIONS),
        tensors.get(SHAPES_OF),
        any(key.startswith("lora.") for key in inputs),
    )
    expected = "" if own_lora else _primary_of(family, manifest)
    if raw["primary"] != expected:
        given, expected = f"{where} sits on the adapter {raw['primary'][:40] or 'none'}", expected[:40] or "none"
        raise MismatchError(given, expected=f"{expected}, the bundle's", todo="Fit the task again on this bundle")
    found = {key: tensor.shape for key, tensor in tensors.items() if key.startswith("head.")}
    wanted = {"head.weight": (manifest.encoder.hidden_size, len(labels)), "head.bias": (len(labels),)}
    if transitions is not None:
        wanted[TRANSITIONS] = (len(labels) + 1, len(labels))
    if shapes is not None and family == "ner":
        wanted[SHAPES_OF] = (SHAPES, len(labels))
    if found != wanted:
        raise MismatchError(f"{where} has a head of {found}", expected=f"{wanted}, for its {len(labels)} labels")
    own = (raw["units"], transitions, shapes, own_lora, raw["decisions"], raw["info"])
    return Task(family, inputs, float(raw["alpha"]), content, name, labels, *own)


def read_primary(source: Path | bytes, manifest: Manifest, family: str) -> PrimaryAdapter:
    """Reads a primary adapter's file for a bundle; errors as for `read_task`."""
    where, content, tensors, inputs, raw = _opened(source, "adapter", family, family, manifest)
    if not all(name.startswith("lora.") for name in tensors):
        raise MismatchError(f"{where} has a head", expected="a primary adapter, which is LoRA alone")
    return PrimaryAdapter(family, inputs, float(raw["alpha"]), content)


def _primary_of(family: str, manifest: Manifest) -> str:
    """What a task without LoRA of its own must sit on: FAMILY@SHA256 of its branch's adapter, or nothing."""
    family = branch_of(family)
    file = manifest.adapters.get(family)
    return "" if file is None else f"{family}@{manifest.files[file].sha256}"


def _opened(
    source: Path | bytes, kind: str, name: str, family: str | None, manifest: Manifest
) -> tuple[str, bytes, dict[str, FloatArray], Inputs, dict[str, Any]]:
    """What messages call a file, its bytes, its tensors, the inputs made of them, and what it says of itself."""
    where = str(source) if isinstance(source, Path) else f"{kind} {name}"
    content = read_file(source) if isinstance(source, Path) else source
    tensors, metadata = tensors_of(content, where)
    text = metadata.get(_DESCRIPTION, "")
    try:
        raw = json.loads(text)
        raw = {"decisions": {}, **raw} if kind == "task" and isinstance(raw, dict) else raw
        problems = list(problems_of(raw, _FORMS[kind], "its description"))
        if problems:
            raise ValueError("; ".join(problems[:MAX_SHOWN]))
        if kind == "task" and len(set(raw["labels"])) < len(raw["labels"]):
            raise ValueError("a label stands there twice")
    except (ValueError, RecursionError) as error:
        given = f"this is no {kind} of a bundle ({' '.join(str(error).split())[:300]})"
        expected = f"a {kind} of format {VERSION}"
        raise DataError(given, path=where, expected=expected, todo="Make or fetch it again") from error
    if raw["backbone"] != manifest.backbone:
        given, expected = f"{where} was trained on backbone {raw['backbone'][:12]}", manifest.backbone[:12]
        raise MismatchError(given, expected=f"{expected}, the bundle's", todo="Fit the task again on this bundle")
    if family not in (None, raw["family"]):
        raise MismatchError(f"{where} is of family {raw['family']}", expected=f"{family}, as the manifest says")
    try:
        inputs = fuse(tensors)
        check_inputs(inputs, manifest.shapes)
    except MismatchError as error:
        raise MismatchError(f"{where}: {error.given}", expected=error.expected, todo=error.todo) from error
    return where, content, tensors, inputs, raw


def fuse(tensors: Mapping[str, Array]) -> Inputs:
    """The inputs of the branch graph from the tensors of an adapter file, in float32.

    Query, key and value of a layer become one pair: `a` side by side, `b` block by block, rank the sum of the ranks;
    the head's weight and bias stay as they are.

    Raises:
        MismatchError: A tensor is missing, unknown or of another shape than its partner.
    """
    inputs: Inputs = {name: tensors[name].astype(np.float32, copy=False) for name in HEAD if name in tensors}
    pairs = lora_pairs({name: tensor for name, tensor in tensors.items() if not name.startswith("head.")})
    for layer in sorted({layer for layer, _ in pairs}):
        for name, targets in LORA_TARGETS.items():
            present = [target for target in targets if (layer, target) in pairs]
            if not present:
                continue
            a, b = zip(*(pairs[layer, target] for target in present), strict=True)
            inner, outer = sorted({len(part) for part in a}), sorted({part.shape[1] for part in b})
            if len(inner) + len(outer) > 2:
                given = f"LoRA of query, key and value in layer {layer} with inputs {inner} and outputs {outer}"
                raise MismatchError(given, expected="the same for all three")
            inputs[f"lora.{layer}.{name}.a"] = np.concatenate(a, axis=1, dtype=np.float32)
            rows, joined = 0, np.zeros((sum(map(len, b)), len(targets), outer[0]), np.float32)
            for target, part in zip(present, b, strict=True):
                joined[rows : rows + len(part), targets.index(target)] = part
                rows += len(part)
            inputs[f"lora.{layer}.{name}.b"] = joined.reshape(rows, len(targets) * outer[0])
    return inputs


def lora_pairs(arrays: Mapping[str, Array]) -> dict[tuple[int, str], tuple[Array, Array]]:
    """(layer, target) -> `a` [inputs, rank] and `b` [rank, outputs], by their names.

    Raises:
        MismatchError: A name of another form, a tensor that is alone, or a pair that does not fit together.
    """
    pairs = {}
    for name in arrays:
        match = _NAME.fullmatch(name)
        if match is None:
            known = f"lora.LAYER.TARGET.a or .b, TARGET one of {', '.join(LINEARS)}"
            raise MismatchError(f"the tensor {name[:60]} of an adapter", expected=known)
        place = f"lora.{match[1]}.{match[2]}"
        a, b = arrays.get(f"{place}.a"), arrays.get(f"{place}.b")
        if match[3] not in ("a", "b") or a is None or b is None:
            raise MismatchError(f"the tensor {name[:60]} of an adapter is alone", expected="a pair .a and .b")
        if a.ndim != 2 or b.ndim != 2 or a.shape[1] != b.shape[0]:
            raise MismatchError(f"{place} has a {a.shape} and b {b.shape}", expected="[inputs, rank], [rank, outputs]")
        pairs[int(match[1]), match[2]] = a, b
    return pairs


def check_inputs(given: Mapping[str, FloatArray], shapes: Shapes) -> None:
    """Raises MismatchError unless an adapter's updates have a place in the graph and the right sizes."""
    for name, value in given.items():
        if name.startswith("head."):
            continue
        place, side = name.removeprefix("lora.").rsplit(".", 1)
        if place not in shapes:
            raise MismatchError(
                f"the adapter has updates {name}, for which the graph has no input",
                expected="updates of " + (", ".join(shapes) or "no layer"),
                todo="Export the bundle with a lower fork or with this LoRA target",
            )
        inputs, outputs = shapes[place]
        found, wanted = (value.shape[0], inputs) if side == "a" else (value.shape[1], outputs)
        if found != wanted:
            raise MismatchError(f"{name} has shape {value.shape}", expected=f"{wanted}, the width of the encoder there")


def complete(given: Mapping[str, FloatArray], shapes: Shapes, hidden: int) -> Inputs:
    """Inputs for a graph whose inputs are all required: rank 0 where the adapter has nothing, no labels for no head."""
    check_inputs(given, shapes)
    result = dict(given)
    for place, (inputs, outputs) in shapes.items():
        result.setdefault(f"lora.{place}.a", np.zeros((inputs, 0), np.float32))
        result.setdefault(f"lora.{place}.b", np.zeros((0, outputs), np.float32))
    result.setdefault("head.weight", np.zeros((hidden, 0), np.float32))
    result.setdefault("head.bias", np.zeros(result["head.weight"].shape[1], np.float32))
    return result


def tensors_of(content: bytes, path: str | Path) -> tuple[dict[str, FloatArray], dict[str, str]]:
    """The tensors of a safetensors file's bytes, in float32, and its text metadata; `path` is for messages.

    Raises:
        DataError: It is truncated or otherwise no safetensors file, of other types than float16 and float32, or has
            values that are not finite.
    """
    size = int.from_bytes(content[:8], "little")
    if len(content) < 8 or size > min(len(content) - 8, MAX_HEADER_BYTES):
        raise DataError(f"a header of {size} bytes in a file of {len(content)}", path=path, expected=_EXPECTED)
    try:
        # The library checks names, types, shapes and offsets; of metadata it says nothing.
        entries = safetensors.deserialize(content)
        metadata = json.loads(content[8 : 8 + size]).get("__metadata__", {})
        if any(len(entry["shape"]) > MAX_AXES for _, entry in entries):
            raise ValueError(f"a tensor of more than {MAX_AXES} axes")
        raw = {name: np.frombuffer(entry["data"], _TYPES[entry["dtype"]]) for name, entry in entries}
        values = {name: raw[name].astype(np.float32).reshape(entry["shape"]) for name, entry in entries}
    except (safetensors.SafetensorError, ValueError, KeyError, RecursionError) as error:
        raise DataError(" ".join(str(error).split())[:300], path=path, expected=_EXPECTED) from error
    for name, tensor in values.items():
        if not np.isfinite(tensor).all():
            raise DataError(f"{name} has values that are not finite", path=path, expected="numbers")
    return values, metadata


def write_tensors(tensors: Mapping[str, Array], metadata: Mapping[str, str]) -> bytes:
    """A safetensors file of float16 or float32 tensors; equal tensors and metadata give equal bytes."""
    ordered = {name: np.ascontiguousarray(tensors[name]) for name in sorted(tensors)}
    return bytes(safetensors.numpy.save(ordered, dict(sorted(metadata.items()))))
