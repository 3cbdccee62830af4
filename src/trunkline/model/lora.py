"""Low-rank adapters (Hu et al. 2022, arXiv 2106.09685, section 4.1) as arguments of a forward pass, not as its state.

An encoder receives an adapter, a bank of adapters with one choice a row, or nothing. Because nothing is switched on
or off inside the encoder, a gradient can only reach the adapter that the batch went through.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from trunkline.config import AdapterSection
from trunkline.errors import MismatchError
from trunkline.model.architectures import LINEARS, EncoderConfig

Delta = Callable[[Tensor], Tensor]


class Deltas(Protocol):
    """Whatever adds low-rank updates: for a layer, the update of each of its adapted linear layers."""

    def layer(self, index: int) -> Mapping[str, Delta]:
        """The updates of one layer by the name of the linear layer; empty where there are none."""
        ...


@dataclass(frozen=True, slots=True)
class LoraConfig:
    """Where LoRA sits and how large it is. The update is `alpha / rank * B A x`."""

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
            raise MismatchError(
                f"LoRA on layers {outside}",
                expected=f"layers from the fork at {fork} to {encoder.n_layers - 1}",
                todo="Lower the fork or leave these layers out",
            )
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

    def forward(self, x: Tensor) -> Tensor:
        """[..., inputs] -> [..., outputs]."""
        # The factor is applied to the narrow product, where it is cheapest.
        return F.linear(F.linear(x, self.a) * self.scale, self.b)


class LoraAdapter(nn.Module):
    """One adapter: a low-rank update for each target in each of its layers."""

    def __init__(self, config: LoraConfig, encoder: EncoderConfig) -> None:
        super().__init__()
        self.config = config
        self.parts = nn.ModuleDict(
            {
                str(layer): nn.ModuleDict(
                    {
                        target: LowRank(linear_shape(encoder, target), config.rank, config.alpha)
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


class LoraBank:
    """Several adapters for one batch, one choice a row; `None` in the sequence means no adapter.

    Args:
        adapters: The adapters to choose from; ranks, targets and layers may differ.
        rows: [rows] index into `adapters` for each row of the batch.
    """

    def __init__(self, adapters: Sequence[LoraAdapter | None], rows: Tensor) -> None:
        self.adapters = adapters
        self.rows = rows

    def layer(self, index: int) -> Mapping[str, Delta]:
        """The updates of one layer; rows without an update of a linear layer get zero."""
        targets = {target for adapter in self.adapters if adapter for target in adapter.layer(index)}
        return {target: self._gathered(index, target) for target in sorted(targets)}

    def _gathered(self, index: int, target: str) -> Delta:
        parts = [adapter.part(index, target) if adapter else None for adapter in self.adapters]
        present = [part for part in parts if part is not None]
        rank = max(part.a.shape[0] for part in present)
        like = present[0]
        inputs = [like.a.new_zeros(rank, like.a.shape[1]) if p is None else _pad(p.a * p.scale, rank) for p in parts]
        outputs = [like.b.new_zeros(like.b.shape[0], rank) if p is None else _pad(p.b.T, rank).T for p in parts]
        a = torch.stack(inputs)[self.rows]
        b = torch.stack(outputs)[self.rows]
        return lambda x: torch.einsum("rwk,rok->rwo", torch.einsum("rwi,rki->rwk", x, a), b)


def _pad(matrix: Tensor, rank: int) -> Tensor:
    return F.pad(matrix, (0, 0, 0, rank - matrix.shape[0]))
