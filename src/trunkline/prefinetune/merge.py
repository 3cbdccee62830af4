"""Merging encoders that started from the same weights: the average of their task vectors, and TIES."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from pathlib import Path
from typing import Literal

import torch
from torch import Tensor

from trunkline.errors import MismatchError, TrunklineError
from trunkline.model.bundle_files import Loaded, load_any, save_bundle
from trunkline.model.storage import backbone_hash
from trunkline.versions import versions

Method = Literal["average", "ties"]


def merge_vectors(vectors: Sequence[Tensor], method: Method, *, density: float = 0.2) -> Tensor:
    """One task vector out of several.

    Args:
        vectors: [n] each: what training added to the shared start.
        method: `average` is the mean (task arithmetic, arXiv 2212.04089); `ties` keeps of each vector the share
            `density` of largest magnitude, elects a sign for each entry by the sum, and averages the entries that have
            this sign (TIES-Merging, arXiv 2306.01708, algorithm 1).
        density: For `ties`, in (0, 1].
    """
    stacked = torch.stack(list(vectors))
    if method == "average":
        return stacked.mean(0)
    keep = max(1, round(density * stacked.shape[1]))
    threshold = stacked.abs().kthvalue(stacked.shape[1] - keep + 1, dim=1, keepdim=True).values
    trimmed = stacked * (stacked.abs() >= threshold)
    agreeing = trimmed * (trimmed.sign() == trimmed.sum(0).sign())
    return agreeing.sum(0) / agreeing.ne(0).sum(0).clamp(min=1)


def merge_encoders(base: Loaded, others: Sequence[Loaded], method: Method, *, scale: float, density: float) -> Loaded:
    """The base with the merged task vector of the others; adapters and tasks are left behind.

    Args:
        base: What all others started from.
        others: At least two.
        method: See `merge_vectors`.
        scale: Factor on the merged vector.
        density: See `merge_vectors`.

    Raises:
        MismatchError: Encoders of another shape.
    """
    if len(others) < 2:
        raise TrunklineError(f"{len(others)} encoder to merge", expected="at least two")
    start = base.encoder.state_dict()
    names = sorted(start)
    for other in others:
        shapes = {name: tensor.shape for name, tensor in other.encoder.state_dict().items()}
        if shapes != {name: tensor.shape for name, tensor in start.items()}:
            raise MismatchError("the encoders have different shapes", expected="encoders that started from the base")
    flat = torch.cat([start[name].flatten().float() for name in names])
    vectors = [torch.cat([o.encoder.state_dict()[n].flatten().float() for n in names]) - flat for o in others]
    merged = flat + scale * merge_vectors(vectors, method, density=density)
    encoder = copy.deepcopy(base.encoder)
    parts = merged.split([start[name].numel() for name in names])
    encoder.load_state_dict(
        {name: part.view_as(start[name]).to(start[name].dtype) for name, part in zip(names, parts, strict=True)}
    )
    info = {
        "merged": [other.backbone for other in others],
        "base": base.backbone,
        "method": method,
        "scale": scale,
        "density": density,
        "versions": versions(),
    }
    return Loaded(encoder, base.tokenizer, base.config, backbone_hash(encoder), {}, {}, info)


def merge_bundles(
    bundles: Sequence[Path],
    out: Path,
    *,
    base: str,
    method: Method = "average",
    scale: float = 1.0,
    density: float = 0.2,
) -> Path:
    """Merges the encoders of bundles and saves the result as a bundle without adapters."""
    loaded = [load_any(str(path)) for path in bundles]
    start = load_any(base, fork=loaded[0].encoder.fork if loaded else None)
    save_bundle(merge_encoders(start, loaded, method, scale=scale, density=density), out)
    return out
