"""Text classification is pre-finetuned on text pairs with InfoNCE."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn import functional as F

from trunkline.prefinetune.objectives import Objective
from trunkline.text.examples import PairExample
from trunkline.text.tokens import TextTokenizer, UnitText, text_unit


def info_nce(left: Tensor, right: Tensor, temperature: float, groups: Tensor | None = None) -> Tensor:
    """Symmetric InfoNCE with in-batch negatives (van den Oord et al. 2018, eq. 4; both directions as in CLIP).

    Row i of `left` [pairs, width] belongs to row i of `right`; both are normalised here. The temperature divides the
    cosines; 0.01 to 0.05 is usual. Other pairs of the same group, of [pairs] `groups`, are no negatives.
    """
    logits = F.normalize(left, dim=-1) @ F.normalize(right, dim=-1).T / temperature
    own = torch.arange(len(logits), device=logits.device)
    if groups is not None:
        alike = (groups[:, None] == groups[None, :]) & (own[:, None] != own[None, :])
        logits = logits.masked_fill(alike, float("-inf"))
    both = F.cross_entropy(logits, own, reduction="sum") + F.cross_entropy(logits.T, own, reduction="sum")
    return both / max(2 * len(logits), 1)


def reciprocal_ranks(left: Tensor, right: Tensor) -> Tensor:
    """[pairs] 1 / rank of each left text's partner among all right texts, by cosine; ties count against it."""
    cosines = F.normalize(left, dim=-1) @ F.normalize(right, dim=-1).T
    return 1.0 / (cosines >= cosines.diagonal()[:, None]).sum(-1)


class PairTargets(NamedTuple):
    """[pairs] indices of the pairs of a batch that are used, and the group of each."""

    kept: Tensor
    groups: Tensor


class TextPairObjective(Objective):
    """Symmetric InfoNCE at a temperature; units 2i and 2i + 1 are the two texts of pair i."""

    kind = PairExample

    def __init__(self, temperature: float) -> None:
        super().__init__()
        self.temperature = temperature

    @staticmethod
    def unit_texts(examples: Sequence[PairExample], tokenizer: TextTokenizer) -> list[UnitText]:
        """Both texts of each pair, one after the other."""
        texts = [text for example in examples for text in (example.left, example.right)]
        return [text_unit(tokens) for tokens in tokenizer.encode(texts)]

    def forward(self, features: Tensor, targets: PairTargets) -> Tensor:
        """The loss of [2 * pairs, width] features over the pairs that `targets` keeps."""
        left, right = features[0::2][targets.kept], features[1::2][targets.kept]
        return info_nce(left, right, self.temperature, targets.groups)

    def targets(self, drawn: Sequence[tuple[int, PairExample]], step: int) -> PairTargets:
        """The pairs to use: a text that occurs twice in a batch would be its own negative."""
        seen: set[str] = set()
        kept: list[int] = []
        groups: dict[tuple[int, str] | int, int] = {}
        numbers: list[int] = []
        for index, (source, pair) in enumerate(drawn):
            if pair.left not in seen and pair.right not in seen:
                kept.append(index)
                numbers.append(groups.setdefault((source, pair.group) if pair.group else index, len(groups)))
            seen |= {pair.left, pair.right}
        return PairTargets(torch.tensor(kept, dtype=torch.long), torch.tensor(numbers, dtype=torch.long))

    def measure(self, features: Tensor, targets: PairTargets) -> tuple[str, Tensor]:
        """Mean reciprocal rank of each left text's partner among the held-out right texts."""
        return "mrr", reciprocal_ranks(features[0::2][targets.kept], features[1::2][targets.kept])
