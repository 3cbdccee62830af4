"""Rounded weights: what linear layers receive on real text, the plan, and the kernels that graphs are built with."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from types import MappingProxyType
from typing import Any, Literal, get_args

import numpy as np
import torch
from onnx import TensorProto
from torch import Tensor, nn

from trunkline.bundle.lora import LORA_TARGETS, FloatArray
from trunkline.encoder.encoder import Encoder, TokenBatch
from trunkline.encoder.lora import Deltas
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
from trunkline.export.graph import Kernels, gather, gemm
from trunkline.export.int4 import (
    Int4Table,
    Int4Weight,
    int4_embedding,
    int4_linear,
    multiply_int8,
    round_int4,
    round_table_int4,
)
from trunkline.export.weights import PROJECT, BackboneWeights, Linear, linear_layers, with_linear_layers
from trunkline.text.tokens import ROW_WIDTH, TextTokenizer, by_budget, pack, text_unit

BUDGET = 2048
"""Tokens a batch."""

_MODULES = ("out", "up", "down")
"""Linear layers that are called as modules; query, key and value receive what their transformer layer does."""


@dataclass(frozen=True, slots=True)
class Calibration:
    """The inputs of linear layers, by the names of `linear_layers`, on so many tokens of real text.

    `largest` has the largest absolute value of each channel, [inputs], `moments`, where they were asked for, the mean
    products of pairs of channels, [inputs, inputs].
    """

    largest: Mapping[str, FloatArray]
    moments: Mapping[str, FloatArray]
    tokens: int

    def of(self, name: str, inputs: int) -> FloatArray:
        """The largest values of a layer's inputs; raises MismatchError if they are not known."""
        found = self.largest.get(name, np.zeros(0, np.float32))
        if len(found) != inputs:
            raise MismatchError(
                f"the calibration knows {len(found)} inputs of {name}",
                expected=f"its {inputs} inputs",
                todo="Calibrate with the encoder that is quantised",
            )
        return found


@torch.inference_mode()
def calibrate(
    encoder: Encoder,
    tokenizer: TextTokenizer,
    texts: Sequence[str],
    adapters: Sequence[Deltas] = (),
    *,
    moments: bool = False,
) -> Calibration:
    """Runs texts through an encoder and keeps what its linear layers receive.

    Args:
        encoder: The encoder in float32; it is not changed.
        tokenizer: Its tokenizer.
        texts: Such as the device will read; a hundred or two of different kinds are enough.
        adapters: Every text is read without an adapter and through each of these.
        moments: Whether to keep mean products of channels, with which 4-bit weights are rounded better.

    Raises:
        TrunklineError: There is no token in the texts.
    """
    units = [text_unit(tokens) for tokens in tokenizer.encode(texts)]
    if not any(unit.size > 2 * len(unit.sizes) for unit in units):
        raise TrunklineError(
            f"{len(texts)} texts without any token for calibration",
            expected="real text of the kind that will be read",
            todo="Give a file of texts, one a line",
        )
    seen: dict[str, _Seen] = {}
    real: list[Tensor] = []

    def look(name: str, value: Tensor) -> None:
        rows = value.reshape(-1, value.shape[-1])[real[0]].float()
        seen.setdefault(name, _Seen(rows.shape[1], moments)).add(rows)

    was_training = encoder.training
    encoder.eval()
    with _watched(encoder, look):
        for chosen in by_budget(units, BUDGET):
            packed = pack([units[i] for i in chosen], encoder.config.pad_id, ROW_WIDTH)
            batch = TokenBatch.from_packed(packed, next(encoder.parameters()).device)
            real[:] = [batch.segments.reshape(-1) >= 0]
            hidden = encoder.trunk(batch)
            for adapter in (None, *adapters):
                encoder.branch(hidden, batch, adapter)
    encoder.train(was_training)
    products = {name: (item.products, max(1, item.count)) for name, item in seen.items()}
    return Calibration(
        {name: item.largest.numpy() for name, item in seen.items()},
        {name: (total / count).numpy() for name, (total, count) in products.items() if total is not None},
        sum(unit.size for unit in units),
    )


class _Seen:
    def __init__(self, inputs: int, moments: bool) -> None:
        self.largest = torch.zeros(inputs)
        self.products = torch.zeros(inputs, inputs) if moments else None
        self.count = 0

    def add(self, rows: Tensor) -> None:
        self.largest = torch.maximum(self.largest, rows.abs().amax(dim=0).cpu())
        if self.products is not None:
            self.products += (rows.T @ rows).cpu()
        self.count += len(rows)


