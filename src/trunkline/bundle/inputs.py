"""Inputs of the graphs that must be fed all of them, or several adapters at once."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from trunkline.bundle.lora import FloatArray, Inputs, Shapes
from trunkline.bundle.parts import check_inputs
from trunkline.errors import MismatchError


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
