"""Torch adapters as the arrays of adapter and task files, and back."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from trunkline.bundle.lora import FloatArray
from trunkline.encoder.architectures import LINEARS, EncoderConfig
from trunkline.encoder.lora import LoraAdapter, LoraConfig, linear_shape
from trunkline.errors import MismatchError

_NAME = re.compile(rf"lora\.(0|[1-9][0-9]{{0,3}})\.({'|'.join(LINEARS)})\.([ab])")


def adapter_arrays(lora: LoraAdapter) -> dict[str, FloatArray]:
    """`lora.LAYER.TARGET.a` [inputs, rank] and `.b` [rank, outputs] of an adapter, `alpha / rank` included in `b`.

    Raises:
        MismatchError: A value is not finite.
    """
    arrays: dict[str, FloatArray] = {}
    for layer in lora.config.layers:
        for target in lora.config.targets:
            part = lora.part(layer, target)
            if part is not None:
                name = f"lora.{layer}.{target}"
                arrays[f"{name}.a"] = _array(part.a.T)
                # B starts at zero and stays small; the factor, mostly above 1, keeps it clear of float16's subnormals.
                arrays[f"{name}.b"] = _array(part.scale * part.b.detach().T)
    _check_finite(arrays)
    return arrays


def lora_from_arrays(arrays: Mapping[str, npt.NDArray[Any]], alpha: float, encoder: EncoderConfig) -> LoraAdapter:
    """The adapter of `adapter_arrays`, with the factor `alpha / rank` taken out of `b` again.

    Args:
        arrays: `lora.LAYER.TARGET.a` and `.b`; other names are refused. Where ranks differ, or a layer lacks a target
            that another one has, zeros fill up to the largest rank, which changes no output.
        alpha: The numerator that was used.
        encoder: The encoder's sizes.

    Raises:
        MismatchError: The arrays are no LoRA of this encoder, or not finite.
    """
    found: dict[tuple[int, str], dict[str, npt.NDArray[Any]]] = {}
    for name, array in arrays.items():
        match = _NAME.fullmatch(name)
        if match is None:
            raise MismatchError(
                f"the tensor {name[:60]} of an adapter",
                expected="lora.LAYER.TARGET.a or .b, with one of the targets " + ", ".join(LINEARS),
            )
        found.setdefault((int(match[1]), match[2]), {})[match[3]] = array
    if not found:
        raise MismatchError("an adapter without LoRA tensors", expected="lora.LAYER.TARGET.a and .b")
    _check_finite(arrays)
    ranks = [_rank(f"lora.{layer}.{target}", pair, target, encoder) for (layer, target), pair in found.items()]
    layers = tuple(sorted({layer for layer, _ in found}))
    targets = tuple(target for target in LINEARS if any(target == other for _, other in found))
    config = LoraConfig(max(ranks), alpha, targets, layers)
    config.check(encoder, 0)
    lora = LoraAdapter(config, encoder)
    with torch.no_grad():
        for layer in layers:
            for target in targets:
                part, pair = lora.part(layer, target), found.get((layer, target))
                if part is None or not config.rank:
                    continue
                part.a.zero_()
                if pair is not None:
                    rank = pair["a"].shape[1]
                    part.a[:rank] = torch.from_numpy(pair["a"].T.astype(np.float32))
                    part.b[:, :rank] = torch.from_numpy(pair["b"].T.astype(np.float32)) / part.scale
    return lora.eval().requires_grad_(False)


def _rank(place: str, pair: Mapping[str, npt.NDArray[Any]], target: str, encoder: EncoderConfig) -> int:
    """The rank of a pair that fits the encoder."""
    if pair.keys() != {"a", "b"}:
        raise MismatchError(f"the tensor {place}.{'/'.join(pair)} of an adapter is alone", expected="a pair .a and .b")
    outputs, inputs = linear_shape(encoder, target)
    a, b = pair["a"].shape, pair["b"].shape
    if len(a) != 2 or len(b) != 2 or a[1] != b[0] or (a[0], b[1]) != (inputs, outputs):
        raise MismatchError(
            f"{place} has a {a} and b {b}",
            expected=f"[{inputs}, rank] and [rank, {outputs}], the widths of the encoder",
        )
    return int(a[1])


def _check_finite(arrays: Mapping[str, npt.NDArray[Any]]) -> None:
    wrong = [name for name, array in arrays.items() if not np.isfinite(array).all()]
    if wrong:
        raise MismatchError(f"the adapter's {wrong[0]} has values that are not finite", expected="finite values")


def _array(tensor: torch.Tensor) -> FloatArray:
    return np.ascontiguousarray(tensor.detach().to("cpu", torch.float32).numpy())
