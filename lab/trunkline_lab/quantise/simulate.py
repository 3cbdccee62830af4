"""An encoder in torch that computes as the quantised graphs do, so that adapters can be trained on it."""

from __future__ import annotations

import copy
import dataclasses
from collections.abc import Mapping

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from trunkline.encoder.architectures import EncoderConfig
from trunkline.encoder.bundle_files import Loaded
from trunkline.encoder.encoder import Layer
from trunkline.encoder.lora import Delta
from trunkline.export.quantise.int4 import Int4Weight
from trunkline.export.quantise.kernels import Quantised, quantise, rounded_table
from trunkline.export.quantise.plan import PROJECT, SLOTS, Plan
from trunkline.export.quantise.smooth import Calibration
from trunkline.export.weights import FloatArray, take_weights

_QKV = ("query", "key", "value")


def quantised_encoder(start: Loaded, plan: Plan, calibration: Calibration | None) -> Loaded:
    """A bundle with its backbone rounded as a plan says; adapters trained on it can make up for its error.

    Inputs of 8-bit layers are rounded too, with one step for each row of tokens; graphs take one for each run, which is
    the same where texts are read one at a time. Gradients pass the rounding as if it were not there (Bengio, Leonard
    and Courville 2013, arXiv 1308.3432). The backbone's hash stays that of the backbone before rounding, so that tasks
    adapted here belong to bundles exported from it. It is not meant to be saved: its weights are no longer those of the
    hash.

    Args:
        start: The bundle or encoder; it is not changed.
        plan: What the graphs will be exported with.
        calibration: The same as for export.

    Raises:
        MismatchError: As for `quantised_kernels`.
        TrunklineError: As for `quantised_kernels`.
    """
    weights = take_weights(start.encoder)
    layers = quantise(weights, plan, calibration)
    encoder = copy.deepcopy(start.encoder)
    with torch.no_grad():
        encoder.embeddings.word.weight.copy_(torch.from_numpy(rounded_table(weights, plan)))
    if PROJECT in layers and encoder.embeddings.project is not None:
        encoder.embeddings.project = _replaced(encoder.embeddings.project, layers[PROJECT])
    for number, layer in enumerate(encoder.layers):
        if isinstance(layer, Layer):
            own = {slot: layers[f"layers.{number}.{slot}"] for slot in SLOTS}
            encoder.layers[number] = RoundedLayer(encoder.config, layer, own)
    info = {**start.info, "quantised": plan.facts()}
    return dataclasses.replace(start, encoder=encoder.train(start.encoder.training), info=info)


class RoundedLinear(nn.Linear):
    """A linear layer that rounds its inputs to 8 bits.

    Args:
        linear: Gives sizes, the bias, and the weight where none is given.
        weight: [inputs, outputs], rounded already.
        smooth: [inputs]; what inputs are divided by before they are rounded.
        least: As in `Quantised`.
        block: Inputs that share a step; 0 for one step for a whole row of tokens, or for a token.
    """

    smooth: Tensor

    def __init__(
        self, linear: nn.Linear, weight: FloatArray, smooth: FloatArray, least: float | None = None, block: int = 0
    ) -> None:
        super().__init__(linear.in_features, linear.out_features)
        self.least, self.block = least, block
        with torch.no_grad():
            self.weight.copy_(torch.from_numpy(np.ascontiguousarray(weight.T)))
            self.bias.copy_(linear.bias)
        self.register_buffer("smooth", torch.from_numpy(smooth), persistent=False)
        self.requires_grad_(linear.weight.requires_grad)
        self.to(linear.weight.device)

    def rounded(self, x: Tensor) -> Tensor:
        """[rows, width, inputs], rounded; the gradient is that of `x`."""
        with torch.no_grad():
            exact = x.float()
            error = self._found(exact) - exact
        return x + error.to(x.dtype)

    def _found(self, x: Tensor) -> Tensor:
        if self.block:
            return _blocks(x, self.block)
        even = x / self.smooth
        size = even.new_ones(()) if self.least is None else even.amax(dim=-1, keepdim=True).clamp(min=self.least)
        return _rows(even / size) * size * self.smooth

    def forward(self, x: Tensor) -> Tensor:
        """[rows, width, inputs] -> [rows, width, outputs]."""
        return F.linear(self.rounded(x), self.weight, self.bias)


class RoundedLayer(Layer):
    """A transformer layer of rounded linear layers; low-rank updates receive inputs that are not rounded."""

    def __init__(self, config: EncoderConfig, layer: Layer, slots: Mapping[str, Quantised]) -> None:
        super().__init__(config)
        hidden = config.hidden_size
        for place, part in enumerate(_QKV):
            columns = slice(place * hidden, (place + 1) * hidden)
            setattr(self, part, _replaced(getattr(layer, part), slots["qkv"], columns))
        for part in ("out", "up", "down"):
            setattr(self, part, _replaced(getattr(layer, part), slots[part]))
        self.attention_norm, self.output_norm = layer.attention_norm, layer.output_norm

    def _projections(self, x: Tensor, deltas: Mapping[str, Delta]) -> list[Tensor]:
        first = self.query
        rounded = first.rounded(x) if isinstance(first, RoundedLinear) else x
        layers = {name: getattr(self, name) for name in _QKV}
        parts = {name: F.linear(rounded, layer.weight, layer.bias) for name, layer in layers.items()}
        return [deltas[name](x, part) if name in deltas else part for name, part in parts.items()]


def _replaced(linear: nn.Linear, layer: Quantised, columns: slice = slice(None)) -> nn.Linear:
    if layer.rounded is None:
        return linear
    block = layer.rounded.block if layer.scheme == "int4-blocks" and isinstance(layer.rounded, Int4Weight) else 0
    return RoundedLinear(linear, layer.weight()[:, columns], layer.smooth, layer.least, block)


def _rows(x: Tensor) -> Tensor:
    """[rows, width, inputs] in 8 bits from the least to the largest value of each row, 0 among them."""
    least = x.amin(dim=(-2, -1), keepdim=True).clamp(max=0)
    step = (x.amax(dim=(-2, -1), keepdim=True).clamp(min=0) - least) / 255
    step = torch.where(step > 0, step, torch.ones_like(step))
    zero = torch.round(-least / step)
    return (torch.clamp(torch.round(x / step) + zero, 0, 255) - zero) * step


def _blocks(x: Tensor, block: int) -> Tensor:
    """[rows, width, inputs] in 8 bits with a step for each block of inputs of each token."""
    parts = x.unflatten(-1, (-1, block))
    step = parts.abs().amax(dim=-1, keepdim=True) / 127
    step = torch.where(step > 0, step, torch.ones_like(step))
    return (torch.round(parts / step) * step).flatten(-2)
