"""Objectives against their definitions written as loops."""

import math

import pytest
import torch

from trunkline.prefinetune.objectives import concept_ranks, info_nce, reciprocal_ranks, token_concept_loss


def test_info_nce_equals_the_definition():
    torch.manual_seed(0)
    left, right = torch.randn(5, 8, dtype=torch.float64), torch.randn(5, 8, dtype=torch.float64)
    cosine = [[float(a @ b / a.norm() / b.norm()) for b in right] for a in left]
    total = 0.0
    for i in range(5):
        total -= math.log(math.exp(cosine[i][i] / 0.1) / sum(math.exp(cosine[i][j] / 0.1) for j in range(5)))
        total -= math.log(math.exp(cosine[i][i] / 0.1) / sum(math.exp(cosine[j][i] / 0.1) for j in range(5)))
    assert float(info_nce(left, right, 0.1)) == pytest.approx(total / 10, abs=1e-12)


def test_info_nce_gradient():
    torch.manual_seed(1)
    left = torch.randn(3, 4, dtype=torch.float64, requires_grad=True)
    right = torch.randn(3, 4, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(lambda a, b: info_nce(a, b, 0.2), (left, right))


def test_info_nce_of_indistinguishable_texts_is_chance():
    same = torch.ones(7, 3)
    assert float(info_nce(same, same, 0.05)) == pytest.approx(math.log(7), abs=1e-5)


def test_reciprocal_ranks_count_ties_against_the_partner():
    left = torch.eye(3)
    assert reciprocal_ranks(left, left).tolist() == [1.0, 1.0, 1.0]
    right = torch.tensor([[1.0, 0, 0], [1.0, 0, 0], [0, 0, 1.0]])
    assert reciprocal_ranks(left, right).tolist() == pytest.approx([1 / 2, 1 / 3, 1.0])


def test_token_concept_loss_equals_the_definition():
    torch.manual_seed(2)
    logits = torch.randn(4, 3, dtype=torch.float64)
    positive = torch.tensor([[1, 0, 0], [0, 0, 0], [0, 1, 1], [0, 0, 0]], dtype=torch.bool)
    valid = torch.tensor([[1, 1, 0], [0, 0, 0], [1, 1, 1], [0, 1, 0]], dtype=torch.bool)
    total = 0.0
    for i in range(4):
        for j in range(3):
            p = 1 / (1 + math.exp(-float(logits[i, j])))
            total -= valid[i, j].item() * math.log(p if positive[i, j] else 1 - p)
    assert float(token_concept_loss(logits, positive, valid)) == pytest.approx(total / 3, abs=1e-12)


def test_unknown_entries_get_no_gradient():
    logits = torch.zeros(2, 2, requires_grad=True)
    valid = torch.tensor([[True, False], [False, False]])
    token_concept_loss(logits, torch.zeros(2, 2, dtype=torch.bool), valid).backward()
    assert logits.grad[0, 0] != 0
    assert logits.grad[~valid].abs().sum() == 0


def test_a_batch_without_any_known_concept_costs_nothing():
    none = torch.zeros(3, 2, dtype=torch.bool)
    assert float(token_concept_loss(torch.randn(3, 2), none, none)) == 0.0


def test_concept_ranks_take_the_best_true_concept_and_leave_out_unlabelled_words():
    logits = torch.tensor([[3.0, 2.0, 1.0], [0.0, 0.0, 0.0], [1.0, 2.0, 3.0]])
    positive = torch.tensor([[0, 1, 1], [0, 0, 0], [0, 0, 1]], dtype=torch.bool)
    assert concept_ranks(logits, positive).tolist() == [2, 1]
