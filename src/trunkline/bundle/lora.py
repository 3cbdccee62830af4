"""Adapters as inputs of the branch graph: from the tensors of an adapter file to what a session is fed. No torch.

An adapter file has, for each adapted linear layer, `lora.LAYER.TARGET.a` [inputs, rank] and `lora.LAYER.TARGET.b`
[rank, outputs]; the update of the layer's output is `x a b`, all factors included. A graph computes query, key and
value as one product, so that it has one pair of inputs for all three, `lora.LAYER.qkv.a` and `.b`: with it, an update
costs two operations a layer, not six. The places of a graph where
updates go in are its LoRA targets.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import numpy as np
import numpy.typing as npt

from trunkline.errors import MismatchError

FloatArray = npt.NDArray[np.float32]
Inputs = dict[str, FloatArray]
Shapes = Mapping[str, tuple[int, int]]

LORA_TARGETS: dict[str, tuple[str, ...]] = {
    "qkv": ("query", "key", "value"),
    "out": ("out",),
    "up": ("up",),
    "down": ("down",),
}
"""LoRA target of a graph -> the linear layers whose updates go in there."""

_TARGETS = frozenset(target for targets in LORA_TARGETS.values() for target in targets)
_LAYER = re.compile(r"0|[1-9][0-9]{0,3}")

HEAD = ("head.weight", "head.bias")
"""Inputs of the head. What else a file says of a head is for decoding, and no graph has an input for it."""


def lora_shapes(layers: range, hidden: int, intermediate: int, chosen: Sequence[str]) -> dict[str, tuple[int, int]]:
    """`LAYER.TARGET` -> (inputs, outputs) of every pair of LoRA inputs of a graph.

    Raises:
        MismatchError: There is no such target.
    """
    unknown = sorted(set(chosen) - LORA_TARGETS.keys())
    if unknown:
        raise MismatchError(f"LoRA targets {unknown}", expected="some of " + ", ".join(LORA_TARGETS))
    sizes = {
        "qkv": (hidden, 3 * hidden),
        "out": (hidden, hidden),
        "up": (hidden, intermediate),
        "down": (intermediate, hidden),
    }
    return {f"{layer}.{name}": sizes[name] for layer in layers for name in LORA_TARGETS if name in chosen}


def fuse(tensors: Mapping[str, npt.NDArray[Any]]) -> Inputs:
    """The inputs of the branch graph from the tensors of an adapter file, in float32.

    Args:
        tensors: As in the file, in any float type; what is float32 may be shared with the result.

    Returns:
        Query, key and value of a layer as one pair: `a` side by side, `b` block by block, rank the sum of the ranks;
        the head's weight and bias as they are.

    Raises:
        MismatchError: A tensor is missing, unknown or of another shape than its partner.
    """
    inputs: Inputs = {name: tensors[name].astype(np.float32, copy=False) for name in HEAD if name in tensors}
    layout = tuple((name, tensor.shape) for name, tensor in tensors.items() if not name.startswith("head."))
    for step in _plan(layout):
        if len(step.parts) == 1 and tensors[step.parts[0][0]].shape == step.shape:
            inputs[step.name] = tensors[step.parts[0][0]].astype(np.float32, copy=False)
            continue
        joined = np.zeros(step.shape, np.float32)
        for name, place in step.parts:
            joined[place] = tensors[name]
        inputs[step.name] = joined
    return inputs


@dataclass(frozen=True, slots=True)
class _Step:
    """A tensor that is fed: its shape, and which tensors of a file fill which places of it."""

    name: str
    shape: tuple[int, int]
    parts: tuple[tuple[str, tuple[slice, slice]], ...]


@lru_cache(maxsize=256)
def _plan(layout: tuple[tuple[str, tuple[int, ...]], ...]) -> tuple[_Step, ...]:
    """How tensors of these names and shapes are fused. Tasks of one recipe have one plan, made for the first."""
    pairs = _pairs(dict(layout))
    steps: list[_Step] = []
    for layer in sorted({layer for layer, _ in pairs}):
        for name, targets in LORA_TARGETS.items():
            present = {place: pairs[layer, t] for place, t in enumerate(targets) if (layer, t) in pairs}
            if present:
                names = {place: f"lora.{layer}.{targets[place]}" for place in present}
                steps += _side_by_side(f"lora.{layer}.{name}", names, present, len(targets))
    return tuple(steps)


def _side_by_side(
    target: str, names: Mapping[int, str], pairs: Mapping[int, tuple[int, int, int]], places: int
) -> tuple[_Step, _Step]:
    """The two steps of a LoRA target from the (inputs, rank, outputs) of its pairs."""
    inputs, outputs = {pair[0] for pair in pairs.values()}, {pair[2] for pair in pairs.values()}
    if len(inputs) > 1 or len(outputs) > 1:
        raise MismatchError(
            f"LoRA of query, key and value in {target} with inputs {sorted(inputs)} and outputs {sorted(outputs)}",
            expected="the same for all three",
        )
    height, width = inputs.pop(), outputs.pop()
    a, b, row = [], [], 0
    for place, (_, rank, _) in pairs.items():
        ranks = slice(row, row + rank)
        a.append((f"{names[place]}.a", (slice(None), ranks)))
        b.append((f"{names[place]}.b", (ranks, slice(place * width, (place + 1) * width))))
        row += rank
    return _Step(f"{target}.a", (height, row), tuple(a)), _Step(f"{target}.b", (row, width * places), tuple(b))


def _pairs(shapes: Mapping[str, tuple[int, ...]]) -> dict[tuple[int, str], tuple[int, int, int]]:
    """(layer, target) -> (inputs, rank, outputs)."""
    pairs: dict[tuple[int, str], tuple[int, int, int]] = {}
    for name in shapes:
        parts = name.split(".")
        if len(parts) != 4 or parts[0] != "lora" or not _LAYER.fullmatch(parts[1]) or parts[2] not in _TARGETS:
            raise MismatchError(
                f"the tensor {name[:60]} of an adapter", expected="lora.LAYER.TARGET.a or .b, or head.*"
            )
        place = f"lora.{parts[1]}.{parts[2]}"
        a, b = shapes.get(f"{place}.a"), shapes.get(f"{place}.b")
        if parts[3] not in ("a", "b") or a is None or b is None:
            raise MismatchError(f"the tensor {name[:60]} of an adapter is alone", expected="a pair .a and .b")
        if len(a) != 2 or len(b) != 2 or a[1] != b[0]:
            raise MismatchError(f"{place} has a {a} and b {b}", expected="[inputs, rank], [rank, outputs]")
        pairs[int(parts[1]), parts[2]] = a[0], a[1], b[1]
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


def bank(adapters: Sequence[Mapping[str, FloatArray]], shapes: Shapes) -> Inputs:
    """The LoRA inputs of the bank graph, [adapters, inputs, rank] and [adapters, rank, outputs]; heads are left out.

    Args:
        adapters: Inputs of each adapter, from `fuse`; an empty one changes nothing. Lower ranks are filled with zeros.
        shapes: The graph's LoRA inputs, from `lora_shapes`.

    Raises:
        MismatchError: No adapters, or one that does not fit the graph.
    """
    if not adapters:
        raise MismatchError("a bank of no adapters", expected="at least one; an empty one stands for no adapter")
    for adapter in adapters:
        check_inputs(adapter, shapes)
    result: Inputs = {}
    for place, (inputs, outputs) in shapes.items():
        ranks = [adapter[f"lora.{place}.a"].shape[1] if f"lora.{place}.a" in adapter else 0 for adapter in adapters]
        a = np.zeros((len(adapters), inputs, max(ranks)), np.float32)
        b = np.zeros((len(adapters), max(ranks), outputs), np.float32)
        for number, (adapter, rank) in enumerate(zip(adapters, ranks, strict=True)):
            if rank:
                a[number, :, :rank] = adapter[f"lora.{place}.a"]
                b[number, :rank] = adapter[f"lora.{place}.b"]
        result[f"lora.{place}.a"], result[f"lora.{place}.b"] = a, b
    return result
