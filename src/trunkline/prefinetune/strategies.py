"""Strategies: what is trained beside the backbone, what stays frozen, at which rates, and how gradients are combined.

All strategies share one loop, one data order, the steps and the seeds; they differ in what this module returns.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace

import numpy as np
import torch
from torch import Tensor, nn

from trunkline.config import PrefinetuneRecipe
from trunkline.encoder.encoder import Encoder
from trunkline.encoder.lora import LoraAdapter, lora_config
from trunkline.training.distributed import mean_gradients

SHARED = "shared"
"""Key of the one adapter of the strategy single-adapter."""

_PER_FAMILY = ("task-primary", "frozen-backbone")

Losses = Iterator[tuple[str, float, Tensor]]


def adapters_of(recipe: PrefinetuneRecipe, encoder: Encoder) -> dict[str, LoraAdapter]:
    """The adapters that the recipe's strategy trains beside the backbone.

    `task-primary` and `frozen-backbone` have one for each family, `single-adapter` one of double rank for all (and
    double alpha, so that the update is scaled as theirs), the others none.
    """
    config = lora_config(recipe.adapter, encoder.config, encoder.fork)
    if recipe.strategy in _PER_FAMILY:
        return {family: LoraAdapter(config, encoder.config) for family in recipe.families}
    if recipe.strategy == "single-adapter":
        double = replace(config, rank=2 * config.rank, alpha=2 * config.alpha)
        double.check(encoder.config, encoder.fork)
        return {SHARED: LoraAdapter(double, encoder.config)}
    return {}


def freeze(encoder: Encoder, recipe: PrefinetuneRecipe) -> None:
    """Sets which parts of the backbone are trained.

    The strategy `frozen-backbone` freezes all of it, `optimizer.frozen_layers` the embeddings and the lowest layers
    (NuNER, arXiv 2402.15343, freezes the bottom half).
    """
    lowest = recipe.optimizer.frozen_layers
    for number, part in enumerate([encoder.embeddings, *encoder.layers]):
        part.requires_grad_(recipe.strategy != "frozen-backbone" and (lowest == 0 or number > lowest))


def project_conflicts(
    losses: Losses, shared: Sequence[nn.Parameter], rng: np.random.Generator, processes: int = 1
) -> Losses:
    """Gradient surgery on shared parameters (PCGrad, Yu et al. 2020, arXiv 2001.06782, algorithm 1).

    Passes the losses on. The loop back-propagates each before it asks for the next, so after each its gradient is set
    aside here; at the end the projected gradients are added up where the loop expects the sum.

    Args:
        losses: Name, weight and loss of each family.
        shared: The parameters whose gradients are projected; others keep their sum.
        rng: Draws the order of the projections.
        processes: How many share the batch.
    """
    found: dict[str, list[Tensor | None]] = {}
    for name, weight, loss in losses:
        yield name, weight, loss
        mean_gradients(shared, processes)
        part = [parameter.grad for parameter in shared]
        before = found.get(name)
        found[name] = part if before is None else [_plus(a, b) for a, b in zip(before, part, strict=True)]
        for parameter in shared:
            parameter.grad = None
    for parameter, gradient in zip(shared, _surgery(list(found.values()), rng), strict=True):
        parameter.grad = gradient


def _surgery(parts: Sequence[Sequence[Tensor | None]], rng: np.random.Generator) -> list[Tensor | None]:
    total: list[Tensor | None] = [None] * len(parts[0]) if parts else []
    for index, part in enumerate(parts):
        own = [None if gradient is None else gradient.clone() for gradient in part]
        for other in rng.permutation([number for number in range(len(parts)) if number != index]):
            dot = _dot(own, parts[other])
            if dot < 0:
                scale = dot / _dot(parts[other], parts[other]).clamp(min=1e-30)
                own = [
                    g if h is None else (-scale * h if g is None else g - scale * h)
                    for g, h in zip(own, parts[other], strict=True)
                ]
        total = [_plus(a, b) for a, b in zip(total, own, strict=True)]
    return total


def _dot(left: Sequence[Tensor | None], right: Sequence[Tensor | None]) -> Tensor:
    products = [(a * b).sum() for a, b in zip(left, right, strict=True) if a is not None and b is not None]
    return torch.stack(products).sum() if products else torch.zeros(())


def _plus(left: Tensor | None, right: Tensor | None) -> Tensor | None:
    if left is None or right is None:
        return right if left is None else left
    return left + right
