"""Rounded weights: the plan, the weights after smoothing and rounding, and the kernels that graphs are built with."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from types import MappingProxyType
from typing import Literal, get_args

import numpy as np
from onnx import TensorProto

from trunkline.bundle.lora import SLOTS
from trunkline.engine.rounding import (
    Int8Table,
    Int8Weight,
    least_of_tokens,
    round_int8,
    round_table_int8,
    smoothing,
)
from trunkline.errors import MismatchError, TrunklineError
from trunkline.export.builder import Builder
from trunkline.export.layers import Kernels, gather, gemm
from trunkline.export.quantise.int4 import (
    Int4Table,
    Int4Weight,
    int4_embedding,
    int4_linear,
    multiply_int8,
    round_int4,
    round_table_int4,
)
from trunkline.export.quantise.smooth import Calibration
from trunkline.export.weights import BackboneWeights, FloatArray, Linear, linear_layers, with_linear_layers

Scheme = Literal["float32", "int8", "int4"]
"""`int8`: a step for each output of a layer or row of the embedding; inputs of layers in 8 bits with one step a run.
`int4`: a step for each block of weights; layers are unpacked to int8 when the graph is loaded, and then as fast as
int8, the embedding where it is looked up."""


@dataclass(frozen=True, slots=True)
class Plan:
    """How a backbone is quantised.

    Attributes:
        linear: The scheme of linear layers.
        embedding: That of the word embedding.
        alpha: How much of the spread of inputs goes over to weights (Xiao et al. 2023, arXiv 2211.10438, equation 4);
            0 leaves inputs as they are.
        per_token: Kinds of layers whose inputs have a step for each token, with one zero for all, in place of one step
            a run. It pays for `down`, whose inputs differ most from token to token, and costs four small nodes.
        block: The most weights that share a step in 4 bits.
    """

    linear: Scheme = "int8"
    embedding: Scheme = "int8"
    alpha: float = 0.8
    per_token: tuple[str, ...] = ("down",)
    block: int = 32

    def __post_init__(self) -> None:
        known = {*get_args(Scheme)}
        if not ({self.linear, self.embedding} <= known and {*self.per_token} <= {*SLOTS} and 0 <= self.alpha < 1):
            raise TrunklineError(f"a plan with {self}", expected="known schemes and layers, an alpha from 0 to below 1")

    def facts(self) -> dict[str, str]:
        """What readers of a model find in its metadata."""
        found: dict[str, str] = {"weights": self.linear, "embedding": self.embedding}
        if self.linear != "float32":
            found |= {"smoothing": f"{self.alpha:g}", "per_token": ",".join(self.per_token)}
        return found | ({"block": str(self.block)} if "int4" in found.values() else {})


PLANS: Mapping[str, Plan] = MappingProxyType(
    {"float32": Plan("float32", "float32"), "int8": Plan(), "int4": Plan("int4", "int4")}
)
"""The plans that have a name."""


@dataclass(frozen=True, slots=True)
class Rounded:
    """A rounded linear layer.

    Attributes:
        weight: After its rows were multiplied by `smooth`.
        smooth: [inputs]; inputs are divided by it before they are rounded.
        least: The least number that a token's inputs are divided by before they are rounded; None if all tokens have
            the same step.
    """

    weight: Int8Weight | Int4Weight
    smooth: FloatArray
    least: float | None = None


def quantise(weights: BackboneWeights, plan: Plan, calibration: Calibration | None) -> dict[str, Rounded]:
    """Rounds every linear layer of a backbone as a plan says; none in float32. Errors as for `quantised_kernels`."""
    if plan.linear == "float32":
        return {}
    return {name: _rounded(name, linear.weight, plan, calibration) for name, linear in linear_layers(weights).items()}


def quantised_kernels(
    weights: BackboneWeights, plan: Plan, calibration: Calibration | None, adapted: range | None = None
) -> tuple[BackboneWeights, Kernels]:
    """The weights and kernels for `trunk_graph`, `branch_graph` and `merged_graph`.

    Smoothing costs a node that divides the inputs of a layer, except where the layer that makes these inputs can do it:
    the values of attention for `out`, and `up` for `down` where the activation is relu. That is left alone in layers
    whose LoRA is an input of the graph, as its updates know nothing of the factors.

    Args:
        weights: The backbone, its fork in its final place.
        plan: What is computed how.
        calibration: Of this backbone; None will do for a plan without smoothing.
        adapted: Layers with LoRA inputs, by default those from the fork up; `range(0)` for a merged graph.

    Returns:
        Weights and kernels that belong together: graphs are to be built with both or with neither.

    Raises:
        MismatchError: The calibration is of another encoder, or there is none and the plan needs it.
    """
    rounded, linears = quantise(weights, plan, calibration), linear_layers(weights)
    adapted = range(weights.fork, weights.config.n_layers) if adapted is None else adapted
    folded = _folded(weights, rounded, adapted) if rounded else {}
    done = {consumer for consumer, _ in folded}
    divisors = {producer: divisor for (_, producer), divisor in folded.items()}
    for name, divisor in divisors.items():
        linears[name] = Linear(linears[name].weight / divisor, linears[name].bias / divisor)

    def linear(graph: Builder, name: str, x: str, given: Linear) -> str:
        if given is not linears.get(name):
            raise MismatchError(f"layer {name} {given.weight.shape}", expected="the weights that these kernels are for")
        if not rounded:
            return gemm(graph, name, x, given)
        layer = rounded[name]
        weight = dataclasses.replace(layer.weight, scale=layer.weight.scale / divisors.get(name, np.float32(1)))
        if name not in done and (layer.smooth != 1).any():
            x = graph.add(f"{name}.smoothed", "Mul", [x, graph.constant(f"{name}.smooth", 1 / layer.smooth)])
        if isinstance(weight, Int8Weight):
            return int8_linear(graph, name, x, weight, given.bias, layer.least)
        return int4_linear(graph, name, x, weight, given.bias, layer.least)

    kernels = Kernels(linear, partial(_embedding, round_table(weights, plan)), facts=plan.facts())
    return with_linear_layers(weights, linears), kernels


def round_table(weights: BackboneWeights, plan: Plan) -> Int8Table | Int4Table | None:
    """The word embedding as a plan stores it; None in float32."""
    if plan.embedding == "int4":
        return round_table_int4(weights.embeddings.word, plan.block)
    return round_table_int8(weights.embeddings.word) if plan.embedding == "int8" else None


def _embedding(table: Int8Table | Int4Table | None, graph: Builder, name: str, ids: str, given: FloatArray) -> str:
    if isinstance(table, Int8Table):
        return int8_embedding(graph, name, ids, table)
    return gather(graph, name, ids, given) if table is None else int4_embedding(graph, name, ids, table)


def _rounded(name: str, weight: FloatArray, plan: Plan, calibration: Calibration | None) -> Rounded:
    if calibration is None and plan.alpha:
        raise MismatchError(
            f"no calibration for {name}", expected="one, because the plan smooths inputs", todo="Give texts for it"
        )
    largest = np.ones(len(weight), np.float32) if calibration is None else calibration.of(name, len(weight))
    smooth = smoothing(weight, largest, plan.alpha)
    least = least_of_tokens(largest, smooth) if name.rpartition(".")[2] in plan.per_token else None
    if plan.linear == "int8":
        return Rounded(round_int8(weight * smooth[:, None]), smooth, least)
    moments = calibration.moments.get(name) if calibration is not None else None
    even = None if moments is None else moments / np.outer(smooth, smooth)
    return Rounded(round_int4(weight * smooth[:, None], plan.block, even), smooth, least)


def _folded(
    weights: BackboneWeights, layers: Mapping[str, Rounded], adapted: range
) -> dict[tuple[str, str], FloatArray]:
    """(layer, the layer that makes its inputs) -> what the outputs of the latter are to be divided by."""
    found = {}
    hidden = weights.config.hidden_size
    for number in range(weights.config.n_layers):
        if number in adapted:
            continue
        name = f"layers.{number}"
        value = np.concatenate([np.ones(2 * hidden, np.float32), layers[f"{name}.out"].smooth])
        found[f"{name}.out", f"{name}.qkv"] = value
        if weights.config.activation == "relu":
            found[f"{name}.down", f"{name}.up"] = layers[f"{name}.down"].smooth
    return {names: divisor for names, divisor in found.items() if (divisor != 1).any()}


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


def int8_embedding(graph: Builder, name: str, ids: str, table: Int8Table) -> str:
    """Nodes of an embedding, ids [rows, width] -> [rows, width, size]; only what is looked up becomes float32."""
    values = graph.add(f"{name}.rounded", "Gather", [graph.constant(f"{name}.weight", table.values), ids])
    wide = graph.add(f"{name}.wide", "Cast", [values], to=TensorProto.FLOAT)
    scale = graph.add(f"{name}.step", "Gather", [graph.constant(f"{name}.scale", table.scale[:, None]), ids])
    return graph.add(name, "Mul", [wide, scale])
