"""Floating-point operations of the matrix products of a training step, from the shapes of its modules."""

from __future__ import annotations

from typing import NamedTuple

from trunkline.encoder.architectures import LINEARS
from trunkline.encoder.encoder import Encoder, TokenBatch
from trunkline.encoder.lora import LoraAdapter, linear_shape


class Flops(NamedTuple):
    """Operations, a multiplication and an addition being two: all that are `done`, and those for `real` tokens.

    What is computed for padding, and for attention between texts that share a row, is only in `done`.
    """

    done: int
    real: int


def step_flops(encoder: Encoder, adapter: LoraAdapter | None, batch: TokenBatch) -> Flops:
    """Operations of a forward and backward pass in which the whole encoder and the adapter are trained.

    Each product of the forward pass has two in the backward pass, one by each factor. Products of the objective are
    not counted.
    """
    rows, width = batch.input_ids.shape
    lengths = batch.segments[batch.segments >= 0].unique(return_counts=True)[1]
    done = _passes(encoder, adapter, rows * width, rows * width * width)
    real = _passes(encoder, adapter, int(lengths.sum()), int((lengths**2).sum()))
    return Flops(3 * done, 3 * real)


def _passes(encoder: Encoder, adapter: LoraAdapter | None, tokens: int, pairs: int) -> int:
    """Operations of a forward pass with so many tokens and pairs of tokens that attend to each other."""
    config = encoder.config
    weights = sum(outputs * inputs for outputs, inputs in (linear_shape(config, name) for name in LINEARS))
    products = config.n_layers * weights
    if adapter is not None:
        products += sum(parameter.numel() for parameter in adapter.parameters())
    if encoder.embeddings.project is not None:
        products += encoder.embeddings.project.weight.numel()
    # Scores and context: each one product of `hidden_size` numbers for every pair.
    return 2 * tokens * products + 2 * config.n_layers * 2 * pairs * config.hidden_size
