"""Heads: regressions that scikit-learn finds, many folds at a time, and its discriminant."""

from __future__ import annotations

import numpy as np
import pytest
from sklearn.discriminant_analysis import LinearDiscriminantAnalysis
from sklearn.linear_model import LogisticRegression
from threadpoolctl import threadpool_info, threadpool_limits

from scaling import scaled
from trunkline.bundle.parts import Head
from trunkline.heads.linear import Solution, Units, discriminant, mean_loss, one_thread, regression
from trunkline.tasks.classification import softmax


def problem(n_units: int, width: int, n_labels: int, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Correlated features of all sizes and labels that they tell something of."""
    rng = np.random.default_rng(seed)
    features = rng.normal(size=(n_units, width)) @ rng.normal(size=(width, width)) + rng.normal(size=width) * 5
    signal = features @ rng.normal(size=(width, n_labels)) / width
    return features.astype(np.float32), (signal + rng.gumbel(size=signal.shape)).argmax(1)


def said(head: Head, features: np.ndarray) -> np.ndarray:
    return softmax(features @ head.weight + head.bias)


def whole(features: np.ndarray, targets: np.ndarray, n_labels: int, penalty: float, **more: object) -> Head:
    units = Units.of(features, targets, n_labels)
    masks = np.ones((1, len(targets)), np.float32)
    return units.head(regression(units, masks, penalty, **more), 0)  # type: ignore[arg-type]


@pytest.mark.parametrize(("n_units", "n_labels"), [(3000, 2), (3000, 5), (20, 2), (30, 3)])
def test_a_regression_is_the_one_that_scikit_learn_finds(n_units: int, n_labels: int) -> None:
    features, targets = problem(n_units, 40, n_labels)
    rows = scaled(features)
    for penalty in (0.001, 0.1, 3.0):
        theirs = LogisticRegression(C=penalty, tol=1e-8, max_iter=5000).fit(rows, targets)
        head = whole(features, targets, n_labels, penalty)
        assert said(head, features) == pytest.approx(theirs.predict_proba(rows), abs=8e-3)


def test_folds_are_solved_together_as_each_alone() -> None:
    features, targets = problem(90, 20, 3)
    masks = np.ones((4, 90), np.float32)
    for fold in range(3):
        masks[fold, fold::3] = 0
    masks[2] *= np.where(targets == 1, 2.5, 1.0)
    rows = scaled(features)
    units = Units.of(features, targets, 3)
    together = regression(units, masks, 0.1, tolerance=1e-5)
    for fold, mask in enumerate(masks):
        kept, theirs = mask > 0, LogisticRegression(C=0.1, tol=1e-8, max_iter=5000)
        theirs.fit(rows[kept], targets[kept], sample_weight=mask[kept])
        found = said(units.head(together, fold), features)[:, theirs.classes_]
        assert found == pytest.approx(theirs.predict_proba(rows), abs=3e-3), fold


def test_where_the_search_starts_makes_no_difference() -> None:
    features, targets = problem(400, 8, 4)
    units, masks = Units.of(features, targets, 4), np.ones((1, 400), np.float32)
    start = regression(units, masks, 1.0)
    for covariance in (None, (np.eye(4) + 0.5).astype(np.float32) / 1.5):
        cold, warm = (regression(units, masks, 0.01, covariance, start=s, tolerance=1e-5) for s in (None, start))
        one, two = (said(units.head(found, 0), features) for found in (cold, warm))
        assert one == pytest.approx(two, abs=1e-3)


def test_a_covariance_is_the_gaussian_prior_of_the_weights_of_labels() -> None:
    features, targets = problem(200, 6, 4)
    covariance = np.array([[3, 2, 0, 0], [2, 3, 0, 0], [0, 0, 1, 0.5], [0, 0, 0.5, 1]]) / 2
    units, masks, penalty = Units.of(features, targets, 4), np.ones((1, 200), np.float32), 0.01
    found = regression(units, masks, penalty, covariance.astype(np.float32), tolerance=1e-6)
    weight, bias = found.weight[0].astype(np.float64), found.bias[0].astype(np.float64)
    logits = units.x @ weight.T + bias
    chances = np.exp(logits - logits.max(1, keepdims=True))
    chances /= chances.sum(1, keepdims=True)
    error = chances - np.eye(4)[targets]
    # At the optimum the gradient of the loss is that of the prior with the other sign.
    assert error.T @ units.x * penalty == pytest.approx(-np.linalg.solve(covariance, weight), abs=2e-3)
    assert error.sum(0) == pytest.approx(0, abs=0.05)


@pytest.mark.parametrize(("n_units", "shrinkage"), [(300, 0.5), (300, 0.1), (24, 0.5)])
def test_the_discriminant_is_that_of_scikit_learn(n_units: int, shrinkage: float) -> None:
    features, targets = problem(n_units, 30, 3, seed=1)
    rows = scaled(features)
    theirs = LinearDiscriminantAnalysis(solver="lsqr", shrinkage=shrinkage)
    units = Units.of(features, targets, 3)
    masks = np.ones((2, n_units), np.float32)
    masks[1, ::4] = 0
    found = discriminant(units, masks, shrinkage)
    for fold, mask in enumerate(masks):
        kept = mask > 0
        # theirs takes the mean of the variances of these rows, standardised on all
        expected = theirs.fit(rows[kept], targets[kept]).predict_proba(rows)
        assert said(units.head(found, fold), features) == pytest.approx(expected, abs=2e-3)


def test_one_unit_of_each_label_makes_a_discriminant_of_their_places() -> None:
    features = np.random.default_rng(0).normal(size=(3, 10)).astype(np.float32)
    units = Units.of(features, np.arange(3), 3)
    head = units.head(discriminant(units, np.ones((1, 3), np.float32)), 0)
    assert (said(head, features).argmax(1) == np.arange(3)).all()


def test_a_head_on_separable_features_is_always_right() -> None:
    rng = np.random.default_rng(0)
    targets = rng.integers(0, 4, 200)
    places = np.eye(4)[targets] @ rng.normal(size=(4, 16)) * 5
    features = (places + rng.normal(size=(200, 16)) * 0.1 + 3).astype(np.float32)
    for penalty in (0.01, 1.0):
        head = whole(features, targets, 4, penalty)
        assert (said(head, features).argmax(1) == targets).all()
        assert said(head, features).sum(1) == pytest.approx(np.ones(200), abs=1e-5)


@pytest.mark.parametrize("present", [(2,), (1, 3)])
@pytest.mark.parametrize("kind", ["regression", "discriminant"])
def test_labels_without_an_example_never_win(present: tuple[int, ...], kind: str) -> None:
    rng = np.random.default_rng(0)
    targets = np.asarray(present)[rng.integers(0, len(present), 50)]
    features = (np.eye(5)[targets] + rng.normal(size=(50, 5)) * 0.1).astype(np.float32)
    units, masks = Units.of(features, targets, 5), np.ones((1, 50), np.float32)
    covariance = ((np.eye(5) + 1) / 2).astype(np.float32)
    solution = regression(units, masks, 1.0, covariance) if kind == "regression" else discriminant(units, masks)
    head = units.head(solution, 0)
    assert (said(head, features).argmax(1) == targets).all()
    assert set(said(head, rng.normal(size=(500, 5)).astype(np.float32) * 100).argmax(1)) <= set(present)


def test_the_loss_of_heads_has_the_gradient_that_differences_give() -> None:
    rng = np.random.default_rng(0)
    # More rows than a block, so that blocks add up.
    count = 2**18 // 8 + 500
    units = Units.of(rng.normal(size=(count, 3)).astype(np.float32), rng.integers(0, 4, count), 4)
    masks = rng.uniform(size=(2, count)).astype(np.float32)
    weight, bias = (rng.normal(size=shape).astype(np.float32) for shape in ((2, 4, 3), (2, 4)))
    value, by_weight, by_bias = mean_loss(units, masks, Solution(weight, bias))
    for fold in range(2):
        logits = units.x.astype(np.float64) @ weight[fold].T + bias[fold]
        losses = np.log(np.exp(logits).sum(1)) - logits[np.arange(count), units.y[:, 0]]
        assert value[fold] == pytest.approx(np.average(losses, weights=masks[fold]), rel=1e-5)
    for place in np.ndindex(2, 4):
        up, down = bias.copy(), bias.copy()
        up[place] += 0.01
        down[place] -= 0.01
        change = (
            mean_loss(units, masks, Solution(weight, up))[0] - mean_loss(units, masks, Solution(weight, down))[0]
        )[place[0]]
        assert by_bias[place] == pytest.approx(change / 0.02, abs=2e-4)
        up, down = weight.copy(), weight.copy()
        up[(*place, 1)] += 0.01
        down[(*place, 1)] -= 0.01
        change = (mean_loss(units, masks, Solution(up, bias))[0] - mean_loss(units, masks, Solution(down, bias))[0])[
            place[0]
        ]
        assert by_weight[(*place, 1)] == pytest.approx(change / 0.02, abs=2e-4)


def test_the_same_input_gives_the_same_heads() -> None:
    features, targets = problem(300, 20, 7)
    one, two = (whole(features, targets, 7, 0.1) for _ in range(2))
    assert (one.weight == two.weight).all()
    assert (one.bias == two.bias).all()


def test_features_that_were_trained_on_these_units_make_no_certainty_without_bounds() -> None:
    places = np.random.default_rng(0).normal(size=(2, 384)).astype(np.float32)
    targets = np.arange(8) % 2
    features = places[targets] + np.random.default_rng(1).normal(size=(8, 384)).astype(np.float32) * 1e-3
    units = Units.of(features, targets, 2)
    head = units.head(discriminant(units, np.ones((1, 8), np.float32)), 0)
    logits = features @ head.weight + head.bias
    assert (logits.argmax(1) == targets).all()
    assert np.abs(np.diff(logits, axis=1)).max() < 1e5


def test_products_run_on_one_thread_and_then_on_as_many_as_before() -> None:
    def threads() -> list[int]:
        return [part["num_threads"] for part in threadpool_info() if "numpy" in part["filepath"]]

    with threadpool_limits(2):
        before = threads()
        with one_thread():
            assert set(threads()) <= {1}
        assert threads() == before
