"""Adapters as inputs of the branch graph: from the tensors of an adapter file to what a session is fed. No torch.

An adapter file has, for each adapted linear layer, `lora.LAYER.TARGET.a` [inputs, rank] and `lora.LAYER.TARGET.b`
[rank, outputs]; the update of the layer's output is `x a b`, all factors included. A graph computes query, key and
value as one product, so that it has one pair of inputs for all three, `lora.LAYER.qkv.a` and `.b`: with it, an update
costs two operations a layer, not six. The places of a graph where updates go in are its LoRA targets.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
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

LINEARS = tuple(target for targets in LORA_TARGETS.values() for target in targets)
"""The linear layers of a transformer layer; LoRA can sit on each of them."""

_LAYER = re.compile(r"0|[1-9][0-9]{0,3}")

HEAD = ("head.weight", "head.bias")
"""Inputs of the head. What else a file says of a head is for decoding, and no graph has an input for it."""


def lora_shapes(layers: range, hidden: int, intermediate: int, chosen: Sequence[str]) -> dict[str, tuple[int, int]]:
    """`LAYER.TARGET` -> (inputs, outputs) of every pair of LoRA inputs; raises MismatchError for an unknown target."""
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

    Query, key and value of a layer become one pair: `a` side by side, `b` block by block, rank the sum of the ranks;
    the head's weight and bias stay as they are.

    Raises:
        MismatchError: A tensor is missing, unknown or of another shape than its partner.
    """
    inputs: Inputs = {name: tensors[name].astype(np.float32, copy=False) for name in HEAD if name in tensors}
    pairs = lora_pairs(tuple((name, part.shape) for name, part in tensors.items() if not name.startswith("head.")))
    for layer in sorted({layer for layer, _ in pairs}):
        for name, targets in LORA_TARGETS.items():
            present = [target for target in targets if (layer, target) in pairs]
            if not present:
                continue
            sides = [sorted({pairs[layer, target][side] for target in present}) for side in (0, 2)]
            if any(len(side) > 1 for side in sides):
                raise MismatchError(
                    f"LoRA of query, key and value in layer {layer} with inputs {sides[0]} and outputs {sides[1]}",
                    expected="the same for all three",
                )
            a, b = ([tensors[f"lora.{layer}.{target}.{side}"] for target in present] for side in "ab")
            inputs[f"lora.{layer}.{name}.a"] = np.concatenate(a, axis=1, dtype=np.float32)
            inputs[f"lora.{layer}.{name}.b"] = _blocks(b, present, targets)
    return inputs


def _blocks(parts: Sequence[npt.NDArray[Any]], present: Sequence[str], targets: Sequence[str]) -> FloatArray:
    """[ranks of all parts, outputs of all targets], each part in its rows and its target's columns."""
    width, row = parts[0].shape[1], 0
    joined = np.zeros((sum(len(part) for part in parts), width * len(targets)), np.float32)
    for part, target in zip(parts, present, strict=True):
        column = targets.index(target) * width
        joined[row : row + len(part), column : column + width] = part
        row += len(part)
    return joined


@lru_cache(maxsize=256)
def lora_pairs(layout: tuple[tuple[str, tuple[int, ...]], ...]) -> dict[tuple[int, str], tuple[int, int, int]]:
    """(layer, target) -> (inputs, rank, outputs), from names and shapes, which tasks of one recipe have in common.

    Raises:
        MismatchError: A name of another form, a tensor that is alone, or a pair that does not fit together.
    """
    shapes = dict(layout)
    pairs: dict[tuple[int, str], tuple[int, int, int]] = {}
    for name in shapes:
        parts = name.split(".")
        if len(parts) != 4 or parts[0] != "lora" or not _LAYER.fullmatch(parts[1]) or parts[2] not in LINEARS:
            known = f"lora.LAYER.TARGET.a or .b, TARGET one of {', '.join(LINEARS)}"
            raise MismatchError(f"the tensor {name[:60]} of an adapter", expected=known)
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

    Adapters are as from `fuse`; an empty one changes nothing. Lower ranks are filled with zeros. Raises MismatchError
    for none, or one that does not fit the graph's LoRA inputs `shapes`.
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
