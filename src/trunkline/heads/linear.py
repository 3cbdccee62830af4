"""Linear heads over frozen features: softmax regression for many folds at a time, and the linear discriminant."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any

import numpy as np
import numpy.typing as npt

from trunkline.bundle.parts import Head

FloatArray = npt.NDArray[np.float32]
DoubleArray = npt.NDArray[np.float64]
IntArray = npt.NDArray[np.int64]

TOLERANCE = 1e-3
"""Largest entry of the preconditioned mean gradient at which a fit ends."""

ABSENT = -1e8
"""Bias of a label without a unit, which never wins; no logit of another comes near it."""

FEW_UNITS = 100
"""Units that the mean variance of all features is worth beside a feature's own, which few units hardly tell."""

SHRINKAGE = 0.5
"""Of the discriminant's covariance towards a multiple of the identity."""

NARROWEST = 0.01
"""Least variance within labels that the discriminant believes; that of all units is 1."""

STRENGTH = 1.0
"""Of the prior: the square of a factor's distance from an even share is worth half of this in nats, for each head."""

BARRED = -1e6
"""Logits below are of labels that no unit has that was trained on."""

LEAST = 0.25
"""Of an even share, the least that a head counts, so that what was learnt is not lost where few rows speak against."""

_BLOCK = 2**18
"""Most logits that one look at the loss works on at a time: 1 MB, which stays in a core's cache."""

_MEMORY, _MOST = 10, 300
"""Steps that L-BFGS remembers, and takes at most."""


@dataclass(frozen=True, slots=True)
class Solution:
    """Heads of some folds in the coordinates of `Units`: `weight` [folds, labels, axes] and `bias` [folds, labels]."""

    weight: FloatArray
    bias: FloatArray


@dataclass(frozen=True, slots=True)
class Units:
    """Labelled units in coordinates that all folds share: scaled features along their principal axes.

    Features are divided by their spreads, which few units share with each other, see `FEW_UNITS`. No more axes are kept
    than tell the units apart, so that few units make a small problem, whatever the width. `x` is [units, axes] and `y`
    [units, problems] indices of labels. There is one problem, or one for each of several yes or no; then each fold has
    all of them, one after the other, where functions here say "folds". `variances` are
    [axes]; `axes` [axes, width] take weights back to raw features, whose `mean` is [width].
    """

    x: FloatArray
    y: IntArray
    n_labels: int
    variances: DoubleArray
    axes: DoubleArray
    mean: DoubleArray

    @staticmethod
    def of(features: FloatArray, targets: IntArray, n_labels: int) -> Units:
        """Of [units, width] features and [units] or [units, problems] targets, none of them -1."""
        with one_thread():
            mean = features.mean(axis=0, dtype=np.float64)
            x = features - mean.astype(np.float32)
            own = np.square(x).mean(axis=0, dtype=np.float64)
            spread = np.sqrt((len(x) * own + FEW_UNITS * own.mean()) / (len(x) + FEW_UNITS)) + 1e-6
            x /= spread.astype(np.float32)
            few = len(x) <= x.shape[1]
            variances, axes = np.linalg.eigh((x @ x.T if few else x.T @ x).astype(np.float64) / len(x))
            kept = variances > 1e-7 * max(variances[-1], 1e-7)
            variances, axes = variances[kept], axes[:, kept]
            if few:
                axes = x.T.astype(np.float64) @ axes / np.sqrt(variances * len(x))
            x = x @ axes.astype(np.float32)
        return Units(x, targets.reshape(len(x), -1), n_labels, variances, (axes / spread[:, None]).T, mean)

    def head(self, solution: Solution, fold: int = 0) -> Head:
        """A fold's head for raw features."""
        weight = self.axes.T @ solution.weight[fold].T.astype(np.float64)
        bias = np.maximum(solution.bias[fold] - self.mean @ weight, ABSENT)
        return Head(np.ascontiguousarray(weight, np.float32), bias.astype(np.float32))

    def weights(self, trained: npt.NDArray[np.bool_], class_weight: str | None = None) -> FloatArray:
        """[problems, units] what each unit counts: nothing where it is not trained on."""
        found = np.tile(trained.astype(np.float32), (self.y.shape[1], 1))
        for own, y in zip(found if class_weight else (), self.y.T, strict=False):
            count = np.bincount(y, own, minlength=self.n_labels)
            own *= (own.sum() / (np.count_nonzero(count) * np.maximum(count, 1))).astype(np.float32)[y]
        return found

    def shares(self, masks: FloatArray) -> DoubleArray:
        """[folds, labels] share of each label among the units of each fold, by their weights."""
        own = (self.y.T[..., None] == np.arange(self.n_labels)).astype(np.float32)
        found = np.matmul(masks.reshape(-1, len(own), 1, len(self.x)), own).reshape(len(masks), -1).astype(np.float64)
        return np.asarray(found / found.sum(axis=1, keepdims=True))


