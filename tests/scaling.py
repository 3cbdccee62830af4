"""Features as heads scale them, by a few lines of their own."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np


def scaler_of(features: np.ndarray, worth: int = 100) -> Callable[[np.ndarray], np.ndarray]:
    """Takes the mean off and divides by spreads, whose squares are means with a `worth` of units of average spread."""
    mean, variance, count = features.mean(0, dtype=np.float64), features.var(0, dtype=np.float64), len(features)
    spread = np.sqrt((count * variance + worth * variance.mean()) / (count + worth))
    return lambda rows: (rows - mean) / spread


def scaled(features: np.ndarray) -> np.ndarray:
    return scaler_of(features)(features)
