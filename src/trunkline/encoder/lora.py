"""Low-rank adapters (Hu et al. 2022, arXiv 2106.09685, section 4.1) as arguments of a forward pass, not as its state.

An encoder receives an adapter or nothing. Because nothing is switched on or off inside the encoder, a gradient can
only reach the adapter that the batch went through.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from itertools import product
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from trunkline.bundle.manifest import LINEARS, FloatArray
from trunkline.bundle.parts import lora_pairs
from trunkline.config import AdapterSection
from trunkline.encoder.architectures import EncoderConfig
from trunkline.errors import MismatchError

Delta = Callable[[Tensor, Tensor], Tensor]
"""The output of a linear layer with its update added, from the layer's input and its output without it."""


Deltas = Callable[[int], Mapping[str, Delta]]
"""Whatever adds low-rank updates: those of a layer by the names of its linear layers, none where there are none."""


@dataclass(frozen=True, slots=True)
class LoraConfig:
    """Where LoRA sits and how large it is: the update is `alpha / rank * B A x` on these targets of these layers."""

    rank: int
    alpha: float
    targets: tuple[str, ...]
    layers: tuple[int, ...]

    def check(self, encoder: EncoderConfig, fork: int) -> None:
        """Raises MismatchError unless an adapter of this shape fits the encoder above its fork."""
        unknown = sorted(set(self.targets) - set(LINEARS))
        if unknown:
            raise MismatchError(f"LoRA targets {unknown}", expected="some of " + ", ".join(LINEARS))
        outside = [layer for layer in self.layers if not fork <= layer < encoder.n_layers]
        if outside:
            known = f"layers from the fork at {fork} to {encoder.n_layers - 1}"
            raise MismatchError(f"LoRA on layers {outside}", expected=known, todo="Lower the fork or leave these out")
        if not 0 <= self.rank <= encoder.hidden_size:
            raise MismatchError(f"LoRA rank {self.rank}", expected=f"0 to the width {encoder.hidden_size}")


def lora_config(section: AdapterSection, encoder: EncoderConfig, fork: int) -> LoraConfig:
    """The LoRA that a recipe asks for, checked against the encoder and its fork."""
    first = fork if section.layers is None else encoder.n_layers - section.layers
    layers = tuple(range(first, encoder.n_layers))
    config = LoraConfig(section.rank, section.alpha, tuple(section.targets), layers)
    config.check(encoder, fork)
    return config


def linear_shape(encoder: EncoderConfig, target: str) -> tuple[int, int]:
    """(outputs, inputs) of a linear layer of the encoder."""
    wide, narrow = encoder.intermediate_size, encoder.hidden_size
    return {"up": (wide, narrow), "down": (narrow, wide)}.get(target, (narrow, narrow))


class LowRank(nn.Module):
    """The update of one linear layer: `scale * B A x`, A [rank, inputs], B [outputs, rank]; zero at the start."""

    def __init__(self, shape: tuple[int, int], rank: int, alpha: float) -> None:
        super().__init__()
        outputs, inputs = shape
        self.scale = alpha / rank if rank else 0.0
        self.a = nn.Parameter(torch.empty(rank, inputs))
        self.b = nn.Parameter(torch.zeros(outputs, rank))
        if rank:
            nn.init.kaiming_uniform_(self.a, a=math.sqrt(5))

    def forward(self, x: Tensor, y: Tensor) -> Tensor:
        """Adds the update: [..., inputs], [..., outputs] -> [..., outputs]."""
        # The factor is applied to the narrow product, where it is cheapest; the wide one is added as it is computed.
        narrow = F.linear(x, self.a) * self.scale
        return torch.addmm(y.flatten(0, -2), narrow.flatten(0, -2), self.b.T).view_as(y)


class LoraAdapter(nn.Module):
    """One adapter: a low-rank update for each target in each of its layers."""

    def __init__(self, config: LoraConfig, encoder: EncoderConfig) -> None:
        super().__init__()
        self.config = config

        def update(target: str) -> LowRank:
            return LowRank(linear_shape(encoder, target), config.rank, config.alpha)

        layers = {str(layer): nn.ModuleDict({t: update(t) for t in config.targets}) for layer in config.layers}
        self.parts = nn.ModuleDict(layers)

    def forward(self, index: int) -> Mapping[str, Delta]:
        """The updates of one layer by the name of the linear layer."""
        key = str(index)
        return dict(self.parts[key].items()) if key in self.parts else {}  # type: ignore[operator]

    def part(self, layer: int, target: str) -> LowRank:
        """The update of a target in one of the adapter's layers."""
        return self.parts[str(layer)][target]  # type: ignore[index]


def adapter_arrays(lora: LoraAdapter) -> dict[str, FloatArray]:
    """`lora.LAYER.TARGET.a` [inputs, rank] and `.b` [rank, outputs] of an adapter, `alpha / rank` included in `b`."""
    arrays: dict[str, FloatArray] = {}
    for layer, target in product(lora.config.layers, lora.config.targets):
        part, name = lora.part(layer, target), f"lora.{layer}.{target}"
        # B starts at zero and stays small; the factor, mostly above 1, keeps it clear of float16's subnormals.
        for side, value in (("a", part.a.T), ("b", part.scale * part.b.detach().T)):
            arrays[f"{name}.{side}"] = np.ascontiguousarray(value.detach().to("cpu", torch.float32).numpy())
    return arrays


def lora_from_arrays(arrays: Mapping[str, npt.NDArray[Any]], alpha: float, encoder: EncoderConfig) -> LoraAdapter:
    """The adapter of `adapter_arrays`, with the factor `alpha / rank` taken out of `b` again.

    Where ranks differ, or a layer lacks a target that another one has, zeros fill up to the largest rank, which changes
    no output. Raises MismatchError for arrays that are no LoRA of this encoder, of other names, or not finite.
    """
    pairs = lora_pairs(arrays)
    if not pairs:
        raise MismatchError("an adapter without LoRA tensors", expected="lora.LAYER.TARGET.a and .b")
    for (layer, target), (a, b) in pairs.items():
        wide, narrow = linear_shape(encoder, target)
        if (len(a), b.shape[1]) != (narrow, wide):
            raise MismatchError(
                f"lora.{layer}.{target} has {len(a)} inputs and {b.shape[1]} outputs",
                expected=f"[{narrow}, rank] and [rank, {wide}], the widths of the encoder",
            )
        if not (np.isfinite(a).all() and np.isfinite(b).all()):
            raise MismatchError(f"lora.{layer}.{target} has values that are not finite", expected="finite values")
    layers = tuple(sorted({layer for layer, _ in pairs}))
    targets = tuple(target for target in LINEARS if any(target == other for _, other in pairs))
    config = LoraConfig(max(len(b) for _, b in pairs.values()), alpha, targets, layers)
    config.check(encoder, 0)
    lora = LoraAdapter(config, encoder)
    with torch.no_grad():
        for layer, target in product(layers, targets):
            part = lora.part(layer, target)
            part.a.zero_()
            if (layer, target) in pairs and config.rank:
                a, b = pairs[layer, target]
                part.a[: len(b)] = torch.from_numpy(a.T.astype(np.float32))
                part.b[:, : len(b)] = torch.from_numpy(b.T.astype(np.float64)) / part.scale
    return lora.eval().requires_grad_(False)
