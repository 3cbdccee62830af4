"""Token-concept contrastive learning for NER (NuNER, Bogdanov et al. 2024, arXiv 2402.15343, section 3.2)."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F


def token_concept_loss(logits: Tensor, positive: Tensor, valid: Tensor) -> Tensor:
    """Binary cross-entropy of words against concepts.

    Args:
        logits: [words, concepts] similarity of a word's state and a concept's embedding, h_i . c_j.
        positive: [words, concepts] true where the word belongs to an entity of the concept.
        valid: [words, concepts] false where this is not known, as for unlabelled words of an open source.

    Returns:
        The loss summed over concepts and averaged over the words that have a known concept, a scalar.
    """
    losses = F.binary_cross_entropy_with_logits(logits, positive.to(logits.dtype), reduction="none")
    known = valid.any(-1).sum().clamp(min=1)
    return (losses * valid).sum() / known


def nearest_concepts(table: Tensor, count: int, block_elements: int = 2**24) -> tuple[Tensor, Tensor]:
    """The nearest other concepts of each concept by cosine.

    Args:
        table: [concepts, width] embeddings.
        count: How many of them; fewer where there are fewer.
        block_elements: Most similarities in memory at a time (64 MiB of float32 by default).

    Returns:
        [concepts, count] cosines, falling, and the indices of these concepts.
    """
    unit = F.normalize(table.detach(), dim=-1)
    concepts = len(unit)
    count = max(0, min(count, concepts - 1))
    cosines, indices = unit.new_empty(concepts, count), torch.empty(concepts, count, dtype=torch.long)
    rows = max(1, block_elements // max(concepts, 1))
    for first in range(0, concepts, rows):
        block = unit[first : first + rows] @ unit.T
        own = torch.arange(len(block), device=block.device)
        block[own, own + first] = float("-inf")
        found = block.topk(count)
        cosines[first : first + rows], indices[first : first + rows] = found.values, found.indices
    return cosines, indices


def concept_ranks(logits: Tensor, positive: Tensor) -> Tensor:
    """[words] rank, from 1, of the best-placed true concept of each word; words without one are left out."""
    labelled = positive.any(-1)
    logits, positive = logits[labelled], positive[labelled]
    if not logits.numel():
        return logits.new_zeros(0, dtype=torch.long)
    best = logits.masked_fill(~positive, float("-inf")).max(-1, keepdim=True).values
    return 1 + ((logits >= best) & ~positive).sum(-1)
