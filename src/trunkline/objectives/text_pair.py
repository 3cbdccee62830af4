"""Weakly supervised contrastive learning on text pairs."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F


def info_nce(left: Tensor, right: Tensor, temperature: float, groups: Tensor | None = None) -> Tensor:
    """Symmetric InfoNCE with in-batch negatives (van den Oord et al. 2018, eq. 4; both directions as in CLIP).

    Args:
        left: [pairs, width] embeddings; they are normalised here.
        right: [pairs, width] embeddings; row i belongs to row i of `left`.
        temperature: Divides the cosines; 0.01 to 0.05 is usual.
        groups: [pairs] group of each pair; other pairs of the same group are no negatives. All are by default.

    Returns:
        The mean loss in nats, a scalar; log(pairs) is chance.
    """
    cosines = F.normalize(left, dim=-1) @ F.normalize(right, dim=-1).T
    logits = cosines / temperature
    target = torch.arange(len(logits), device=logits.device)
    if groups is not None:
        alike = (groups[:, None] == groups[None, :]) & (target[:, None] != target[None, :])
        logits = logits.masked_fill(alike, float("-inf"))
    return (F.cross_entropy(logits, target) + F.cross_entropy(logits.T, target)) / 2


def reciprocal_ranks(left: Tensor, right: Tensor) -> Tensor:
    """[pairs] 1 / rank of each left text's partner among all right texts, by cosine; ties count against it."""
    cosines = F.normalize(left, dim=-1) @ F.normalize(right, dim=-1).T
    return 1.0 / (cosines >= cosines.diagonal()[:, None]).sum(-1)
