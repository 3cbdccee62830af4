"""Linear heads over frozen features, fitted by convex optimisation."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any

import numpy as np
import numpy.typing as npt

from trunkline.tasks.base import softmax

FloatArray = npt.NDArray[np.float32]
IntArray = npt.NDArray[np.int64]

TOLERANCE = 1e-3
"""Largest entry of the preconditioned mean gradient at which a fit ends."""

BLOCK = 1024
"""Rows that one look at the loss works on at a time, so that they are read from memory once, not twice."""


@dataclass(frozen=True, slots=True)
class LinearHead:
    """Softmax regression, and what the labels of neighbouring units are worth to each other where a family uses that.

    Attributes:
        weight: [labels, width].
        bias: [labels].
        transitions: [labels + 1, labels], added to the log-probability of a unit's label (column) by the label of the
            unit before it (row; the last row: it is the first unit); None for all zero.
    """

    weight: FloatArray
    bias: FloatArray
    transitions: FloatArray | None = None

    def probabilities(self, features: FloatArray) -> FloatArray:
        """[units, width] -> [units, labels], each unit for itself."""
        return softmax(features @ self.weight.T + self.bias)


def fit_head(features: FloatArray, targets: IntArray, n_labels: int, penalty: float) -> LinearHead:
    """The only head of `head_path` for one penalty."""
    return next(head_path(features, targets, n_labels, (penalty,)))


def head_path(
    features: FloatArray, targets: IntArray, n_labels: int, penalties: Sequence[float], iterations: int = 300
) -> Iterator[LinearHead]:
    """Multinomial logistic regression with L2 penalty on standardised features, by L-BFGS (SciPy).

    What is minimised is scikit-learn's loss, two classes included. It is sought in coordinates in which all directions
    are about equally curved (principal components, each divided by the root of its curvature), which takes several
    times fewer iterations where features are correlated. Each head is sought from where the one before it ended, so
    penalties are best given from strong to weak (Friedman, Hastie and Tibshirani 2010, section 2.5), and sums
    over units are of float32 terms, which is precise enough for what a dev part can tell apart. The standardisation is
    folded into the heads, so that they apply to raw features. Runs on one thread.

    Args:
        features: [units, width].
        targets: [units] indices of labels; units with -1 are left out.
        n_labels: Outputs of the head; labels without a unit get a bias that never wins.
        penalties: scikit-learn's C, the inverse strength of the penalty.
        iterations: Most L-BFGS iterations for each.

    Yields:
        A head for each penalty, in their order.
    """
    known = targets >= 0
    x = features[known].astype(np.float32)
    present, y = np.unique(targets[known], return_inverse=True)
    mean = x.mean(axis=0, dtype=np.float64)
    x -= mean.astype(np.float32)
    spread = np.sqrt(np.square(x).mean(axis=0, dtype=np.float64)) + 1e-6
    x /= spread.astype(np.float32)
    found = np.zeros((len(present), x.shape[1])), np.zeros(len(present))
    # In float32 the order of sums, and so the number of threads, would show in the heads.
    with _threads().limit(limits=1):
        variances, axes = np.linalg.eigh((x.T @ x).astype(np.float64) / len(x))
        for start in range(0, len(x), BLOCK):
            x[start : start + BLOCK] = x[start : start + BLOCK] @ axes.astype(np.float32)
    for penalty in penalties:
        if len(present) > 1:
            # Two classes are one logistic regression to scikit-learn, whose weights are the difference of ours.
            strength = (2.0 if len(present) == 2 else 1.0) / (penalty * len(x))
            with _threads().limit(limits=1):
                found = _minimise((x, y), np.maximum(variances, 0.0), strength, found, iterations)
        weight, bias = np.zeros((n_labels, x.shape[1])), np.full(n_labels, -1e4)
        weight[present] = found[0] @ axes.T / spread
        bias[present] = found[1] - weight[present] @ mean
        yield LinearHead(weight.astype(np.float32), bias.astype(np.float32))


Weights = tuple[npt.NDArray[np.float64], npt.NDArray[np.float64]]
"""[labels, width] and [labels]."""


def _minimise(
    data: tuple[FloatArray, IntArray], variances: npt.NDArray[np.float64], strength: float, start: Weights, most: int
) -> Weights:
    """The weights of least mean loss plus `strength` times half their square, from those at `start`."""
    from scipy.optimize import minimize

    shares = np.bincount(data[1]) / len(data[1])
    curvature = float(np.mean(shares * (1 - shares)))
    scale = np.append(1 / np.sqrt(curvature * variances + strength), 1 / np.sqrt(curvature))

    def split(flat: npt.NDArray[np.float64]) -> Weights:
        both = flat.reshape(len(shares), -1) * scale
        return both[:, :-1], both[:, -1]

    def loss(flat: npt.NDArray[np.float64]) -> tuple[float, npt.NDArray[np.float64]]:
        weight, bias = split(flat)
        value, by_weight, by_bias = mean_loss(*data, weight, bias)
        gradient = np.column_stack([by_weight + strength * weight, by_bias])
        return value + strength / 2 * float(np.square(weight).sum()), (gradient * scale).ravel()

    options = {"maxiter": most, "gtol": TOLERANCE, "ftol": 64 * np.finfo(np.float64).eps}
    first = (np.column_stack(start) / scale).ravel()
    return split(minimize(loss, first, jac=True, method="L-BFGS-B", options=options).x)


def mean_loss(
    x: FloatArray, y: IntArray, weight: npt.NDArray[np.float64], bias: npt.NDArray[np.float64]
) -> tuple[float, npt.NDArray[np.float64], npt.NDArray[np.float64]]:
    """Mean cross-entropy of softmax regression, and its gradients by weight and bias.

    Args:
        x: [units, width].
        y: [units] indices of labels.
        weight: [labels, width].
        bias: [labels].
    """
    total, by_weight, by_bias = 0.0, np.zeros_like(weight), np.zeros_like(bias)
    weight32, bias32 = weight.T.astype(np.float32), bias.astype(np.float32)
    for start in range(0, len(x), BLOCK):
        part, right = x[start : start + BLOCK], y[start : start + BLOCK]
        rows = np.arange(len(part))
        logits = part @ weight32 + bias32
        logits -= logits.max(axis=1, keepdims=True)
        total -= float(logits[rows, right].sum(dtype=np.float64))
        np.exp(logits, out=logits)
        sums = logits.sum(axis=1)
        total += float(np.log(sums).sum(dtype=np.float64))
        logits /= sums[:, None]
        logits[rows, right] -= 1
        by_weight += logits.T @ part
        by_bias += logits.sum(axis=0)
    return total / len(x), by_weight / len(x), by_bias / len(x)


@cache
def _threads() -> Any:
    from threadpoolctl import ThreadpoolController  # type: ignore[import-untyped]

    return ThreadpoolController()
