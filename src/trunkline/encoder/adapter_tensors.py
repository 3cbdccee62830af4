"""Torch adapters as the arrays of adapter files, and back."""

from __future__ import annotations

import re
from collections.abc import Mapping

import numpy as np
import torch

from trunkline.bundle.lora import FloatArray
from trunkline.encoder.architectures import LINEARS, EncoderConfig
from trunkline.encoder.lora import LoraAdapter, LoraConfig, LowRank
from trunkline.errors import MismatchError

_NAME = re.compile(r"lora\.(\d+)\.(\w+)\.a")


def adapter_arrays(lora: LoraAdapter) -> dict[str, FloatArray]:
    """`lora.LAYER.TARGET.a` [inputs, rank] and `.b` [rank, outputs] of an adapter, `alpha / rank` included in `b`.

    Raises:
        MismatchError: A value is not finite.
    """
    arrays: dict[str, FloatArray] = {}
    for layer in lora.config.layers:
        for target, part in lora.layer(layer).items():
            if isinstance(part, LowRank):
                name = f"lora.{layer}.{target}"
                arrays[f"{name}.a"] = _array(part.a.T)
                # B starts at zero and stays small; the factor, mostly above 1, keeps it clear of float16's subnormals.
                arrays[f"{name}.b"] = _array(part.scale * part.b.detach().T)
    wrong = [name for name, array in arrays.items() if not np.isfinite(array).all()]
    if wrong:
        raise MismatchError(f"the adapter's {wrong[0]} has values that are not finite", expected="finite values")
    return arrays


def lora_from_arrays(arrays: Mapping[str, FloatArray], alpha: float, encoder: EncoderConfig) -> LoraAdapter:
    """The adapter of `adapter_arrays`, with the factor `alpha / rank` taken out of `b` again.

    Args:
        arrays: `lora.LAYER.TARGET.a` and `.b`.
        alpha: The numerator that was used.
        encoder: The encoder's sizes.

    Raises:
        MismatchError: Layers differ in their targets, or a layer's targets in their rank.
    """
    ranks: dict[int, dict[str, int]] = {}
    for name, array in arrays.items():
        found = _NAME.fullmatch(name)
        if found:
            ranks.setdefault(int(found[1]), {})[found[2]] = array.shape[1]
    layers = tuple(sorted(ranks))
    targets = tuple(target for target in LINEARS if any(target in parts for parts in ranks.values()))
    if any(len(set(parts.values())) > 1 or set(parts) != set(targets) for parts in ranks.values()):
        raise MismatchError(
            "an adapter whose layers differ in their targets, or a layer's targets in their rank",
            expected="the same targets in every adapted layer, of one rank a layer",
        )
    pattern = tuple(next(iter(ranks[layer].values())) for layer in layers)
    nominal = round(sum(pattern) / len(pattern)) if pattern else 0
    adapter = LoraAdapter(LoraConfig(nominal, alpha, targets, layers, pattern), encoder)
    with torch.no_grad():
        for layer in layers:
            for target in targets:
                part = adapter.part(layer, target)
                if part is not None and part.scale:
                    part.a.copy_(torch.from_numpy(np.array(arrays[f"lora.{layer}.{target}.a"].T)))
                    part.b.copy_(torch.from_numpy(np.array(arrays[f"lora.{layer}.{target}.b"].T)) / part.scale)
    return adapter.eval().requires_grad_(False)


def _array(tensor: torch.Tensor) -> FloatArray:
    return np.ascontiguousarray(tensor.detach().to("cpu", torch.float32).numpy())