@contextmanager
def _watched(encoder: Encoder, look: Callable[[str, Tensor], None]) -> Iterator[None]:
    """While this lasts, `look` is given the input of every linear layer, [..., inputs]."""

    def hook(name: str) -> Callable[[nn.Module, tuple[Any, ...]], None]:
        return lambda module, inputs: look(name, inputs[0])

    modules: dict[str, nn.Module] = {}
    for number, layer in enumerate(encoder.layers):
        modules |= {f"layers.{number}.qkv": layer, **{f"layers.{number}.{m}": getattr(layer, m) for m in _MODULES}}
    if encoder.embeddings.project is not None:
        modules[PROJECT] = encoder.embeddings.project
    handles = [module.register_forward_pre_hook(hook(name)) for name, module in modules.items()]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


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
        if not (
            {self.linear, self.embedding} <= known and {*self.per_token} <= {*LORA_TARGETS} and 0 <= self.alpha < 1
        ):
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
    """A linear layer, rounded after its rows were multiplied by `smooth`, by which its inputs are divided.

    With `least`, each token's inputs have a step of their own: they are divided by the largest, or by this if it is
    less, before they are rounded.
    """

    weight: Int8Weight | Int4Weight
    smooth: FloatArray
    least: float | None = None


def quantised_kernels(
    weights: BackboneWeights, plan: Plan, calibration: Calibration | None
) -> tuple[BackboneWeights, Kernels]:
    """The weights and kernels for `trunk_graph` and `branch_graph`, which are to be built with both or with neither.

    Smoothing costs a node that divides the inputs of a layer, except where the layer that makes these inputs can do it:
    the values of attention for `out`, and `up` for `down` where the activation is relu. That is left alone in layers
    from the fork up, whose LoRA is an input of the graph, as its updates know nothing of the factors.

    Raises:
        MismatchError: The calibration is of another encoder, or there is none and the plan needs it.
    """
    linears, rounded = linear_layers(weights), {}
    if plan.linear != "float32":
        rounded = {name: _rounded(name, linear.weight, plan, calibration) for name, linear in linears.items()}
    folded = _folded(weights, rounded) if rounded else {}
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

    word, table = weights.embeddings.word, None
    if plan.embedding != "float32":
        table = round_table_int8(word) if plan.embedding == "int8" else round_table_int4(word, plan.block)
    kernels = Kernels(linear, partial(_embedding, table), facts=plan.facts())
    return with_linear_layers(weights, linears), kernels


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


def _folded(weights: BackboneWeights, layers: Mapping[str, Rounded]) -> dict[tuple[str, str], FloatArray]:
    """(layer, the layer that makes its inputs) -> what the outputs of the latter are to be divided by."""
    found = {}
    hidden = weights.config.hidden_size
    for number in range(weights.fork):
        name = f"layers.{number}"
        value = np.concatenate([np.ones(2 * hidden, np.float32), layers[f"{name}.out"].smooth])
        found[f"{name}.out", f"{name}.qkv"] = value
        if weights.config.activation == "relu":
            found[f"{name}.down", f"{name}.up"] = layers[f"{name}.down"].smooth
    return {names: divisor for names, divisor in found.items() if (divisor != 1).any()}


def int8_linear(
    graph: Builder, name: str, x: str, weight: Int8Weight, bias: FloatArray, least: float | None = None
) -> str:
    """Nodes of a linear layer, [n, inputs] -> [n, outputs]; see `multiply_int8`."""
    values = graph.constant(f"{name}.weight", weight.values)
    return multiply_int8(graph, name, (x, values), weight.scale, bias, least)


def int8_embedding(graph: Builder, name: str, ids: str, table: Int8Table) -> str:
    """Nodes of an embedding, ids [rows, width] -> [rows, width, size]; only what is looked up becomes float32."""
    values = graph.add(f"{name}.rounded", "Gather", [graph.constant(f"{name}.weight", table.values), ids])
    wide = graph.add(f"{name}.wide", "Cast", [values], to=TensorProto.FLOAT)
    scale = graph.add(f"{name}.step", "Gather", [graph.constant(f"{name}.scale", table.scale[:, None]), ids])
    return graph.add(name, "Mul", [wide, scale])
