"""Nodes of 8-bit weights: linear layers with a step for each output, an embedding with a step for each row."""

from __future__ import annotations

import numpy as np
from onnx import TensorProto

from trunkline.engine.rounding import Int8Table, Int8Weight
from trunkline.export.builder import CONTRIB, Builder
from trunkline.export.weights import FloatArray


def int8_linear(
    graph: Builder, name: str, x: str, weight: Int8Weight, bias: FloatArray, least: float | None = None
) -> str:
    """Nodes of a linear layer, [n, inputs] -> [n, outputs].

    The operator rounds its input to 8 bits with one step for the whole run, and multiplies whole numbers.

    Args:
        graph: Receives the nodes.
        name: Of the layer.
        x: The input.
        weight: The rounded weight.
        bias: [outputs].
        least: With it, each token is divided by its largest input, or by this if that is less, before it is rounded.
    """
    values = graph.constant(f"{name}.weight", weight.values)
    return multiply_int8(graph, name, (x, values), weight.scale, bias, least)


def multiply_int8(
    graph: Builder,
    name: str,
    factors: tuple[str, str],
    scale: FloatArray,
    bias: FloatArray,
    least: float | None = None,
) -> str:
    """`int8_linear` of a weight that is an int8 value [inputs, outputs] of the graph, the second of `factors`."""
    x, values = factors
    steps, offset = graph.constant(f"{name}.scale", scale), graph.constant(f"{name}.bias", bias)
    if least is None:
        return graph.add(name, "DynamicQuantizeMatMul", [x, values, steps, "", offset], CONTRIB)
    largest = graph.add(f"{name}.largest", "ReduceMax", [x], axes=[-1], keepdims=1)
    size = graph.add(f"{name}.size", "Max", [largest, graph.constant(f"{name}.least", np.array(least, np.float32))])
    even = graph.add(f"{name}.even", "Div", [x, size])
    product = graph.add(f"{name}.product", "DynamicQuantizeMatMul", [even, values, steps], CONTRIB)
    return graph.add(name, "Add", [graph.add(f"{name}.sized", "Mul", [product, size]), offset])


def int8_embedding(graph: Builder, name: str, ids: str, table: Int8Table) -> str:
    """Nodes of an embedding, ids [rows, width] -> [rows, width, size]; only what is looked up becomes float32."""
    values = graph.add(f"{name}.rounded", "Gather", [graph.constant(f"{name}.weight", table.values), ids])
    wide = graph.add(f"{name}.wide", "Cast", [values], to=TensorProto.FLOAT)
    scale = graph.add(f"{name}.step", "Gather", [graph.constant(f"{name}.scale", table.scale[:, None]), ids])
    return graph.add(name, "Mul", [wide, scale])
