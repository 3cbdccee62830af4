"""Linear heads over frozen features, fitted by convex optimisation."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any

import numpy as np
import numpy.typing as npt

from trunkline.decoding.paths import softmax

FloatArray = npt.NDArray[np.float32]
IntArray = npt.NDArray[np.int64]

TOLERANCE = 3e-4
"""Largest entry of the mean gradient, on standardised features, at which a fit ends."""


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
    """Multinomial logistic regression with L2 penalty by L-BFGS (scikit-learn), on standardised features.

    Each head is sought from where the one before it ended, so penalties are best given from strong to weak (Friedman,
    Hastie and Tibshirani 2010, section 2.5), and all in float32, which is precise enough for what a dev part can tell
    apart. The standardisation is folded into the heads, so that they apply to raw features. Runs on one thread.

    Args:
        features: [units, width].
        targets: [units] indices of labels; units with -1 are left out.
        n_labels: Outputs of the head; labels without a unit get a bias that never wins.
        penalties: scikit-learn's C, the inverse strength of the penalty.
        iterations: Most L-BFGS iterations for each.

    Yields:
        A head for each penalty, in their order.
    """
    from sklearn.exceptions import ConvergenceWarning
    from sklearn.linear_model import LogisticRegression

    known = targets >= 0
    x, y = features[known].astype(np.float32), targets[known]
    mean = x.mean(axis=0, dtype=np.float64)
    x -= mean.astype(np.float32)
    spread = np.sqrt(np.square(x).mean(axis=0, dtype=np.float64)) + 1e-6
    x /= spread.astype(np.float32)
    present = np.unique(y)
    model = LogisticRegression(max_iter=iterations, tol=TOLERANCE, warm_start=True)
    for penalty in penalties:
        weight = np.zeros((n_labels, x.shape[1]))
        bias = np.full(n_labels, -1e4)
        if len(present) == 1:
            bias[present] = 0.0
        else:
            # In float32 the order of sums, and so the number of threads, would show in the heads.
            with warnings.catch_warnings(), _threads().limit(limits=1):
                warnings.simplefilter("ignore", ConvergenceWarning)
                model.set_params(C=penalty).fit(x, y)
            coefficients, intercepts = model.coef_, model.intercept_
            if len(present) == 2:
                coefficients = np.concatenate([-coefficients, coefficients]) / 2
                intercepts = np.concatenate([-intercepts, intercepts]) / 2
            weight[present] = coefficients / spread
            bias[present] = intercepts - weight[present] @ mean
        yield LinearHead(weight.astype(np.float32), bias.astype(np.float32))


@cache
def _threads() -> Any:
    from threadpoolctl import ThreadpoolController  # type: ignore[import-untyped]

    return ThreadpoolController()


def best_head(
    features: FloatArray,
    targets: IntArray,
    n_labels: int,
    penalties: Sequence[float],
    finish: Callable[[LinearHead], tuple[LinearHead, float]],
) -> tuple[LinearHead, float, float]:
    """Fits a head for each penalty, from strong to weak, and keeps the best; the stronger penalty wins ties.

    Args:
        features: As for `head_path`.
        targets: As for `head_path`.
        n_labels: As for `head_path`.
        penalties: The candidates.
        finish: Returns a head with whatever is to be added to it, and its score.

    Returns:
        The finished head, its penalty and its score.
    """
    ordered = sorted(penalties)
    finished = (finish(head) for head in head_path(features, targets, n_labels, ordered))
    scored = [(head, penalty, score) for (head, score), penalty in zip(finished, ordered, strict=True)]
    return max(scored, key=lambda item: item[2])
