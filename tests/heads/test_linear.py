"""Convex heads: the ones that scikit-learn finds, whatever they start from."""

from __future__ import annotations

import numpy as np
import pytest
from sklearn.linear_model import LogisticRegression
from sklearn.preprocessing import StandardScaler

from trunkline.heads.linear import fit_head, head_path, mean_loss


def test_a_head_on_separable_features_is_always_right() -> None:
    rng = np.random.default_rng(0)
    targets = rng.integers(0, 4, 200)
    features = (np.eye(4)[targets] @ rng.normal(size=(4, 16)) * 5 + rng.normal(size=(200, 16)) * 0.1 + 3).astype(
        np.float32
    )
    for penalty in (0.01, 1.0):
        head = fit_head(features, targets, 4, penalty)
        assert (head.probabilities(features).argmax(1) == targets).all()
        assert head.probabilities(features).sum(1) == pytest.approx(np.ones(200), abs=1e-5)


@pytest.mark.parametrize("present", [(2,), (1, 3)])
def test_labels_without_an_example_never_win(present: tuple[int, ...]) -> None:
    rng = np.random.default_rng(0)
    targets = np.asarray(present)[rng.integers(0, len(present), 50)]
    features = (np.eye(5)[targets] + rng.normal(size=(50, 5)) * 0.1).astype(np.float32)
    head = fit_head(features, targets, 5, 1.0)
    assert (head.probabilities(features).argmax(1) == targets).all()
    assert set(head.probabilities(rng.normal(size=(500, 5)).astype(np.float32) * 100).argmax(1)) <= set(present)


def test_units_without_a_known_label_do_not_change_the_head() -> None:
    rng = np.random.default_rng(0)
    features, targets = rng.normal(size=(60, 5)).astype(np.float32), rng.integers(0, 3, 60)
    noisy = np.concatenate([features, rng.normal(size=(40, 5)).astype(np.float32) * 50])
    one = fit_head(features, targets, 3, 0.1)
    two = fit_head(noisy, np.concatenate([targets, np.full(40, -1)]), 3, 0.1)
    assert (one.weight == two.weight).all()
    assert (one.bias == two.bias).all()


def test_a_head_sought_from_a_stronger_penalty_is_the_one_sought_from_nothing() -> None:
    rng = np.random.default_rng(0)
    features, targets = rng.normal(size=(400, 6)).astype(np.float32) * 3 + 1, rng.integers(0, 4, 400)
    features[:, 0] += targets
    penalties = (0.001, 0.01, 0.1)
    for penalty, warm in zip(penalties, head_path(features, targets, 4, penalties), strict=True):
        cold = fit_head(features, targets, 4, penalty)
        assert warm.probabilities(features) == pytest.approx(cold.probabilities(features), abs=0.01)


@pytest.mark.parametrize("n_labels", [2, 5])
def test_a_head_is_the_one_that_scikit_learn_finds(n_labels: int) -> None:
    rng = np.random.default_rng(n_labels)
    features = rng.normal(size=(3000, 12)).astype(np.float32) @ rng.normal(size=(12, 12)).astype(np.float32)
    targets = (features[:, :n_labels] + rng.gumbel(size=(3000, n_labels)) * 3).argmax(1)
    scaled = StandardScaler().fit_transform(features)
    for penalty, head in zip((0.001, 0.1), head_path(features, targets, n_labels, (0.001, 0.1)), strict=True):
        theirs = LogisticRegression(C=penalty, tol=1e-8, max_iter=5000).fit(scaled, targets)
        assert head.probabilities(features) == pytest.approx(theirs.predict_proba(scaled), abs=5e-3)


def test_the_loss_of_a_head_has_the_gradient_that_differences_give() -> None:
    rng = np.random.default_rng(0)
    # More rows than a block, so that blocks add up.
    x, y = rng.normal(size=(1500, 3)).astype(np.float32), rng.integers(0, 4, 1500)
    weight, bias = rng.normal(size=(4, 3)), rng.normal(size=4)
    value, by_weight, by_bias = mean_loss(x, y, weight, bias)
    logits = x.astype(np.float64) @ weight.T + bias
    assert value == pytest.approx(np.mean(np.log(np.exp(logits).sum(1)) - logits[np.arange(1500), y]), rel=1e-5)
    for label in range(4):
        bump = np.eye(4)[label] * 0.01
        change = (mean_loss(x, y, weight, bias + bump)[0] - mean_loss(x, y, weight, bias - bump)[0]) / 0.02
        assert by_bias[label] == pytest.approx(change, abs=1e-4)
        step = np.outer(bump, [1.0, 0.0, 0.0])
        change = (mean_loss(x, y, weight + step, bias)[0] - mean_loss(x, y, weight - step, bias)[0]) / 0.02
        assert by_weight[label, 0] == pytest.approx(change, abs=1e-4)


def test_the_same_input_gives_the_same_heads() -> None:
    rng = np.random.default_rng(0)
    features, targets = rng.normal(size=(300, 20)).astype(np.float32), rng.integers(0, 7, 300)
    one, two = (list(head_path(features, targets, 7, (0.01, 1.0))) for _ in range(2))
    assert all((a.weight == b.weight).all() and (a.bias == b.bias).all() for a, b in zip(one, two, strict=True))
