"""4-bit weights in blocks along the input, rounded with the errors of earlier inputs taken up by later ones.

A weight is a whole number from -8 to 7 times a step that a block of inputs shares. A block's step is itself a whole
number of eighths of the output's 8-bit step, so that a weight in 4 bits is at once one in 8 bits, and can be computed
with as such: `values = round(numbers * steps / 8)`, to be multiplied by `scale`.

Nodes unpack with operators that ONNX Runtime, onnxruntime-web and OpenVINO all have. Where that depends on constants
alone, as for linear layers, runtimes do it once, when the graph is loaded.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from onnx import TensorProto

from trunkline.engine.rounding import FloatArray, Int8Array, Int8Weight
from trunkline.errors import TrunklineError
from trunkline.export.builder import CONTRIB, Builder

LOWEST, HIGHEST, MOST = -8, 7, 127
"""Whole numbers in 4 bits, and the largest in 8."""

FRACTIONS = 8
"""Parts of an 8-bit step in which a block's step is counted."""

SHRINK = np.linspace(0.7, 1.1, 17, dtype=np.float32)
"""Block steps that are tried, as shares of the one that just reaches the largest weight."""

DAMPING = 0.01
"""Share of the mean square of inputs that is added to each, as Frantar et al. 2023 do, so that it can be inverted."""


@dataclass(frozen=True, slots=True)
class Int4Weight:
    """`numbers` [inputs, outputs] from -8 to 7, `steps` [inputs / block, outputs], `scale` [outputs]."""

    numbers: Int8Array
    steps: Int8Array
    scale: FloatArray

    @property
    def block(self) -> int:
        """Inputs that share a step."""
        return len(self.numbers) // len(self.steps)

    def int8(self) -> Int8Weight:
        """The same weight in 8 bits."""
        wide = np.repeat(self.steps.astype(np.float32), self.block, axis=0)
        return Int8Weight(np.rint(self.numbers * wide / FRACTIONS).astype(np.int8), self.scale)


def round_int4(weight: FloatArray, block: int, moments: FloatArray | None = None) -> Int4Weight:
    """Rounds a weight to 4 bits.

    Args:
        weight: [inputs, outputs].
        block: The most inputs that share a step; the largest divisor of the number of inputs up to it is taken.
        moments: Mean products of inputs, [inputs, inputs]; with them, the error of each input is made up for by the
            inputs behind it (GPTQ: Frantar, Ashkboos, Hoefler and Alistarh 2023, arXiv 2210.17323, algorithm 1).

    Raises:
        TrunklineError: An odd number of inputs, which 4 bits cannot hold in bytes.
    """
    inputs = _even(len(weight), "a linear layer")
    block = divisor(inputs, block)
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
        for place in range(begin, end):
            numbers[place], found = _nearest(rest[place], taken[number], scale)
            errors[place - begin] = (rest[place] - found) / carry[place, place]
            rest[place + 1 : end] -= carry[place, place + 1 : end, None] * errors[place - begin]
        rest[end:] -= carry[begin:end, end:].T @ errors
    return Int4Weight(numbers, taken, scale)


def _even(size: int, what: str) -> int:
    if size % 2:
        raise TrunklineError(f"{what} of width {size} in 4 bits", expected="an even width", todo="Choose int8")
    return size


def divisor(size: int, most: int) -> int:
    """The largest divisor of `size` that is at most `most`."""
    return next(number for number in range(min(size, most), 0, -1) if size % number == 0)


def _nearest(row: FloatArray, steps: Int8Array, scale: FloatArray) -> tuple[Int8Array, FloatArray]:
    step = steps.astype(np.float32) / FRACTIONS
    numbers = np.clip(np.rint(row / (step * scale)), LOWEST, HIGHEST)
    return numbers.astype(np.int8), np.rint(numbers * step) * scale


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