def regression(
    units: Units,
    masks: FloatArray,
    penalty: float,
    covariance: FloatArray | None = None,
    *,
    start: Solution | None = None,
    tolerance: float = TOLERANCE,
) -> Solution:
    """Multinomial logistic regression with L2 penalty for each fold, by L-BFGS on all folds at once.

    What is minimised is scikit-learn's loss, two classes included. It is sought in coordinates in which all directions
    are about equally curved (principal axes, each divided by the root of its curvature), which takes several times
    fewer iterations where features are correlated. Sums over units are of float32 terms on one thread, so that the
    result does not depend on the number of threads. The search begins at `start`, by default the shares of labels.

    `masks` [folds, units] weigh each unit in each fold, 0 where it is held out; `penalty` is scikit-learn's C, the
    inverse strength. The penalty is a Gaussian prior with a `covariance` [labels, labels] of the weights of labels,
    positive definite, mean variance 1; by default the identity: weights of labels have nothing in common.
    """
    shares, total = units.shares(masks), masks.sum(axis=1, dtype=np.float64)
    # Two classes are one logistic regression to scikit-learn, whose weights are the difference of ours.
    strength = np.where((shares > 0).sum(axis=1) == 2, 2.0, 1.0) / (penalty * total)
    curvature = np.maximum((shares * (1 - shares)).sum(axis=1) / np.maximum((shares > 0).sum(axis=1), 1), 1e-6)
    rows = 1 / np.sqrt(curvature[:, None] * units.variances + strength[:, None])
    scale = np.column_stack([rows, 1 / np.sqrt(curvature)]).astype(np.float32)[:, None]
    values, vectors = np.linalg.eigh(np.eye(units.n_labels) if covariance is None else covariance.astype(np.float64))
    both_ways = ((vectors * power) @ vectors.T for power in (np.sqrt(values), 1 / np.sqrt(values)))
    root, inverse = (part.astype(np.float32) for part in both_ways)
    shape = (len(masks), units.n_labels, units.x.shape[1])

    def unpack(flat: FloatArray) -> tuple[FloatArray, Solution]:
        both = flat.reshape(*shape[:2], -1) * scale
        own = both[..., :-1]
        return own, Solution(root @ own, both[..., -1])

    def loss(flat: FloatArray) -> tuple[DoubleArray, FloatArray]:
        own, solution = unpack(flat)
        value, by_weight, by_bias = mean_loss(units, masks, solution)
        by_own = root.T @ by_weight + strength.astype(np.float32)[:, None, None] * own
        value += strength / 2 * np.square(own).sum(axis=(1, 2), dtype=np.float64)
        return value, (np.concatenate([by_own, by_bias[..., None]], axis=2) * scale).reshape(len(masks), -1)

    if start is None:
        start = Solution(np.zeros(shape, np.float32), np.log(np.maximum(shares, 1e-9)).astype(np.float32))
    bias = np.where(shares > 0, start.bias, ABSENT)
    first = (np.concatenate([inverse @ start.weight, bias[..., None]], axis=2) / scale).astype(np.float32)
    with one_thread():
        return unpack(_lbfgs(loss, first.reshape(len(masks), -1), tolerance))[1]


