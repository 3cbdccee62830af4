"""Linear heads over frozen features, fitted by convex optimisation."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

FloatArray = npt.NDArray[np.float32]
IntArray = npt.NDArray[np.int64]


@dataclass(frozen=True, slots=True)
class LinearHead:
    """Softmax regression: `weight` [labels, width], `bias` [labels]."""

    weight: FloatArray
    bias: FloatArray

    def probabilities(self, features: FloatArray) -> FloatArray:
        """[units, width] -> [units, labels]."""
        logits = features @ self.weight.T + self.bias
        exponents = np.exp(logits - logits.max(axis=1, keepdims=True))
        return np.asarray(exponents / exponents.sum(axis=1, keepdims=True), dtype=np.float32)


def fit_head(
    features: FloatArray, targets: IntArray, n_labels: int, penalty: float, iterations: int = 300
) -> LinearHead:
    """Multinomial logistic regression with L2 penalty by L-BFGS (scikit-learn), on standardised features.

    The standardisation is folded into the head, so that it applies to raw features.

    Args:
        features: [units, width].
        targets: [units] indices of labels; units with -1 are left out.
        n_labels: Outputs of the head; labels without a unit get a bias that never wins.
        penalty: scikit-learn's C, the inverse strength of the penalty.
        iterations: Most L-BFGS iterations.
    """
    from sklearn.exceptions import ConvergenceWarning
    from sklearn.linear_model import LogisticRegression

    known = targets >= 0
    x, y = features[known].astype(np.float64), targets[known]
    mean, spread = x.mean(axis=0), x.std(axis=0) + 1e-6
    present = np.unique(y)
    weight = np.zeros((n_labels, features.shape[1]))
    bias = np.full(n_labels, -1e4)
    if len(present) == 1:
        bias[present] = 0.0
        return LinearHead(weight.astype(np.float32), bias.astype(np.float32))
    model = LogisticRegression(C=penalty, max_iter=iterations, tol=1e-4)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)
        model.fit((x - mean) / spread, y)
    coefficients, intercepts = model.coef_, model.intercept_
    if len(present) == 2:
        coefficients = np.concatenate([-coefficients, coefficients]) / 2
        intercepts = np.concatenate([-intercepts, intercepts]) / 2
    weight[present] = coefficients / spread
    bias[present] = intercepts - weight[present] @ mean
    return LinearHead(weight.astype(np.float32), bias.astype(np.float32))


def best_head(
    features: FloatArray,
    targets: IntArray,
    n_labels: int,
    penalties: Sequence[float],
    score: Callable[[LinearHead], float],
) -> tuple[LinearHead, float, float]:
    """Fits a head for each penalty and keeps the best by `score`; the smaller C wins ties.

    Returns:
        The head, its penalty and its score.
    """
    fitted = [(fit_head(features, targets, n_labels, penalty), penalty) for penalty in sorted(penalties)]
    scored = [(head, penalty, score(head)) for head, penalty in fitted]
    return max(scored, key=lambda item: item[2])
