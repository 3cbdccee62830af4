"""Nearest concepts against a full sort."""

from __future__ import annotations

import pytest
import torch
from torch.nn import functional as F

from trunkline.prefinetune.losses.token_concept import nearest_concepts


@pytest.mark.parametrize("block", [1, 40, 2**24])
@pytest.mark.parametrize("count", [0, 3, 12, 50])
def test_nearest_are_those_of_a_full_sort_whatever_the_block(count: int, block: int) -> None:
    torch.manual_seed(0)
    table = torch.randn(13, 4)
    unit = F.normalize(table, dim=-1)
    full = (unit @ unit.T).fill_diagonal_(-torch.inf).sort(descending=True)
    kept = min(count, 12)
    cosines, indices = nearest_concepts(table, count, block)
    assert torch.equal(indices, full.indices[:, :kept])
    assert torch.allclose(cosines, full.values[:, :kept], atol=1e-6)


def test_one_concept_has_no_neighbour() -> None:
    assert nearest_concepts(torch.ones(1, 4), 5)[1].shape == (1, 0)


def test_similarities_are_computed_in_bounded_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    sizes = []
    original = torch.Tensor.topk

    def topk(self: torch.Tensor, count: int) -> object:
        sizes.append(self.numel())
        return original(self, count)

    monkeypatch.setattr(torch.Tensor, "topk", topk)
    cosines, indices = nearest_concepts(torch.randn(500, 8), 4, block_elements=10_000)
    assert max(sizes) <= 10_000
    assert len(sizes) == 25
    assert not (indices == torch.arange(500)[:, None]).any(), "no concept is its own neighbour"
    assert (cosines.diff(dim=-1) <= 0).all()
