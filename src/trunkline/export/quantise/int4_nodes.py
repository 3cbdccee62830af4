"""4-bit weights and embeddings as nodes.

Unpacking is written with operators that ONNX Runtime, onnxruntime-web and OpenVINO all have. Where it depends on
constants alone, as for linear layers, runtimes do it once, when the graph is loaded.
"""

from __future__ import annotations

import numpy as np
from onnx import TensorProto

from trunkline.export.builder import CONTRIB, Builder
from trunkline.export.quantise.int4 import FRACTIONS, LOWEST, Int4Table, Int4Weight, packed
from trunkline.export.quantise.int8 import multiply_int8
from trunkline.export.weights import FloatArray

_INT8_INPUTS = 4
"""MatMulNBits' accuracy level at which it rounds inputs to 8 bits, each block of each row with its own step."""


def int4_linear(
    graph: Builder, name: str, x: str, weight: Int4Weight, bias: FloatArray, least: float | None = None
) -> str:
    """Nodes of a linear layer that is stored in 4 bits and computed in 8; arguments as for `int8_linear`."""
    numbers = _unpacked(graph, name, graph.constant(f"{name}.weight", packed(weight.numbers, 0)), 0)
    blocks, outputs = weight.steps.shape
    parts = {"blocks": [blocks, weight.block, outputs], "flat": list(weight.numbers.shape)}
    shapes = {key: _shape(graph, shape) for key, shape in parts.items()}
    apart = graph.add(f"{name}.blocks", "Reshape", [numbers, shapes["blocks"]])
    steps = graph.constant(f"{name}.steps", weight.steps[:, None, :])
    parts_of = graph.constant("fractions", np.array(1 / FRACTIONS, np.float32))
    wide = graph.add(f"{name}.step", "Mul", [graph.add(f"{name}.wide", "Cast", [steps], to=_FLOAT), parts_of])
    whole = graph.add(f"{name}.whole", "Round", [graph.add(f"{name}.scaled", "Mul", [apart, wide])])
    values = graph.add(
        f"{name}.int8", "Cast", [graph.add(f"{name}.joined", "Reshape", [whole, shapes["flat"]])], to=TensorProto.INT8
    )
    return multiply_int8(graph, name, (x, values), weight.scale, bias, least)


def int4_blocks_linear(graph: Builder, name: str, x: str, weight: Int4Weight, bias: FloatArray) -> str:
    """Nodes of a linear layer that is stored and computed in 4 bits, [n, inputs] -> [n, outputs]."""
    inputs, outputs = weight.numbers.shape
    block = weight.block
    pairs = (weight.numbers.T - LOWEST).astype(np.uint8).reshape(outputs, inputs // block, block // 2, 2)
    values = graph.constant(f"{name}.weight", pairs[..., 0] | (pairs[..., 1] << 4))
    scale = graph.constant(f"{name}.scale", np.ascontiguousarray(weight.block_steps().T).reshape(-1))
    product = graph.add(
        f"{name}.product",
        "MatMulNBits",
        [x, values, scale],
        CONTRIB,
        K=inputs,
        N=outputs,
        bits=4,
        block_size=block,
        accuracy_level=_INT8_INPUTS,
    )
    return graph.add(name, "Add", [product, graph.constant(f"{name}.bias", bias)])


def int4_embedding(graph: Builder, name: str, ids: str, table: Int4Table) -> str:
    """Nodes of an embedding, ids [rows, width] -> [rows, width, size]; only what is looked up is unpacked."""
    size, blocks = table.numbers.shape[1], table.steps.shape[1]
    looked = graph.add(f"{name}.packed", "Gather", [graph.constant(f"{name}.weight", packed(table.numbers, 1)), ids])
    numbers = _unpacked(graph, name, looked, -1)
    apart = graph.add(f"{name}.blocks", "Reshape", [numbers, _shape(graph, [0, 0, blocks, size // blocks])])
    steps = graph.add(f"{name}.steps.rows", "Gather", [graph.constant(f"{name}.steps", table.steps[:, :, None]), ids])
    scale = graph.add(
        f"{name}.scale.rows", "Gather", [graph.constant(f"{name}.scale", table.scale[:, None, None]), ids]
    )
    wide = [
        graph.add(f"{name}.{part}.wide", "Cast", [value], to=_FLOAT)
        for part, value in (("steps", steps), ("scale", scale))
    ]
    scaled = graph.add(f"{name}.scaled", "Mul", [apart, graph.add(f"{name}.step", "Mul", wide)])
    return graph.add(name, "Reshape", [scaled, _shape(graph, [0, 0, size])])


_FLOAT = TensorProto.FLOAT


def _unpacked(graph: Builder, name: str, value: str, axis: int) -> str:
    """Bytes -> float32 numbers from -8 to 7, twice as many along an axis."""
    both = graph.add(f"{name}.bytes", "Cast", [value], to=_FLOAT)
    sixteenth = graph.constant("sixteenth", np.array(1 / 16, np.float32))
    sixteen, lowest = (graph.constant(key, np.array(v, np.float32)) for key, v in (("sixteen", 16), ("eight", -LOWEST)))
    high = graph.add(f"{name}.high", "Floor", [graph.add(f"{name}.shifted", "Mul", [both, sixteenth])])
    low = graph.add(f"{name}.low", "Sub", [both, graph.add(f"{name}.upper", "Mul", [high, sixteen])])
    joined = graph.add(f"{name}.halves", "Concat", [low, high], axis=axis)
    return graph.add(f"{name}.numbers", "Sub", [joined, lowest])


def _shape(graph: Builder, shape: list[int]) -> str:
    return graph.constant("shape." + ".".join(map(str, shape)), np.array(shape))
