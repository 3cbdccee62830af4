"""InfoNCE beyond the plain form: groups against the definition, and blocks that change nothing."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor
from torch.nn import functional as F

from trunkline.prefinetune.objectives import classification
from trunkline.prefinetune.objectives.classification import info_nce


def pairs(count: int, seed: int = 0) -> tuple[Tensor, Tensor]:
    torch.manual_seed(seed)
    made = torch.randn(2, count, 5, dtype=torch.float64)
    return made[0].requires_grad_(), made[1].requires_grad_()


def by_definition(left: Tensor, right: Tensor, temperature: float, groups: list[int]) -> float:
    left, right = F.normalize(left, dim=-1).tolist(), F.normalize(right, dim=-1).tolist()
    total = 0.0
    for queries, keys in ((left, right), (right, left)):
        for i, query in enumerate(queries):
            powers = [math.exp(sum(a * b for a, b in zip(query, k, strict=True)) / temperature) for k in keys]
            rest = sum(power for j, power in enumerate(powers) if j != i and groups[j] != groups[i])
            total -= math.log(powers[i] / (powers[i] + rest))
    return total / (2 * len(left))


@settings(max_examples=30, deadline=None)
@given(st.integers(0, 10**6), st.integers(1, 8))
def test_pairs_of_a_group_are_no_negatives_of_each_other(seed: int, count: int) -> None:
    left, right = pairs(count, seed)
    groups = torch.randint(0, 4, (count,))
    expected = by_definition(left, right, 0.3, groups.tolist())
    assert float(info_nce(left, right, 0.3, groups).detach()) == pytest.approx(expected, abs=1e-10)


def test_the_gradient_is_finite_where_a_text_has_no_negative() -> None:
    left, right = pairs(4)
    loss = info_nce(left, right, 0.5, torch.zeros(4, dtype=torch.long))
    assert float(loss.detach()) == 0.0
    assert all(torch.isfinite(part).all() for part in torch.autograd.grad(loss, (left, right)))


def test_no_pairs_cost_nothing() -> None:
    none = torch.zeros(0, 3, requires_grad=True)
    assert float(info_nce(none, none, 0.05).detach()) == 0.0


@pytest.mark.parametrize("count", [9, 12])
def test_blocks_change_neither_loss_nor_gradient(count: int, monkeypatch: pytest.MonkeyPatch) -> None:
    inputs = pairs(count)
    groups = torch.arange(count) // 2
    whole = info_nce(*inputs, 0.2, groups)
    expected = torch.autograd.grad(whole, inputs)
    monkeypatch.setattr(classification, "BLOCK", 4)
    blocked = info_nce(*inputs, 0.2, groups)
    assert float(blocked.detach()) == pytest.approx(float(whole.detach()), abs=1e-12)
    for ours, theirs in zip(torch.autograd.grad(blocked, inputs), expected, strict=True):
        assert torch.allclose(ours, theirs, atol=1e-12)
    with torch.inference_mode():
        assert float(info_nce(*inputs, 0.2, groups)) == pytest.approx(float(whole.detach()), abs=1e-12)


def test_blocks_keep_the_similarities_of_one_block(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(classification, "BLOCK", 16)
    left, right = pairs(256)
    largest = []
    with torch.autograd.graph.saved_tensors_hooks(lambda t: largest.append(t.numel()) or t, lambda t: t):
        info_nce(left, right, 0.1)
    assert max(largest) <= 256 * 5, "saved are the embeddings, not [256, 256] similarities"
