"""Rounding weights to 8 bits, on numpy alone: an export and the first start of the default model do the same.

In an encoder a few channels of a layer's input are far larger than the others. With one step for a whole run, 8 bits
are spent on them, and little is left for the rest. SmoothQuant (Xiao, Lin, Seznec, Wu, Demouth and Han 2023, arXiv
2211.10438) divides each channel of the input by a factor and multiplies the weights that read it by the same factor.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

FloatArray = npt.NDArray[np.float32]
Int8Array = npt.NDArray[np.int8]

LEAST_CHANNEL = 1e-3
"""The least share of the largest channel that a channel counts as: one that calibration never saw must not explode."""

LEAST_TOKEN = 0.01
"""The least share of the largest input in calibration that a token is divided by: one of small or negative inputs alone
must not become an outlier."""

SMALLEST = 1e-6
"""Keeps a layer whose inputs are all zero from being divided by zero."""

CHUNK = 2**19
"""Numbers that are rounded at once: they stay in a core's own cache."""


@dataclass(frozen=True, slots=True)
class Int8Weight:
    """`values` [inputs, outputs] times `scale` [outputs]."""

    values: Int8Array
    scale: FloatArray

    def weight(self) -> FloatArray:
        """[inputs, outputs] in float32."""
        return self.values * self.scale


@dataclass(frozen=True, slots=True)
class Int8Table:
    """`values` [rows, size] times `scale` [rows]."""

    values: Int8Array
    scale: FloatArray

    def table(self) -> FloatArray:
        """[rows, size] in float32."""
        return self.values * self.scale[:, None]


def round_int8(weight: FloatArray, steps: int = 127) -> Int8Weight:
    """Rounds each column of a weight [inputs, outputs] to whole numbers up to `steps`, times a scale of its own."""
    values, scale = _rounded(weight.T, steps)
    return Int8Weight(np.ascontiguousarray(values.T), scale)


def round_table_int8(table: FloatArray) -> Int8Table:
    """Rounds each row of an embedding [rows, size] to whole numbers up to 127, times a scale of its own."""
    return Int8Table(*_rounded(table, 127))


def smoothing(weight: FloatArray, largest: FloatArray, alpha: float) -> FloatArray:
    """The factor of each input channel, `max|x|^alpha / max|w|^(1 - alpha)` (equation 4), with mean logarithm 0.

    Args:
        weight: [inputs, outputs].
        largest: [inputs], from a calibration.
        alpha: 0 gives factors of 1.

    Returns:
        [inputs]; inputs are to be divided by it, the rows of the weight to be multiplied by it.
    """
    if not alpha or not largest.any():
        return np.ones(len(weight), np.float32)
    inputs = np.maximum(largest, LEAST_CHANNEL * largest.max()).astype(np.float64)
    rows = np.maximum(weight.max(axis=1), -weight.min(axis=1)).astype(np.float64)
    rows = np.maximum(rows, LEAST_CHANNEL * max(rows.max(), np.finfo(np.float32).tiny))
    logarithm = alpha * np.log(inputs) - (1 - alpha) * np.log(rows)
    return np.asarray(np.exp(logarithm - logarithm.mean()), np.float32)


def least_of_tokens(largest: FloatArray, smooth: FloatArray) -> float:
    """The least number that the inputs of a token are divided by, where each token has a step of its own."""
    return LEAST_TOKEN * max(float((largest / smooth).max()), SMALLEST)


def _rounded(rows: FloatArray, steps: int) -> tuple[Int8Array, FloatArray]:
    values, scale = np.empty(rows.shape, np.int8), np.empty(len(rows), np.float32)
    height = max(1, CHUNK // max(1, rows.shape[1]))
    for begin in range(0, len(rows), height):
        part = np.s_[begin : begin + height]
        largest = np.maximum(rows[part].max(axis=1), -rows[part].min(axis=1))
        scale[part] = np.where(largest > 0, largest / steps, 1)
        exact = rows[part] / scale[part, None]
        values[part] = np.rint(exact, out=exact)
    return values, scale
