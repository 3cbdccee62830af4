"""Strategies: what is trained beside the backbone, what stays frozen, how gradients and whole encoders are combined.

All strategies share one loop, one data order, the steps and the seeds; they differ in what this module returns.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.utils import parameters_to_vector, vector_to_parameters

from trunkline.config import PrefinetuneRecipe
from trunkline.encoder.bundle_files import Loaded, load_any, save_bundle
from trunkline.encoder.encoder import Encoder
from trunkline.encoder.lora import LoraAdapter, lora_config
from trunkline.encoder.storage import backbone_hash
from trunkline.errors import MismatchError, TrunklineError
from trunkline.prefinetune.model import SHARED
from trunkline.training.loop import mean_gradients
from trunkline.versions import versions

Method = Literal["average", "ties"]

START = "started_from"
"""In a bundle's info: the hash of the backbone that its training began with."""

Losses = Iterator[tuple[str, float, Tensor]]


def adapters_of(recipe: PrefinetuneRecipe, encoder: Encoder) -> dict[str, LoraAdapter]:
    """The adapters that the recipe's strategy trains beside the backbone.

    `task-primary` and `frozen-backbone` have one for each family, `single-adapter` one of double rank for all (and
    double alpha, so that the update is scaled as theirs), the others none.
    """
    config = lora_config(recipe.adapter, encoder.config, encoder.fork)
    if recipe.strategy in ("task-primary", "frozen-backbone"):
        return {family: LoraAdapter(config, encoder.config) for family in recipe.families}
    if recipe.strategy == "single-adapter":
        double = replace(config, rank=2 * config.rank, alpha=2 * config.alpha)
        double.check(encoder.config, encoder.fork)
        return {SHARED: LoraAdapter(double, encoder.config)}
    return {}


def freeze(encoder: Encoder, recipe: PrefinetuneRecipe) -> None:
    """Freezes all of the backbone for the strategy `frozen-backbone`, else what `optimizer.frozen_layers` says.

    These are the embeddings and the lowest layers (NuNER, arXiv 2402.15343, freezes the bottom half).
    """
    lowest = recipe.optimizer.frozen_layers
    for number, part in enumerate([encoder.embeddings, *encoder.layers]):
        part.requires_grad_(recipe.strategy != "frozen-backbone" and (lowest == 0 or number > lowest))


def project_conflicts(
    losses: Losses, shared: Sequence[nn.Parameter], rng: np.random.Generator, processes: int = 1
) -> Losses:
    """Gradient surgery on shared parameters (PCGrad, Yu et al. 2020, arXiv 2001.06782, algorithm 1).

    Passes the losses on. The loop back-propagates each before it asks for the next, so after each the gradient of the
    `shared` parameters is set aside here; at the end the projected gradients are added up where the loop expects the
    sum. `rng` draws the order of the projections, `processes` share the batch.
    """
    trained = [parameter for parameter in shared if parameter.requires_grad]
    found: list[Tensor] = []
    for name, weight, loss in losses:
        yield name, weight, loss
        mean_gradients(trained, processes)
        found.append(torch.cat([(torch.zeros_like(p) if p.grad is None else p.grad).flatten() for p in trained]))
        for parameter in trained:
            parameter.grad = None
    parts = _surgery(found, rng).split([parameter.numel() for parameter in trained])
    for parameter, gradient in zip(trained, parts, strict=True):
        parameter.grad = gradient.view_as(parameter)


def _surgery(gradients: Sequence[Tensor], rng: np.random.Generator) -> Tensor:
    """The sum of gradients [n], each without what points against the others, in a drawn order."""
    projected = []
    for index, own in enumerate(gradients):
        for number in rng.permutation([number for number in range(len(gradients)) if number != index]):
            other = gradients[number]
            own = own - (own @ other).clamp(max=0) / (other @ other).clamp(min=1e-30) * other
        projected.append(own)
    return torch.stack(projected).sum(0)


