"""From a backbone, a plan and a calibration to the weights and kernels that graphs are built with."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial

import numpy as np

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
from trunkline.export.quantise.int4 import Int4Table, Int4Weight, round_int4, round_table_int4
from trunkline.export.quantise.int4_nodes import int4_blocks_linear, int4_embedding, int4_linear
from trunkline.export.quantise.int8 import int8_embedding, int8_linear
from trunkline.export.quantise.plan import LEAST_BLOCK, LinearScheme, Plan, linear_layers, with_linear_layers
from trunkline.export.quantise.smooth import Calibration
from trunkline.export.weights import BackboneWeights, FloatArray, Linear


@dataclass(frozen=True, slots=True)
class Quantised:
    """A linear layer as a plan wants it.

    Attributes:
        scheme: Its scheme.
        linear: The weights before rounding, in float32, as they came.
        smooth: [inputs]; inputs are divided by it before they are rounded.
        rounded: The weight after its rows were multiplied by `smooth`; None in float32.
        least: The least number that a token's inputs are divided by before they are rounded; None if all tokens have
            the same step.
    """

    scheme: LinearScheme
    linear: Linear
    smooth: FloatArray
    rounded: Int8Weight | Int4Weight | None
    least: float | None = None

    def weight(self) -> FloatArray:
        """The weight that a graph computes with, [inputs, outputs], for inputs that were not divided."""
        if self.rounded is None:
            return self.linear.weight
        as_int8 = self.scheme == "int4" and isinstance(self.rounded, Int4Weight)
        body = self.rounded.int8() if as_int8 and isinstance(self.rounded, Int4Weight) else self.rounded
        return np.asarray(body.weight() / self.smooth[:, None], np.float32)


Rounded = dict[tuple[str, LinearScheme], Quantised]
"""Layers that were rounded before, for plans that differ in nothing but the schemes of layers."""


def quantise(
    weights: BackboneWeights, plan: Plan, calibration: Calibration | None, known: Rounded | None = None
) -> dict[str, Quantised]:
    """Rounds every linear layer of a backbone as a plan says.

    Args:
        weights: The backbone.
        plan: What is rounded how.
        calibration: Of this backbone.
        known: Is looked into first, and receives what is rounded here.

    Raises:
        MismatchError: The calibration is of another encoder, or there is none and the plan needs it.
        TrunklineError: The plan names a layer that is not there.
    """
    plan.check(weights)
    known = {} if known is None else known
    found = {}
    for name, linear in linear_layers(weights).items():
        key = name, plan.scheme(name)
        if key not in known:
            known[key] = _rounded(name, linear, plan, calibration)
        found[name] = known[key]
    return found


def quantised_kernels(
    weights: BackboneWeights,
    plan: Plan,
    calibration: Calibration | None,
    adapted: range | None = None,
    known: Rounded | None = None,
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
        known: As for `quantise`.

    Returns:
        Weights and kernels that belong together: graphs are to be built with both or with neither.

    Raises:
        MismatchError: The calibration is of another encoder, or there is none and the plan needs it.
        TrunklineError: The plan names a layer that is not there.
    """
    layers = quantise(weights, plan, calibration, known)
    adapted = range(weights.fork, weights.config.n_layers) if adapted is None else adapted
    divided = _folded(weights, layers, adapted)
    done = {consumer for consumer, _ in divided}
    divisors = {producer: divisor for (_, producer), divisor in divided.items()}
    linears = {name: layer.linear for name, layer in layers.items()}
    linears |= {name: _divided(linears[name], divisor) for name, divisor in divisors.items()}

    def linear(graph: Builder, name: str, x: str, given: Linear) -> str:
        layer = layers.get(name)
        if layer is None or given is not linears[name]:
            raise MismatchError(f"layer {name} {given.weight.shape}", expected="the weights that these kernels are for")
        rounded = layer.rounded
        if rounded is None:
            return gemm(graph, name, x, given)
        if name in divisors:
            rounded = dataclasses.replace(rounded, scale=rounded.scale / divisors[name])
        if name not in done and (layer.smooth != 1).any():
            x = graph.add(f"{name}.smoothed", "Mul", [x, graph.constant(f"{name}.smooth", 1 / layer.smooth)])
        if isinstance(rounded, Int8Weight):
            return int8_linear(graph, name, x, rounded, given.bias, layer.least)
        if layer.scheme == "int4":
            return int4_linear(graph, name, x, rounded, given.bias, layer.least)
        return int4_blocks_linear(graph, name, x, rounded, given.bias)

    kernels = Kernels(linear, partial(_embedding, _table(weights.embeddings.word, plan)), facts=plan.facts())
    return with_linear_layers(weights, linears), kernels


def _embedding(table: Int8Table | Int4Table | None, graph: Builder, name: str, ids: str, given: FloatArray) -> str:
    if isinstance(table, Int8Table):
        return int8_embedding(graph, name, ids, table)
    if isinstance(table, Int4Table):
        return int4_embedding(graph, name, ids, table)
    return gather(graph, name, ids, given)


def rounded_table(weights: BackboneWeights, plan: Plan) -> FloatArray:
    """The word embedding that a graph looks up, [vocabulary, size] in float32."""
    table = _table(weights.embeddings.word, plan)
    return weights.embeddings.word if table is None else table.table()


def _rounded(name: str, linear: Linear, plan: Plan, calibration: Calibration | None) -> Quantised:
    scheme = plan.scheme(name)
    ones = np.ones(len(linear.weight), np.float32)
    if scheme == "float32":
        return Quantised(scheme, linear, ones, None)
    if calibration is None:
        if plan.alpha and scheme != "int4-blocks":
            raise MismatchError(
                f"no calibration for {name}", expected="one, because the plan smooths inputs", todo="Give texts for it"
            )
        largest = ones
    else:
        largest = calibration.of(name, linear)
    # Inputs of a product in blocks have a step for each block of each row, and need no smoothing.
    smooth = ones if scheme == "int4-blocks" else smoothing(linear.weight, largest, plan.alpha)
    weight = linear.weight * smooth[:, None]
    least = least_of_tokens(largest, smooth) if plan.steps_per_token(name) else None
    if scheme == "int8":
        return Quantised(scheme, linear, smooth, round_int8(weight, plan.steps), least)
    block = plan.block if scheme == "int4" else _power_of_two(name, len(weight), plan.block)
    moments = calibration.moments.get(name) if calibration is not None else None
    if moments is not None:
        moments = moments / np.outer(smooth, smooth)
    return Quantised(scheme, linear, smooth, round_int4(weight, block, moments, plan.steps), least)


def _power_of_two(name: str, inputs: int, block: int) -> int:
    """The block of the operator that multiplies in blocks."""
    found = math.gcd(inputs, block)
    if found < LEAST_BLOCK:
        raise TrunklineError(
            f"{name} has {inputs} inputs, which do not divide into blocks of {LEAST_BLOCK}",
            expected=f"a multiple of {LEAST_BLOCK} for scheme int4-blocks",
            todo="Choose int4",
        )
    return found


def _table(table: FloatArray, plan: Plan) -> Int8Table | Int4Table | None:
    if plan.embedding == "int8":
        return round_table_int8(table)
    return round_table_int4(table, plan.block) if plan.embedding == "int4" else None


def _folded(
    weights: BackboneWeights, layers: Mapping[str, Quantised], adapted: range
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


def _divided(linear: Linear, divisor: FloatArray) -> Linear:
    return Linear(linear.weight / divisor, linear.bias / divisor)
