"""Weakly supervised contrastive learning on text pairs."""

from __future__ import annotations

import math

import torch
from torch import Tensor
from torch.nn import functional as F
from torch.utils.checkpoint import checkpoint

BLOCK = 1024
"""Pairs up to which the similarities of all of them are in memory at once; above, those of so many at a time."""


def info_nce(
    left: Tensor,
    right: Tensor,
    temperature: float | Tensor,
    groups: Tensor | None = None,
    hardness: float = 0.0,
) -> Tensor:
    """Symmetric InfoNCE with in-batch negatives (van den Oord et al. 2018, eq. 4; both directions as in CLIP).

    With a `hardness` beta the negatives are weighted as in Robinson et al. 2021 (arXiv 2010.04592, eq. 4 without
    debiasing, tau+ = 0): negative j of text i, with logit s_ij, counts in proportion to exp(beta * s_ij), and the
    weights of a text's negatives have mean 1. The weights are part of the graph, as in the authors' program.

    Args:
        left: [pairs, width] embeddings; they are normalised here.
        right: [pairs, width] embeddings; row i belongs to row i of `left`.
        temperature: Divides the cosines; 0.01 to 0.05 is usual.
        groups: [pairs] group of each pair; other pairs of the same group are no negatives. All are by default.
        hardness: Beta; 0 weights all negatives alike.

    Returns:
        The mean loss in nats, a scalar; log(pairs) is chance.
    """
    left, right = F.normalize(left, dim=-1), F.normalize(right, dim=-1)
    pairs = len(left)
    if pairs <= BLOCK:
        logits = _logits(left, right, temperature, groups, 0)
        return (_cross_entropy(logits, 0, hardness, "mean") + _cross_entropy(logits.T, 0, hardness, "mean")) / 2

    def block(queries: Tensor, keys: Tensor, first: int) -> Tensor:
        logits = _logits(queries[first : first + BLOCK], keys, temperature, groups, first)
        return _cross_entropy(logits, first, hardness, "sum")

    sums = [
        checkpoint(block, queries, keys, first, use_reentrant=False, preserve_rng_state=False)
        for queries, keys in ((left, right), (right, left))
        for first in range(0, pairs, BLOCK)
    ]
    return torch.stack(sums).sum() / (2 * pairs)


def _logits(queries: Tensor, keys: Tensor, temperature: float | Tensor, groups: Tensor | None, first: int) -> Tensor:
    """[queries, keys] logits; query i belongs to key `first` + i, other keys of its group get minus infinity."""
    logits = queries @ keys.T / temperature
    if groups is not None:
        own = _own(logits, first)
        number = torch.arange(len(keys), device=keys.device)
        alike = (groups[own][:, None] == groups[None, :]) & (own[:, None] != number[None, :])
        logits = logits.masked_fill(alike, float("-inf"))
    return logits


def _own(logits: Tensor, first: int) -> Tensor:
    return torch.arange(first, first + len(logits), device=logits.device)


def _cross_entropy(logits: Tensor, first: int, hardness: float, reduction: str) -> Tensor:
    own = _own(logits, first)
    return F.cross_entropy(_hardened(logits, own, hardness) if hardness else logits, own, reduction=reduction)


def _hardened(logits: Tensor, own: Tensor, hardness: float) -> Tensor:
    """Logits with the logarithms of the negatives' weights added."""
    negative = torch.isfinite(logits)
    negative[torch.arange(len(own), device=own.device), own] = False
    scaled = (hardness * logits).masked_fill(~negative, float("-inf"))
    count = negative.sum(-1, keepdim=True).clamp(min=1)
    weight = scaled - scaled.logsumexp(-1, keepdim=True) + count.to(logits.dtype).log()
    return logits + weight.masked_fill(~negative, 0.0)


class LearnedTemperature(torch.nn.Module):
    """A temperature that is trained by its logarithm and kept in a range, as CLIP does (Radford et al. 2021, 2.3).

    Args:
        start: The temperature to begin with; moved into the range.
        lowest: The lower end.
        highest: The upper end.
    """

    def __init__(self, start: float, lowest: float = 0.005, highest: float = 0.5) -> None:
        super().__init__()
        self.range = math.log(lowest), math.log(highest)
        self.log = torch.nn.Parameter(torch.tensor(min(max(math.log(start), self.range[0]), self.range[1])))

    def forward(self) -> Tensor:
        """The temperature, a scalar."""
        if not self.training:
            return self.log.clamp(*self.range).exp()
        # The parameter itself is clamped: behind a clamp it would get no gradient once it had left the range.
        with torch.no_grad():
            self.log.clamp_(*self.range)
        return self.log.exp()


def reciprocal_ranks(left: Tensor, right: Tensor) -> Tensor:
    """[pairs] 1 / rank of each left text's partner among all right texts, by cosine; ties count against it."""
    cosines = F.normalize(left, dim=-1) @ F.normalize(right, dim=-1).T
    return 1.0 / (cosines >= cosines.diagonal()[:, None]).sum(-1)
