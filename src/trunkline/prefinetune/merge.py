"""Merging encoders that started from the same weights: the average of their task vectors, TIES, or a part of one."""

from __future__ import annotations

import copy
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Literal

import torch
from torch import Tensor

from trunkline.encoder.bundle_files import Loaded, load_any, save_bundle
from trunkline.encoder.lora import LoraAdapter
from trunkline.errors import MismatchError, TrunklineError
from trunkline.prefinetune.result import START, result_of
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


def merge_encoders(
    base: Loaded, others: Sequence[Loaded], method: Method = "average", *, scale: float = 1.0, density: float = 0.2
) -> Loaded:
    """The base with the merged task vector of the others; tasks are left behind, and adapters where there are several.

    Args:
        base: What all others started from.
        others: One or more. One that goes only a part of the way is WiSE-FT (Wortsman et al. 2022, arXiv 2109.01903,
            equation 1); the updates of its primary adapters are scaled with it.
        method: See `merge_vectors`.
        scale: Factor on the merged vector; a negative one goes away from what was learnt.
        density: See `merge_vectors`.

    Raises:
        MismatchError: An encoder that did not start from the base, or windows of several lengths.
        TrunklineError: None to merge, or a factor or share that there cannot be.
    """
    if not others:
        raise TrunklineError("no encoder to merge", expected="one or more")
    if not math.isfinite(scale):
        raise TrunklineError(f"the scale is {scale}", expected="a finite number; 0.5 goes half of the way")
    if not 0 < density <= 1:
        raise TrunklineError(f"the density is {density}", expected="a share above 0 and up to 1")
    for number, other in enumerate(others, 1):
        started = str(other.info.get(START) or "an encoder that it does not name")
        if started != base.backbone:
            raise MismatchError(
                f"bundle {number} started from {started[:40]}",
                expected=f"the base, {base.backbone}",
                todo="Name the encoder that it started from with --base",
            )
    lengths = sorted({other.tokenizer.max_length for other in others})
    if len(lengths) > 1:
        raise MismatchError(f"the bundles have windows of {lengths} tokens", expected="one length")
    start = base.encoder.state_dict()
    flat = torch.cat([tensor.flatten().float() for tensor in start.values()])
    states = [other.encoder.state_dict() for other in others]
    vectors = [torch.cat([state[name].flatten().float() for name in start]) - flat for state in states]
    merged = flat + scale * merge_vectors(vectors, method, density=density)
    encoder = copy.deepcopy(base.encoder)
    parts = zip(start.items(), merged.split([tensor.numel() for tensor in start.values()]), strict=True)
    encoder.load_state_dict({name: part.view_as(tensor).to(tensor.dtype) for (name, tensor), part in parts})
    info = {
        "merged": [other.backbone for other in others],
        "method": method,
        "scale": scale,
        "density": density,
        "start": dict(base.info),
        "versions": versions(),
    }
    only = others[0].primaries if len(others) == 1 else {}
    adapters = {family: _scaled(file.lora, scale) for family, file in only.items() if file.lora is not None}
    return result_of(encoder, base, others[0].tokenizer, adapters, info)


def _scaled(adapter: LoraAdapter, scale: float) -> LoraAdapter:
    """A copy whose low-rank updates are `scale` times those of an adapter."""
    found = copy.deepcopy(adapter)
    with torch.no_grad():
        for name, parameter in found.named_parameters():
            if name.endswith(".b"):
                parameter.mul_(scale)
    return found


def merge_bundles(
    bundles: Sequence[Path],
    out: Path,
    *,
    base: str,
    method: Method = "average",
    scale: float = 1.0,
    density: float = 0.2,
) -> Path:
    """Merges the encoders of bundles, as `merge_encoders` does, and saves the result as a bundle."""
    loaded = [load_any(str(path)) for path in bundles]
    start = load_any(base, fork=loaded[0].encoder.fork if loaded else None)
    save_bundle(merge_encoders(start, loaded, method, scale=scale, density=density), out)
    return out