@dataclass(frozen=True, slots=True)
class Int4Table:
    """`numbers` [rows, size] from -8 to 7, `steps` [rows, blocks], `scale` [rows] in float16."""

    numbers: Int8Array
    steps: Int8Array
    scale: npt.NDArray[np.float16]

    def table(self) -> FloatArray:
        """[rows, size] in float32."""
        step = self.steps.astype(np.float32) * self.scale[:, None].astype(np.float32)
        wide = np.repeat(step, self.numbers.shape[1] // self.steps.shape[1], axis=1)
        return np.asarray(self.numbers * wide, np.float32)


def round_table_int4(table: FloatArray, block: int) -> Int4Table:
    """Rounds an embedding [rows, size] to 4 bits in blocks of at most `block` numbers.

    Raises:
        TrunklineError: An odd size, or values beyond what float16 can hold.
    """
    rows, size = len(table), _even(table.shape[1], "an embedding")
    if np.abs(table).max(initial=0) > np.finfo(np.float16).max:
        raise TrunklineError("an embedding with values beyond the range of float16", todo="Choose int8")
    block = divisor(size, block)
    blocks = np.ascontiguousarray(table.reshape(rows, -1, block).transpose(1, 2, 0))
    ideal = _best_steps(blocks).T
    scale = np.maximum(np.abs(ideal).max(axis=1) / 127, np.finfo(np.float16).tiny).astype(np.float16)
    whole = np.clip(np.rint(ideal / scale[:, None].astype(np.float32)), -127, 127)
    steps = np.where(whole == 0, 1, whole).astype(np.int8)
    step = np.repeat(steps * scale[:, None].astype(np.float32), block, axis=1)
    return Int4Table(np.clip(np.rint(table / step), LOWEST, HIGHEST).astype(np.int8), steps, scale)


def packed(numbers: Int8Array, axis: int) -> npt.NDArray[np.uint8]:
    """Two numbers a byte: the first half of an axis in the lower bits, the second half in the upper ones."""
    low, high = np.split((numbers - LOWEST).astype(np.uint8), 2, axis=axis)
    return np.asarray(low | (high << 4), np.uint8)


def int4_linear(
    graph: Builder, name: str, x: str, weight: Int4Weight, bias: FloatArray, least: float | None = None
) -> str:
    """Nodes of a linear layer that is stored in 4 bits and computed in 8; see `multiply_int8`."""
    numbers = _unpacked(graph, name, graph.constant(f"{name}.weight", packed(weight.numbers, 0)), 0)
    blocks, outputs = weight.steps.shape
    apart = graph.add(f"{name}.blocks", "Reshape", [numbers, _shape(graph, [blocks, weight.block, outputs])])
    steps = graph.constant(f"{name}.steps", weight.steps[:, None, :])
    fractions = graph.constant("fractions", np.array(1 / FRACTIONS, np.float32))
    wide = graph.add(f"{name}.wide", "Cast", [steps], to=TensorProto.FLOAT)
    scaled = graph.add(f"{name}.scaled", "Mul", [apart, graph.add(f"{name}.step", "Mul", [wide, fractions])])
    whole = graph.add(f"{name}.whole", "Round", [scaled])
    joined = graph.add(f"{name}.joined", "Reshape", [whole, _shape(graph, list(weight.numbers.shape))])
    values = graph.add(f"{name}.int8", "Cast", [joined], to=TensorProto.INT8)
    return multiply_int8(graph, name, (x, values), weight.scale, bias, least)


def int4_embedding(graph: Builder, name: str, ids: str, table: Int4Table) -> str:
    """Nodes of an embedding, ids [rows, width] -> [rows, width, size]; only what is looked up is unpacked."""
    size, blocks = table.numbers.shape[1], table.steps.shape[1]
    looked = graph.add(f"{name}.packed", "Gather", [graph.constant(f"{name}.weight", packed(table.numbers, 1)), ids])
    numbers = _unpacked(graph, name, looked, -1)
    apart = graph.add(f"{name}.blocks", "Reshape", [numbers, _shape(graph, [0, 0, blocks, size // blocks])])
    wide = []
    for part, value in (("steps", table.steps[:, :, None]), ("scale", table.scale[:, None, None])):
        rows = graph.add(f"{name}.{part}.rows", "Gather", [graph.constant(f"{name}.{part}", value), ids])
        wide.append(graph.add(f"{name}.{part}.wide", "Cast", [rows], to=TensorProto.FLOAT))
    scaled = graph.add(f"{name}.scaled", "Mul", [apart, graph.add(f"{name}.step", "Mul", wide)])
    return graph.add(name, "Reshape", [scaled, _shape(graph, [0, 0, size])])


def _unpacked(graph: Builder, name: str, value: str, axis: int) -> str:
    """Bytes -> float32 numbers from -8 to 7, twice as many along an axis."""
    both = graph.add(f"{name}.bytes", "Cast", [value], to=TensorProto.FLOAT)
    sixteenth = graph.constant("sixteenth", np.array(1 / 16, np.float32))
    sixteen, lowest = (graph.constant(key, np.array(v, np.float32)) for key, v in (("sixteen", 16), ("eight", -LOWEST)))
    high = graph.add(f"{name}.high", "Floor", [graph.add(f"{name}.shifted", "Mul", [both, sixteenth])])
    low = graph.add(f"{name}.low", "Sub", [both, graph.add(f"{name}.upper", "Mul", [high, sixteen])])
    joined = graph.add(f"{name}.halves", "Concat", [low, high], axis=axis)
    return graph.add(f"{name}.numbers", "Sub", [joined, lowest])


def _shape(graph: Builder, shape: list[int]) -> str:
    return graph.constant("shape." + ".".join(map(str, shape)), np.array(shape))


def multiply_int8(
    graph: Builder,
    name: str,
    factors: tuple[str, str],
    scale: FloatArray,
    bias: FloatArray,
    least: float | None = None,
) -> str:
    """A linear layer of inputs and an int8 weight [inputs, outputs], both values of the graph.

    The operator rounds its inputs to 8 bits with one step for the whole run, and multiplies whole numbers. With
    `least`, each token is divided by its largest input, or by this if that is less, before it is rounded.
    """
    x, values = factors
    steps, offset = graph.constant(f"{name}.scale", scale), graph.constant(f"{name}.bias", bias)
    if least is None:
        return graph.add(name, "DynamicQuantizeMatMul", [x, values, steps, "", offset], CONTRIB)
    largest = graph.add(f"{name}.largest", "ReduceMax", [x], axes=[-1], keepdims=1)
    size = graph.add(f"{name}.size", "Max", [largest, graph.constant(f"{name}.least", np.array(least, np.float32))])
    even = graph.add(f"{name}.even", "Div", [x, size])
    product = graph.add(f"{name}.product", "DynamicQuantizeMatMul", [even, values, steps], CONTRIB)
    return graph.add(name, "Add", [graph.add(f"{name}.sized", "Mul", [product, size]), offset])
