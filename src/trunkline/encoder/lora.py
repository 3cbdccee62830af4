"""Low-rank adapters (Hu et al. 2022, arXiv 2106.09685, section 4.1) as arguments of a forward pass, not as its state.

An encoder receives an adapter or nothing. Because nothing is switched on or off inside the encoder, a gradient can
only reach the adapter that the batch went through.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from trunkline.config import AdapterSection
from trunkline.encoder.architectures import LINEARS, EncoderConfig
from trunkline.errors import MismatchError

Delta = Callable[[Tensor, Tensor], Tensor]
"""The output of a linear layer with its update added, from the layer's input and its output without it."""


class Deltas(Protocol):
    """Whatever adds low-rank updates: for a layer, the update of each of its adapted linear layers."""

    def layer(self, index: int) -> Mapping[str, Delta]:
        """The updates of one layer by the name of the linear layer; empty where there are none."""
        ...


@dataclass(frozen=True, slots=True)
class LoraConfig:
    """Where LoRA sits and how large it is. The update is `alpha / rank * B A x` with the rank of the layer.

    A layer's update is divided by the layer's own rank, as PEFT does with `rank_pattern`: a layer of more rank has more
    directions, not a larger factor.

    Attributes:
        rank: The rank of every layer, or with a `rank_pattern` the nominal one, that is the mean.
        alpha: Numerator of the factor, the same in all layers.
        targets: Linear layers that have an update, in every layer of `layers`.
        layers: Layers of the encoder that have updates.
        rank_pattern: The rank of each of `layers`, in their order; empty where all have `rank`.
    """

    rank: int
    alpha: float
    targets: tuple[str, ...]
    layers: tuple[int, ...]
    rank_pattern: tuple[int, ...] = ()

    def __post_init__(self) -> None:
        # One spelling for one shape: equal adapters have equal configurations and files.
        if self.rank_pattern == (self.rank,) * len(self.layers):
            object.__setattr__(self, "rank_pattern", ())

    def rank_of(self, layer: int) -> int:
        """The rank of one of `layers`."""
        return self.rank_pattern[self.layers.index(layer)] if self.rank_pattern else self.rank

    def check(self, encoder: EncoderConfig, fork: int) -> None:
        """Raises MismatchError unless an adapter of this shape fits the encoder above its fork."""
        unknown = sorted(set(self.targets) - set(LINEARS))
        if unknown:
            raise MismatchError(f"LoRA targets {unknown}", expected="some of " + ", ".join(LINEARS))
        outside = [layer for layer in self.layers if not fork <= layer < encoder.n_layers]
        if outside:
            raise MismatchError(
                f"LoRA on layers {outside}",
                expected=f"layers from the fork at {fork} to {encoder.n_layers - 1}",
                todo="Lower the fork or leave these layers out",
            )
        if self.rank_pattern and len(self.rank_pattern) != len(self.layers):
            raise MismatchError(
                f"{len(self.rank_pattern)} LoRA ranks", expected=f"one for each of the {len(self.layers)} layers"
            )
        lowest = 1 if self.rank_pattern else 0
        ranks = {"": self.rank} | {
            f" in layer {layer}": rank for layer, rank in zip(self.layers, self.rank_pattern, strict=False)
        }
        for where, rank in ranks.items():
            if not lowest <= rank <= encoder.hidden_size:
                raise MismatchError(
                    f"LoRA rank {rank}{where}",
                    expected=f"{lowest} to the width {encoder.hidden_size}",
                    todo="Choose another rank, or an adapter of this encoder",
                )


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
        self.parts = nn.ModuleDict(
            {
                str(layer): nn.ModuleDict(
                    {
                        target: LowRank(linear_shape(encoder, target), config.rank_of(layer), config.alpha)
                        for target in config.targets
                    }
                )
                for layer in config.layers
            }
        )

    def layer(self, index: int) -> Mapping[str, Delta]:
        """The updates of one layer by the name of the linear layer."""
        key = str(index)
        return dict(self.parts[key].items()) if key in self.parts else {}  # type: ignore[operator]

    def part(self, layer: int, target: str) -> LowRank | None:
        """The update of one linear layer, if the adapter has one."""
        found = self.layer(layer).get(target)
        return found if isinstance(found, LowRank) else None
