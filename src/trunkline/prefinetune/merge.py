"""Merging encoders that started from the same weights: the average of their task vectors, TIES, or a part of one."""

from __future__ import annotations

import copy
import math
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor

from trunkline.encoder.bundle_files import AdapterFile, Loaded, load_any, save_bundle
from trunkline.encoder.encoder import Encoder
from trunkline.encoder.lora import LoraAdapter
from trunkline.encoder.storage import backbone_hash
from trunkline.errors import MismatchError, TrunklineError
from trunkline.versions import versions

Method = Literal["average", "ties"]
START = "started_from"
"""In a bundle's info: the hash of the backbone that its training began with."""


def trained(start: Loaded, encoder: Encoder, adapters: Mapping[str, LoraAdapter], info: Mapping[str, Any]) -> Loaded:
    """What training or merging made of `start`, on the CPU and ready to be saved; `adapters` are by family."""
    encoder = encoder.cpu().eval()
    backbone = backbone_hash(encoder)
    primaries = {
        family: AdapterFile(family, backbone, encoder.fork, adapter.cpu().eval())
        for family, adapter in adapters.items()
    }
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
        density: See `merge_vectors`; in (0, 1].

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
        if other.info.get(START) != base.backbone:
            raise MismatchError(
                f"bundle {number} started from {other.info.get(START) or 'an encoder that it does not name'}",
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
    only = others[0].primaries if len(others) == 1 else {}
    adapters = {family: _scaled(file.lora, scale) for family, file in only.items() if file.lora is not None}
    info = {"merged": [other.backbone for other in others], "method": method, "scale": scale, "density": density}
    licences = tuple(dict.fromkeys(part for loaded in (base, *others) for part in loaded.licences))
    return trained(replace(base, tokenizer=others[0].tokenizer, licences=licences), encoder, adapters, info)


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