def mean_loss(units: Units, masks: FloatArray, heads: Solution) -> tuple[DoubleArray, FloatArray, FloatArray]:
    """Mean cross-entropy of each fold's head on its units, [folds], and its gradients by weight and bias."""
    folds, labels = heads.bias.shape
    total, by_weight = np.zeros(folds), np.zeros((folds * labels, units.x.shape[1]), np.float32)
    by_bias = np.zeros(folds * labels, np.float32)
    weight = np.ascontiguousarray(heads.weight.reshape(folds * labels, -1).T)
    block = max(64, _BLOCK // (folds * labels))
    for begin in range(0, len(units.x), block):
        part, weights = units.x[begin : begin + block], masks[:, begin : begin + block].T
        right = np.tile(units.y[begin : begin + block], folds // units.y.shape[1])
        where = np.arange(len(part))[:, None], np.arange(folds), right
        logits = (part @ weight + heads.bias.ravel()).reshape(len(part), folds, labels)
        logits -= logits.max(axis=2, keepdims=True)
        true = logits[where]
        np.exp(logits, out=logits)
        sums = logits.sum(axis=2)
        total += ((np.log(sums) - true) * weights).sum(axis=0, dtype=np.float64)
        logits *= (weights / sums)[..., None]
        logits[where] -= weights
        flat = logits.reshape(len(part), -1)
        by_weight += flat.T @ part
        by_bias += flat.sum(axis=0)
    count = masks.sum(axis=1).astype(np.float32)[:, None]
    shape = (folds, labels, -1)
    return total / count[:, 0], by_weight.reshape(shape) / count[..., None], by_bias.reshape(folds, labels) / count


def _lbfgs(loss: Callable[[FloatArray], tuple[DoubleArray, FloatArray]], z: FloatArray, tolerance: float) -> FloatArray:
    """Minimises independent problems, [problems, parameters], all in the same steps (Nocedal and Wright, 7.4).

    Each has its own directions and step lengths (backtracking until the loss falls enough, Armijo).
    """

    def dot(one: FloatArray, other: FloatArray) -> FloatArray:
        return np.einsum("fp,fp->f", one, other)

    value, gradient = loss(z)
    history: list[tuple[FloatArray, FloatArray, FloatArray]] = []
    for _ in range(_MOST):
        if not z.size or np.abs(gradient).max() < tolerance:
            break
        direction, weights = -gradient, []
        for step, change, inverse in reversed(history):
            weights.append(inverse * dot(step, direction))
            direction -= weights[-1][:, None] * change
        if history:
            step, change, _ = history[-1]
            direction *= (dot(step, change) / np.maximum(dot(change, change), 1e-30))[:, None]
        for (step, change, inverse), weight in zip(history, reversed(weights), strict=True):
            direction += (weight - inverse * dot(change, direction))[:, None] * step
        slope = dot(direction, gradient)
        direction[slope >= 0] = -gradient[slope >= 0]
        slope = np.minimum(slope, dot(direction, gradient))
        length = np.ones(len(z), np.float32)
        for _ in range(10):
            new = z + length[:, None] * direction
            new_value, new_gradient = loss(new)
            failed = new_value > value + 1e-4 * length * slope + 1e-7 * np.abs(value)
            if not failed.any():
                break
            length = np.where(failed, 0.4 * length, length).astype(np.float32)
        curve = dot(new - z, new_gradient - gradient)
        inverse = np.where(curve > 1e-12, 1 / np.maximum(curve, 1e-12), 0).astype(np.float32)
        history = [*history[1 - _MEMORY :], (new - z, new_gradient - gradient, inverse)]
        gain = (value - new_value).max()
        z, value, gradient = new, new_value, new_gradient
        if gain < 1e-7 * np.abs(value).max():
            break
    return z


def discriminant(units: Units, masks: FloatArray, shrinkage: float = SHRINKAGE) -> Solution:
    """Linear discriminant analysis with a shrunk covariance for each fold, as scikit-learn's with solver `lsqr`.

    Labels count by their shares. `shrinkage` is the share of the identity, times the mean variance of raw features, in
    the covariance; the rest is as for `regression`.
    """
    shares = units.shares(masks)
    weights, biases = [], []
    targets = np.tile(units.y.T, (len(masks) // units.y.shape[1], 1))
    with one_thread():
        for mask, share, y in zip(masks, shares, targets, strict=True):
            count = share * mask.sum(dtype=np.float64)
            labels = np.eye(units.n_labels, dtype=np.float32)[y]
            means = (labels * mask[:, None]).T @ units.x / np.maximum(count, 1e-9)[:, None]
            rest = (units.x - means.astype(np.float32)[y]) * np.sqrt(mask)[:, None]
            within = (rest.T @ rest).astype(np.float64) / count.sum()
            # One unit a label, or features that were trained on these units, say nothing of the spread within labels.
            level = max(shrinkage * np.trace(within) / len(units.mean), NARROWEST)
            shrunk = (1 - shrinkage) * within + level * np.eye(units.x.shape[1])
            weight = np.linalg.solve(shrunk, means.T).T
            weights.append(weight)
            inside = np.log(np.maximum(share, 1e-300)) - (weight * means).sum(axis=1) / 2
            biases.append(np.where(share > 0, inside, ABSENT))
    return Solution(np.asarray(weights, np.float32), np.asarray(biases, np.float32))


def factors(members: Sequence[FloatArray], targets: IntArray) -> list[float]:
    """What the logits of heads are multiplied by before they are added, so that held-out log loss is least.

    Each member is taken in units of its own spread, so that 1 is a moderate certainty. The prior of the factors is
    normal around an even share of it, which few rows hardly move: nine rows that are all right do not make a head
    certain. Many rows decide for themselves. One member alone is temperature scaling (Guo et al. 2017) with a prior;
    several are stacked (Breiman 1996).

    `members` are held-out logits of each head, [units, labels], below `BARRED` for a label that cannot win; `targets`
    are [units], none where nothing was held out, and then the prior is all.
    """
    spreads = [max(_spread(part), 1e-6) for part in members]
    found = even = np.full(len(members), 1 / len(members))
    if len(targets):
        scaled = np.stack([part / np.float32(spread) for part, spread in zip(members, spreads, strict=True)])
        state = _objective(scaled, targets, found, even)
        for _ in range(50):
            loss, gradient, curvature = state
            free = (found > LEAST * even) | (gradient < 0)
            step = np.zeros_like(found)
            step[free] = -np.linalg.solve(curvature[np.ix_(free, free)], gradient[free])
            while True:  # Newton, held back where it would go too far.
                new = np.maximum(found + step, LEAST * even)
                tried = _objective(scaled, targets, new, even)
                if tried[0] <= loss or np.abs(step).max() < 1e-6:
                    break
                step /= 2
            if tried[0] < loss:
                found, state = new, tried
            if tried[0] > loss - 1e-9 * abs(loss):
                break
    return [float(factor / spread) for factor, spread in zip(found, spreads, strict=True)]


def _spread(logits: FloatArray) -> float:
    """Standard deviation of logits around the mean of their unit, labels that cannot win left out."""
    there = logits > BARRED
    mean = np.where(there, logits, 0).sum(axis=1, keepdims=True) / np.maximum(there.sum(axis=1, keepdims=True), 1)
    return float(np.sqrt(np.square(logits - mean)[there].mean(dtype=np.float64)))


def _objective(
    scaled: FloatArray, targets: IntArray, found: DoubleArray, even: DoubleArray
) -> tuple[float, DoubleArray, DoubleArray]:
    """Log loss and prior in nats, their gradient and curvature by the factors."""
    rows = np.arange(len(targets))
    logits = np.tensordot(found.astype(np.float32), scaled, 1)
    logits -= logits.max(axis=1, keepdims=True)
    chances = np.exp(logits)
    sums = chances.sum(axis=1, keepdims=True)
    chances /= sums
    loss = float((np.log(sums[:, 0]) - logits[rows, targets]).sum(dtype=np.float64))
    means = np.einsum("mnk,nk->mn", scaled, chances)
    # Labels that cannot win have no chance, and their square would not fit.
    spread = np.where(chances > 0, scaled - means[..., None], 0)
    curvature = np.einsum("mnk,onk->mo", spread * chances, spread, dtype=np.float64)
    gradient = (means - scaled[:, rows, targets]).sum(axis=1, dtype=np.float64)
    strength = STRENGTH * len(found)
    loss += strength / 2 * float(np.square(found - even).sum())
    return loss, gradient + strength * (found - even), curvature + strength * np.eye(len(found))


def log_losses(logits: FloatArray, targets: IntArray) -> DoubleArray:
    """[units] log losses in nats."""
    top = logits.max(axis=1, keepdims=True)
    sums = np.log(np.exp(logits - top).sum(axis=1, dtype=np.float64)) + top[:, 0]
    return np.asarray(sums - logits[np.arange(len(targets)), targets])


@cache
def _controller() -> Any:
    from threadpoolctl import ThreadpoolController  # type: ignore[import-untyped]

    return ThreadpoolController()


def one_thread() -> Any:
    """A context in which products run on one thread: the order of sums, and so the number of threads, would show."""
    return _controller().limit(limits=1)
