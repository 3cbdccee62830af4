"""InfoNCE beyond the plain form: hard negatives against the authors' formula, blocks, the trained temperature."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor
from torch.nn import functional as F

from trunkline.prefinetune.losses import text_pair
from trunkline.prefinetune.losses.text_pair import LearnedTemperature, info_nce


def pairs(count: int, seed: int = 0) -> tuple[Tensor, Tensor]:
    torch.manual_seed(seed)
    made = torch.randn(2, count, 5, dtype=torch.float64, requires_grad=True)
    return made[0], made[1]


def hard_by_definition(left: Tensor, right: Tensor, temperature: float, groups: list[int], beta: float) -> float:
    """Robinson et al. 2021, eq. 4 with tau+ = 0, written as loops."""
    left, right = F.normalize(left, dim=-1).tolist(), F.normalize(right, dim=-1).tolist()
    total = 0.0
    for queries, keys in ((left, right), (right, left)):
        for i, query in enumerate(queries):
            exponentials = [math.exp(sum(a * b for a, b in zip(query, k, strict=True)) / temperature) for k in keys]
            negatives = [e for j, e in enumerate(exponentials) if j != i and groups[j] != groups[i]]
            importance = [e**beta for e in negatives]
            weighted = sum(w * e for w, e in zip(importance, negatives, strict=True))
            rest = weighted / (sum(importance) / len(importance)) if negatives else 0.0
            total -= math.log(exponentials[i] / (exponentials[i] + rest))
    return total / (2 * len(left))


@settings(max_examples=30, deadline=None)
@given(st.integers(0, 10**6), st.integers(1, 8), st.sampled_from([0.0, 0.5, 1.0, 2.0]))
def test_hard_negatives_are_weighted_by_the_formula_of_the_paper(seed: int, count: int, beta: float) -> None:
    left, right = pairs(count, seed)
    groups = torch.randint(0, 4, (count,))
    expected = hard_by_definition(left, right, 0.3, groups.tolist(), beta)
    assert float(info_nce(left, right, 0.3, groups, beta).detach()) == pytest.approx(expected, abs=1e-10)


def test_the_gradient_of_hard_negatives_is_right_and_finite_where_a_text_has_no_negative() -> None:
    left, right = (part.detach().requires_grad_() for part in pairs(4))
    groups = torch.tensor([0, 0, 1, 2])
    assert torch.autograd.gradcheck(lambda a, b: info_nce(a, b, 0.5, groups, 1.0), (left, right))
    alone = torch.zeros(4, dtype=torch.long)
    loss = info_nce(left, right, 0.5, alone, 1.0)
    assert float(loss.detach()) == 0.0
    assert all(torch.isfinite(part).all() for part in torch.autograd.grad(loss, (left, right)))


def test_with_more_hardness_near_negatives_push_more_and_far_ones_less() -> None:
    right = torch.tensor([[1.0, 0.0], [0.8, 0.6], [-0.6, 0.8]])
    left = torch.tensor([[1.0, 0.0]])

    def push(beta: float) -> list[float]:
        logits = (left @ right.T).requires_grad_()
        text_pair._cross_entropy(logits, 0, beta, "sum").backward()
        return logits.grad[0, 1:].tolist()

    near, far = push(0.0)
    harder_near, harder_far = push(4.0)
    assert harder_near > near > far > harder_far


@pytest.mark.parametrize("count", [9, 12])
@pytest.mark.parametrize("beta", [0.0, 1.0])
def test_blocks_change_neither_loss_nor_gradient(count: int, beta: float, monkeypatch: pytest.MonkeyPatch) -> None:
    left, right = (part.detach().requires_grad_() for part in pairs(count))
    temperature = torch.tensor(0.2, dtype=torch.float64, requires_grad=True)
    groups = torch.arange(count) // 2
    inputs = left, right, temperature
    whole = info_nce(left, right, temperature, groups, beta)
    expected = torch.autograd.grad(whole, inputs)
    monkeypatch.setattr(text_pair, "BLOCK", 4)
    blocked = info_nce(left, right, temperature, groups, beta)
    assert float(blocked.detach()) == pytest.approx(float(whole.detach()), abs=1e-12)
    for ours, theirs in zip(torch.autograd.grad(blocked, inputs), expected, strict=True):
        assert torch.allclose(ours, theirs, atol=1e-12)
    with torch.inference_mode():
        assert float(info_nce(left, right, 0.2, groups, beta)) == pytest.approx(float(whole.detach()), abs=1e-12)


def test_blocks_keep_the_similarities_of_one_block(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(text_pair, "BLOCK", 16)
    left, right = pairs(256)
    largest = []
    with torch.autograd.graph.saved_tensors_hooks(lambda t: largest.append(t.numel()) or t, lambda t: t):
        info_nce(left, right, 0.1)
    assert max(largest) <= 256 * 5, "saved are the embeddings, not [256, 256] similarities"


def test_a_trained_temperature_stays_in_its_range_and_comes_back() -> None:
    made = LearnedTemperature(0.05)
    assert float(made().detach()) == pytest.approx(0.05)
    for push, end in ((1.0, 0.005), (-1.0, 0.5)):
        optimizer = torch.optim.SGD(made.parameters(), lr=1.0)
        for _ in range(200):
            optimizer.zero_grad()
            (made() * push / made().detach()).backward()
            optimizer.step()
        assert float(made().detach()) == pytest.approx(end)
        with torch.no_grad():
            made.log.fill_(9.0 * -push)
        assert float(made.eval()().detach()) == pytest.approx(end), "held-out data are measured within the range too"
        assert float(made.train()().detach()) == pytest.approx(end)


def test_a_start_outside_the_range_is_moved_into_it() -> None:
    assert float(LearnedTemperature(2.0)().detach()) == pytest.approx(0.5)
    assert float(LearnedTemperature(0.001)().detach()) == pytest.approx(0.005)
