"""4-bit weights in blocks along the input, rounded with the errors of earlier inputs taken up by later ones.

A weight is a whole number from -8 to 7 times a step that a block of inputs shares. A block's step is itself a whole
number of eighths of the output's 8-bit step, so that a weight in 4 bits is at once one in 8 bits, and can be computed
with as such: `values = round(numbers * steps / 8)`, to be multiplied by `scale`.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from trunkline.engine.rounding import Arrays, FloatArray, Int8Array
from trunkline.errors import TrunklineError

LOWEST, HIGHEST, MOST = -8, 7, 127
"""Whole numbers in 4 bits, and the largest in 8."""

FRACTIONS = 8
"""Parts of an 8-bit step in which a block's step is counted."""

SHRINK = np.linspace(0.7, 1.1, 17, dtype=np.float32)
"""Block steps that are tried, as shares of the one that just reaches the largest weight."""

DAMPING = 0.01
"""Share of the mean square of inputs that is added to each, as Frantar et al. 2023 do, so that it can be inverted."""


def int4_linear(name: str, weight: FloatArray, block: int, moments: FloatArray | None = None) -> Arrays:
    """A linear weight [inputs, outputs] in 4 bits: `.steps` [blocks, 1, outputs], `.scale` [outputs]."""
    numbers, steps, scale = round_int4(weight, block, moments)
    return {f"{name}.weight": packed(numbers, 0), f"{name}.steps": steps[:, None], f"{name}.scale": scale}


def int4_table(name: str, table: FloatArray, block: int) -> Arrays:
    """An embedding [rows, size] in 4 bits: `.steps` [rows, blocks, 1], `.scale` [rows, 1, 1]."""
    numbers, steps, scale = round_table_int4(table, block)
    found: Arrays = {f"{name}.weight": packed(numbers, 1), f"{name}.steps": steps[:, :, None]}
    return found | {f"{name}.scale": scale[:, None, None]}


def packed(numbers: Int8Array, axis: int) -> npt.NDArray[np.uint8]:
    """Two numbers a byte: the first half of an axis in the lower bits, the second half in the upper ones."""
    low, high = np.split((numbers - LOWEST).astype(np.uint8), 2, axis=axis)
    return np.asarray(low | (high << 4), np.uint8)


def round_int4(
    weight: FloatArray, block: int, moments: FloatArray | None = None
) -> tuple[Int8Array, Int8Array, FloatArray]:
    """Rounds a weight to 4 bits.

    Args:
        weight: [inputs, outputs].
        block: The most inputs that share a step; the largest divisor of the number of inputs up to it is taken.
        moments: Mean products of inputs, [inputs, inputs]; with them, the error of each input is made up for by the
            inputs behind it (GPTQ: Frantar, Ashkboos, Hoefler and Alistarh 2023, arXiv 2210.17323, algorithm 1).

    Returns:
        Numbers [inputs, outputs] from -8 to 7, steps [inputs / block, outputs], scale [outputs].

    Raises:
        TrunklineError: An odd number of inputs, which 4 bits cannot hold in bytes.
    """
    inputs = len(weight)
    block = _block(inputs, block, "a linear layer")
    blocks = weight.reshape(-1, block, weight.shape[1])
    scale = np.abs(_best_steps(blocks)).max(axis=0) * (-LOWEST / MOST)
    scale = np.where(scale > 0, scale, 1).astype(np.float32)
    carry = _carry(moments) if moments is not None else np.eye(inputs, dtype=np.float32)
    rest = weight.astype(np.float32)
    numbers = np.zeros(weight.shape, np.int8)
    taken = np.zeros((inputs // block, weight.shape[1]), np.int8)
    for number, begin in enumerate(range(0, inputs, block)):
        end = begin + block
        ideal = _best_steps(rest[None, begin:end])[0]
        whole = np.clip(np.rint(ideal / scale * FRACTIONS), -MOST, MOST)
        taken[number] = np.where(whole == 0, 1, whole)
        errors = np.zeros((block, weight.shape[1]), np.float32)
        step = taken[number].astype(np.float32) / FRACTIONS
        for place in range(begin, end):
            nearest = np.clip(np.rint(rest[place] / (step * scale)), LOWEST, HIGHEST)
            numbers[place] = nearest
            errors[place - begin] = (rest[place] - np.rint(nearest * step) * scale) / carry[place, place]
            rest[place + 1 : end] -= carry[place, place + 1 : end, None] * errors[place - begin]
        rest[end:] -= carry[begin:end, end:].T @ errors
    return numbers, taken, scale


def _block(size: int, most: int, what: str) -> int:
    """The largest divisor of an even size that is at most `most`."""
    if size % 2:
        raise TrunklineError(f"{what} of width {size} in 4 bits", expected="an even width", todo="Choose int8")
    return next(number for number in range(min(size, most), 0, -1) if size % number == 0)


def _best_steps(blocks: FloatArray) -> FloatArray:
    """[blocks, block, outputs] -> the steps [blocks, outputs] with the least squared error.

    There is one more number below zero than above; a negative step puts it on the side of the largest weight.
    """
    place = np.abs(blocks).argmax(axis=1, keepdims=True)
    full = np.take_along_axis(blocks, place, axis=1) / np.float32(LOWEST)
    full = np.where(full == 0, np.float32(1e-12), full)
    best, least = full, np.full(full.shape, np.inf, np.float32)
    for share in SHRINK:
        step = full * share
        found = np.clip(np.rint(blocks / step), LOWEST, HIGHEST) * step
        error = np.square(blocks - found).sum(axis=1, keepdims=True)
        best, least = np.where(error < least, step, best), np.minimum(error, least)
    return np.asarray(best[:, 0], np.float32)


def _carry(moments: FloatArray) -> FloatArray:
    """The upper triangle U with U^T U the inverse of the damped moments (step 1 of the algorithm)."""
    damped = moments.astype(np.float64)
    mean = float(np.diag(damped).mean()) or 1.0
    damped[np.diag_indices_from(damped)] += DAMPING * mean
    return np.asarray(np.linalg.cholesky(np.linalg.inv(damped)).T, np.float32)


def round_table_int4(table: FloatArray, block: int) -> tuple[Int8Array, Int8Array, npt.NDArray[np.float16]]:
    """Rounds an embedding [rows, size] to 4 bits in blocks of at most `block` numbers.

    Returns:
        Numbers [rows, size] from -8 to 7, steps [rows, blocks], scale [rows].

    Raises:
        TrunklineError: An odd size, or values beyond what float16 can hold.
    """
    block = _block(table.shape[1], block, "an embedding")
    if np.abs(table).max(initial=0) > np.finfo(np.float16).max:
        raise TrunklineError("an embedding with values beyond the range of float16", todo="Choose int8")
    blocks = np.ascontiguousarray(table.reshape(len(table), -1, block).transpose(1, 2, 0))
    ideal = _best_steps(blocks).T
    scale = np.maximum(np.abs(ideal).max(axis=1) / 127, np.finfo(np.float16).tiny).astype(np.float16)
    whole = np.clip(np.rint(ideal / scale[:, None].astype(np.float32)), -127, 127)
    steps = np.where(whole == 0, 1, whole).astype(np.int8)
    step = np.repeat(steps * scale[:, None].astype(np.float32), block, axis=1)
    return np.clip(np.rint(table / step), LOWEST, HIGHEST).astype(np.int8), steps, scale
