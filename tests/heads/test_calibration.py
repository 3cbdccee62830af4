"""Factors of held-out logits: the best for many rows, moderate for few."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.optimize import minimize, minimize_scalar
from scipy.special import logsumexp

from trunkline.heads.linear import LEAST, STRENGTH, factors, log_losses
from trunkline.tasks.classification import softmax


def drawn(count: int, spread: float, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Logits whose best temperature is about `spread`."""
    rng = np.random.default_rng(seed)
    y = rng.integers(0, 3, count)
    return (spread * (np.eye(3)[y] * 2 + rng.gumbel(size=(count, 3)))).astype(np.float32), y


@pytest.mark.parametrize("spread", [0.6, 1.0, 3.0])
def test_one_member_gets_the_best_temperature_where_rows_are_many(spread: float) -> None:
    logits, y = drawn(3000, spread)

    def loss(factor: float) -> float:
        return -float(np.log(softmax(factor * logits))[np.arange(len(y)), y].mean())

    best = minimize_scalar(loss, bounds=(0.05, 5.0), method="bounded").x
    assert factors([logits], y) == pytest.approx([best], rel=0.01)
    assert log_losses(np.float32(best) * logits, y).mean() == pytest.approx(loss(best), abs=1e-6)


@pytest.mark.parametrize(("count", "seed"), [(12, 0), (12, 1), (60, 2), (800, 3)])
def test_several_are_those_that_a_solver_finds(count: int, seed: int) -> None:
    one, y = drawn(count, 1.0, seed)
    rng = np.random.default_rng(seed)
    members = [one, (20 * (one + rng.gumbel(size=one.shape))).astype(np.float32), -one]
    centred = [part - part.mean(1, keepdims=True) for part in members]
    scaled = [part / np.sqrt(np.square(part).mean()) for part in centred]

    def objective(found: np.ndarray) -> float:
        logits = np.tensordot(found, np.asarray(scaled, np.float64), 1)
        loss = (logsumexp(logits, axis=1) - logits[np.arange(count), y]).sum()
        return float(loss + 3 * STRENGTH / 2 * np.square(found - 1 / 3).sum())

    theirs = minimize(objective, np.full(3, 1 / 3), bounds=[(LEAST / 3, None)] * 3, method="L-BFGS-B", tol=1e-12).x
    found = factors(members, y) * np.asarray([np.sqrt(np.square(part).mean()) for part in centred])
    assert found == pytest.approx(theirs, abs=5e-3)
    assert found[2] == pytest.approx(LEAST / 3), "what speaks against the labels counts least, but is not lost"


def test_few_rows_that_are_all_right_make_nobody_certain() -> None:
    y = np.arange(9) % 3
    for size in (1.0, 100.0):
        logits = (size * np.eye(3)[y]).astype(np.float32)
        sure = softmax(logits * np.float32(factors([logits], y)[0])).max(1)
        assert 0.7 < sure.min() < 0.97
    many = np.tile(y, 500)
    logits = np.eye(3)[many].astype(np.float32)
    assert softmax(logits * np.float32(factors([logits], many)[0])).max(1).min() > 0.99


def test_rows_that_are_all_wrong_leave_what_was_learnt() -> None:
    y = np.arange(40) % 2
    logits = np.eye(2)[1 - y].astype(np.float32)
    [factor] = factors([logits], y)
    assert factor == pytest.approx(LEAST / 0.5)


def test_labels_that_cannot_win_are_no_part_of_the_spread() -> None:
    logits, y = drawn(200, 1.0)
    more = np.concatenate([logits, np.full((200, 4), -1e8, np.float32)], axis=1)
    assert factors([more, more], y) == pytest.approx(factors([logits, logits], y), rel=1e-3)


def test_without_rows_the_prior_is_all() -> None:
    logits, _ = drawn(50, 2.0)
    [factor] = factors([logits], np.zeros(0, np.int64))
    scaled = factor * (logits - logits.mean(1, keepdims=True))
    assert np.square(scaled).mean() == pytest.approx(1.0, rel=1e-4)


def test_logits_far_below_zero_count_as_any_others() -> None:
    rng = np.random.default_rng(0)
    logits, targets = rng.normal(size=(40, 3)).astype(np.float32) * 300, rng.integers(0, 3, 40)
    assert factors([logits - 4000], targets) == pytest.approx(factors([logits], targets), rel=1e-3)
