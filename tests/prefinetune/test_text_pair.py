"""InfoNCE beyond the plain form: groups against the definition, and what has no negative."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor
from torch.nn import functional as F

from trunkline.prefinetune.objectives import info_nce


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