def trained(start: Loaded, encoder: Encoder, adapters: Mapping[str, LoraAdapter], info: Mapping[str, Any]) -> Loaded:
    """What training or merging made of `start`, on the CPU and ready to be saved; `adapters` are by family."""
    encoder = encoder.cpu().eval()
    backbone = backbone_hash(encoder)
    primaries = {family: adapter.cpu().eval() for family, adapter in adapters.items()}
    info = {**info, "start": dict(start.info), "versions": versions(), START: start.backbone}
    return replace(start, encoder=encoder, backbone=backbone, primaries=primaries, tasks={}, info=info)


def merge_vectors(vectors: Sequence[Tensor], method: Method, *, density: float = 0.2) -> Tensor:
    """One task vector [n] out of several: what training added to the shared start.

    `average` is the mean (task arithmetic, arXiv 2212.04089). `ties` keeps of each vector the share `density` of the
    largest entries, elects a sign for each by the sum, and averages those that have this sign (TIES-Merging, arXiv
    2306.01708, algorithm 1).
    """
    stacked = torch.stack(list(vectors))
    if method == "average":
        return stacked.mean(0)
    keep = max(1, round(density * stacked.shape[1]))
    threshold = stacked.abs().kthvalue(stacked.shape[1] - keep + 1, dim=1, keepdim=True).values
    trimmed = stacked * (stacked.abs() >= threshold)
    agreeing = trimmed * (trimmed.sign() == trimmed.sum(0).sign())
    return agreeing.sum(0) / agreeing.ne(0).sum(0).clamp(min=1)


def merge_bundles(
    bundles: Sequence[Path],
    out: Path,
    *,
    base: str,
    method: Method = "average",
    scale: float = 1.0,
    density: float = 0.2,
) -> Path:
    """Saves the base with the merged task vector of bundles that started from it, as a bundle without tasks.

    `method` and `density`, in (0, 1], are those of `merge_vectors`; `scale` is a factor on the merged vector, negative
    to go away from what was learnt. One that goes only a part of the way is WiSE-FT (Wortsman et al. 2022, arXiv
    2109.01903, equation 1). The updates of a single bundle's primary adapters are scaled with it; of several bundles
    adapters are left behind. Raises MismatchError for a bundle that did not start from the base, or windows of several
    lengths, and TrunklineError for none to merge, or a factor or share that there cannot be.
    """
    if not bundles:
        raise TrunklineError("no encoder to merge", expected="one or more")
    if not math.isfinite(scale):
        raise TrunklineError(f"the scale is {scale}", expected="a finite number; 0.5 goes half of the way")
    if not 0 < density <= 1:
        raise TrunklineError(f"the density is {density}", expected="a share above 0 and up to 1")
    others = [load_any(str(path)) for path in bundles]
    start = load_any(base, fork=others[0].encoder.fork)
    for number, other in enumerate(others, 1):
        if other.info.get(START) != start.backbone:
            given = f"bundle {number} started from {other.info.get(START) or 'an encoder that it does not name'}"
            todo = "Name the encoder that it started from with --base"
            raise MismatchError(given, expected=f"the base, {start.backbone}", todo=todo)
    lengths = sorted({other.tokenizer.max_length for other in others})
    if len(lengths) > 1:
        raise MismatchError(f"the bundles have windows of {lengths} tokens", expected="one length")
    encoder, adapters = start.encoder, others[0].primaries if len(others) == 1 else {}
    with torch.no_grad():
        flat = parameters_to_vector(encoder.parameters())
        vectors = [parameters_to_vector(other.encoder.parameters()) - flat for other in others]
        vector_to_parameters(flat + scale * merge_vectors(vectors, method, density=density), encoder.parameters())
        for name, parameter in nn.ModuleDict(dict(adapters)).named_parameters():
            if name.endswith(".b"):
                parameter.mul_(scale)
    info = {"merged": [other.backbone for other in others], "method": method, "scale": scale, "density": density}
    licences = tuple(dict.fromkeys(part for loaded in (start, *others) for part in loaded.licences))
    start = replace(start, tokenizer=others[0].tokenizer, licences=licences)
    save_bundle(trained(start, encoder, adapters, info), out)
    return out
