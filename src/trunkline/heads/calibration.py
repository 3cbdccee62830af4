"""From held-out logits to probabilities: how much each of some heads counts, by log loss with a prior."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

FloatArray = npt.NDArray[np.float32]
DoubleArray = npt.NDArray[np.float64]
IntArray = npt.NDArray[np.int64]

STRENGTH = 1.0
"""Of the prior: the square of a factor's distance from an even share is worth half of this in nats, for each head."""

BARRED = -1e6
"""Logits below are of labels that no unit has that was trained on."""

LEAST = 0.25
"""Of an even share, the least that a head counts, so that what was learnt is not lost where few rows speak against."""


def factors(members: Sequence[FloatArray], targets: IntArray) -> list[float]:
    """What the logits of heads are multiplied by before they are added, so that held-out log loss is least.

    Each member is taken in units of its own spread, so that 1 is a moderate certainty. The prior of the factors is
    normal around an even share of it, which few rows hardly move: nine rows that are all right do not make a head
    certain. Many rows decide for themselves. One member alone is temperature scaling (Guo et al. 2017) with a prior;
    several are stacked (Breiman 1996).

    Args:
        members: For each head held-out logits, [units, labels]; a label that cannot win is below `BARRED`.
        targets: [units]; none where nothing was held out, and then the prior is all.
    """
    spreads = [max(_spread(part), 1e-6) for part in members]
    found = even = np.full(len(members), 1 / len(members))
    if len(targets):
        scaled = np.stack([part / np.float32(spread) for part, spread in zip(members, spreads, strict=True)])
        loss, gradient, curvature = _objective(scaled, targets, found, even)
        for _ in range(50):
            free = (found > LEAST * even) | (gradient < 0)
            step = np.zeros_like(found)
            step[free] = -np.linalg.solve(curvature[np.ix_(free, free)], gradient[free])
            while True:  # Newton, held back where it would go too far.
                new = np.maximum(found + step, LEAST * even)
                tried = _objective(scaled, targets, new, even)
                if tried[0] <= loss or np.abs(step).max() < 1e-6:
                    break
                step /= 2
            done = tried[0] > loss - 1e-9 * abs(loss)
            if tried[0] < loss:
                found, (loss, gradient, curvature) = new, tried
            if done:
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
