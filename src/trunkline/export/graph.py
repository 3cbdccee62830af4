"""The graphs of a backbone, trunk and branch, and the parts of an encoder as ONNX nodes that they are made of.

    trunk    ids, mask                                          -> hidden
    branch   hidden, mask, pool, lora.*, head.*                 -> features, logits
    bank     the same with several adapters, and adapter_ids    -> features, logits

Sizes: `ids` int64 and `mask` float32 (1 for tokens, 0 for padding) [rows, width]; `hidden` [rows, width, hidden];
`pool` [rows, units, width], whose rows average the states of one unit each; `features` [rows, units, hidden]; `logits`
[rows, units, labels]. LoRA inputs are those of `trunkline.bundle.lora`; `head.weight` is [hidden, labels].

Inside a graph the states are one matrix, [rows * width, hidden]: a linear layer is then one Gemm, and so is adding a
low-rank update to its output. The sum before a normalisation is a node of its own, because ONNX Runtime's
SkipLayerNormalization on a CPU takes eight times as long as Add and LayerNormalization.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Literal

import numpy as np
from onnx import TensorProto

from trunkline.bundle.lora import FloatArray, Shapes, lora_shapes
from trunkline.encoder.architectures import EncoderConfig
from trunkline.export.builder import CONTRIB, Builder, Kind
from trunkline.export.weights import BackboneWeights, EmbeddingWeights, LayerWeights, Linear, Norm

FORMAT = 2
"""Of the graphs; in the first one a branch gave the states of its last layer alone."""

DEFAULT_LORA_TARGETS = ("qkv",)
"""Adapters sit on query and value unless a recipe says otherwise. Each input costs time even if nothing is fed."""

Form = Literal["optional", "required", "bank"]
"""How a graph takes adapters: inputs that may be left out, inputs that must be given (onnxruntime-web refuses to be fed
the others, OpenVINO to load them), or required inputs that hold several adapters, of which each row has one."""

Attention = Literal["portable", "fast"]
LinearKernel = Callable[[Builder, str, str, Linear], str]
EmbeddingKernel = Callable[[Builder, str, str, FloatArray], str]


def gemm(graph: Builder, name: str, x: str, linear: Linear) -> str:
    """A linear layer in float32, [n, inputs] -> [n, outputs]."""
    weight = graph.constant(f"{name}.weight", linear.weight)
    return graph.add(name, "Gemm", [x, weight, graph.constant(f"{name}.bias", linear.bias)])


def gather(graph: Builder, name: str, ids: str, table: FloatArray) -> str:
    """An embedding in float32, [rows, width] ids -> [rows, width, size]."""
    return graph.add(name, "Gather", [graph.constant(f"{name}.weight", table), ids])


@dataclass(frozen=True, slots=True)
class Kernels:
    """How linear layers and the word embedding are computed; a quantiser gives others.

    Attributes:
        linear: Adds the nodes of a linear layer: the graph, the layer's name (such as `layers.3.qkv`), the name of its
            input [n, inputs] and its weights -> the name of the output [n, outputs].
        embedding: The same for the word embedding, from ids [rows, width] to [rows, width, size].
        attention: `portable` always gives attention the mask. `fast` leaves it out, by an If, where a run has no
            padding, because only then ONNX Runtime takes its faster kernel (0.7 of the time of attention). For ONNX
            Runtime alone: OpenVINO 2026.4 computes an If of free sizes wrongly when it runs for the first time.
        facts: What readers of the model should know of it.
    """

    linear: LinearKernel = gemm
    embedding: EmbeddingKernel = gather
    attention: Attention = "portable"
    facts: dict[str, str] = field(default_factory=lambda: {"weights": "float32"})


@dataclass(frozen=True, slots=True)
class Lora:
    """The LoRA inputs of a graph; no shapes, no inputs."""

    form: Form = "optional"
    shapes: Shapes = field(default_factory=dict)

    def declare(self, graph: Builder) -> None:
        """Adds the inputs; each pair has a rank of its own."""
        for place, (inputs, outputs) in self.shapes.items():
            rank = f"rank.{place}"
            first = ["adapters"] if self.form == "bank" else []
            a, b = np.zeros((inputs, 0), np.float32), np.zeros((0, outputs), np.float32)
            optional = self.form == "optional"
            graph.input(f"lora.{place}.a", [*first, inputs, rank], default=a if optional else None)
            graph.input(f"lora.{place}.b", [*first, rank, outputs], default=b if optional else None)


@dataclass(frozen=True, slots=True)
class Scope:
    """What the nodes of a graph share; `size` is the value [2] with rows and width."""

    graph: Builder
    config: EncoderConfig
    kernels: Kernels
    lora: Lora
    size: str

    def linear(self, layer: int, target: str, x: str, weights: Linear) -> str:
        """A linear layer with its low-rank update, [n, inputs] -> [n, outputs]."""
        name = f"layers.{layer}.{target}"
        y = self.kernels.linear(self.graph, name, x, weights)
        place = f"{layer}.{target}"
        if place not in self.lora.shapes:
            return y
        a, b = f"lora.{place}.a", f"lora.{place}.b"
        if self.lora.form != "bank":
            return self.graph.add(f"{name}.adapted", "Gemm", [self.graph.add(f"{name}.narrow", "MatMul", [x, a]), b, y])
        inputs, _ = self.lora.shapes[place]
        chosen = [self.graph.add(f"{name}.chosen.{s}", "Gather", [v, "adapter_ids"]) for s, v in (("a", a), ("b", b))]
        narrow = self.graph.add(f"{name}.narrow", "MatMul", [self.rows(f"{name}.input", x, inputs), chosen[0]])
        update = self.graph.add(f"{name}.update", "MatMul", [narrow, chosen[1]])
        flat = matrix(self.graph, f"{name}.flat", update, weights.weight.shape[1])
        return self.graph.add(f"{name}.adapted", "Add", [y, flat])

    def attention(self, name: str, parts: Sequence[str]) -> str:
        """Attention of query, key and value, each [rows, width, hidden], to the tokens that are no padding."""
        masked, heads = [*parts, "", "mask.keys"], self.config.n_heads
        if not self.graph.has("mask.keys"):
            self.graph.add("mask.keys", "Cast", ["mask"], to=TensorProto.INT32)
        if self.kernels.attention == "portable":
            return self.graph.add(name, "MultiHeadAttention", masked, CONTRIB, num_heads=heads)
        if not self.graph.has("mask.full"):
            least = self.graph.add("mask.least", "ReduceMin", ["mask"], keepdims=0)
            half = self.graph.constant("half", np.array(0.5, np.float32))
            self.graph.add("mask.full", "Greater", [least, half])
        return self.graph.either(
            name,
            "mask.full",
            "MultiHeadAttention",
            (parts, masked),
            ["rows", "width", self.config.hidden_size],
            CONTRIB,
            num_heads=heads,
        )

    def rows(self, name: str, x: str, size: int) -> str:
        """[rows * width, size] -> [rows, width, size]."""
        shape = f"shape.{size}"
        if not self.graph.has(shape):
            self.graph.add(shape, "Concat", [self.size, self.graph.constant(f"size.{size}", np.array([size]))], axis=0)
        return self.graph.add(name, "Reshape", [x, shape])


def matrix(graph: Builder, name: str, x: str, size: int) -> str:
    """[..., size] -> [n, size]."""
    return graph.add(name, "Reshape", [x, graph.constant(f"matrix.{size}", np.array([-1, size]))])


def normalise(graph: Builder, name: str, x: str, norm: Norm, eps: float) -> str:
    """Layer normalisation over the last axis."""
    constants = [graph.constant(f"{name}.weight", norm.weight), graph.constant(f"{name}.bias", norm.bias)]
    return graph.add(name, "LayerNormalization", [x, *constants], axis=-1, epsilon=eps)


def activation(graph: Builder, name: str, x: str, kind: str) -> str:
    """The encoder's activation; `gelu` is exact, `gelu_new` and `gelu_pytorch_tanh` are its approximation by tanh."""
    if kind == "gelu":
        return graph.add(name, "Gelu", [x], CONTRIB)
    if kind in ("gelu_new", "gelu_pytorch_tanh"):
        return graph.add(name, "FastGelu", [x], CONTRIB)
    if kind == "silu":
        return graph.add(name, "Mul", [x, graph.add(f"{name}.gate", "Sigmoid", [x])])
    return graph.add(name, "Relu", [x])


def embeddings(graph: Builder, weights: EmbeddingWeights, config: EncoderConfig, kernels: Kernels) -> str:
    """Inputs `ids` and `mask` [rows, width] -> normalised embeddings [rows * width, hidden]."""
    words = kernels.embedding(graph, "embeddings.word", "ids", weights.word)
    summed = graph.add("embeddings.sum", "Add", [words, _positions(graph, weights.position, config)])
    size = config.embedding_size
    flat = matrix(graph, "embeddings.flat", summed, size)
    x = normalise(graph, "embeddings.norm", flat, weights.norm, config.norm_eps)
    return x if weights.project is None else kernels.linear(graph, "embeddings.project", x, weights.project)


def _positions(graph: Builder, table: FloatArray, config: EncoderConfig) -> str:
    values = graph.constant("embeddings.position.weight", table)
    if not config.position_offset:
        zero, axis = graph.constant("zero", np.array([0])), graph.constant("axis.0", np.array([0]))
        width = graph.add("width", "Shape", ["ids"], start=1, end=2)
        return graph.add("embeddings.position", "Slice", [values, zero, width, axis])
    # RoBERTa counts the tokens before each one; padding has the row of its id.
    real = graph.add("positions.real", "Cast", ["mask"], to=TensorProto.INT64)
    counts = graph.add("positions.counts", "CumSum", [real, graph.constant("axis.1", np.array(1))])
    inside = graph.add("positions.inside", "Mul", [counts, real])
    pad = graph.constant("positions.first", np.array([config.position_offset - 1]))
    return graph.add("embeddings.position", "Gather", [values, graph.add("positions", "Add", [inside, pad])])


def layer(scope: Scope, number: int, x: str, weights: LayerWeights) -> str:
    """A transformer layer, [rows * width, hidden] states to states."""
    graph, hidden, eps = scope.graph, scope.config.hidden_size, scope.config.norm_eps
    name = f"layers.{number}"
    fused = scope.rows(f"{name}.qkv.rows", scope.linear(number, "qkv", x, weights.qkv), 3 * hidden)
    parts = graph.add_several([f"{name}.{part}" for part in ("query", "key", "value")], "Split", [fused], axis=-1)
    attention = scope.attention(f"{name}.attention", parts)
    context = scope.linear(number, "out", matrix(graph, f"{name}.context", attention, hidden), weights.out)
    summed = graph.add(f"{name}.attention_sum", "Add", [context, x])
    x = normalise(graph, f"{name}.attention_norm", summed, weights.attention_norm, eps)
    inner = activation(graph, f"{name}.active", scope.linear(number, "up", x, weights.up), scope.config.activation)
    outer = scope.linear(number, "down", inner, weights.down)
    summed = graph.add(f"{name}.output_sum", "Add", [outer, x])
    return normalise(graph, f"{name}.output_norm", summed, weights.output_norm, eps)


def run_layers(scope: Scope, x: str, weights: BackboneWeights, numbers: range) -> list[str]:
    """The states that enter the first of these layers, and what each of them gives, [rows * width, hidden]."""
    states = [x]
    for number in numbers:
        states.append(layer(scope, number, states[-1], weights.layers[number]))
    return states


def pool_and_classify(scope: Scope, x: str, weights: BackboneWeights, weight: str, bias: str) -> None:
    """The branch, from the states at the fork, [rows * width, hidden], with its pooling and head.

    Adds `features` [rows, units, hidden], the pooled mean of what the branch's layers give, or of the states at the
    fork where there are no such layers, and `logits` [rows, units, labels].
    """
    graph, branch = scope.graph, range(weights.fork, weights.config.n_layers)
    states = run_layers(scope, x, weights, branch)
    total, *others = states[1:] or states
    for number, other in zip(branch[1:], others, strict=True):
        total = graph.add(f"layers.{number}.sum", "Add", [total, other])
    pool = "pool"
    if others:
        # Of the sum, the shares and the features, which could all be divided, the shares are fewest.
        share = graph.constant("pool.share", np.array(1 / len(branch), np.float32))
        pool = graph.add("pool.mean", "Mul", [pool, share])
    graph.add("features", "MatMul", [pool, scope.rows("states.sum", total, weights.config.hidden_size)])
    graph.add("logits", "Add", [graph.add("head", "MatMul", ["features", weight]), bias])


FLOAT32 = Kernels()

_INPUTS: dict[str, tuple[Kind, list[int | str], str]] = {
    "ids": ("int64", ["rows", "width"], "token ids, special tokens included"),
    "mask": ("float32", ["rows", "width"], "1 for tokens, 0 for padding behind them"),
    "pool": ("float32", ["rows", "units", "width"], "for each unit the share of each token; shares add up to 1"),
}


def trunk_graph(weights: BackboneWeights, kernels: Kernels = FLOAT32) -> bytes:
    """Embeddings and the layers below the fork, which all tasks share; gives the states that enter the next one."""
    graph = Builder()
    declare_inputs(graph, "ids", "mask")
    x = embeddings(graph, weights.embeddings, weights.config, kernels)
    scope = scope_of(graph, weights, kernels, "ids")
    scope.rows("hidden", run_layers(scope, x, weights, range(weights.fork))[-1], weights.config.hidden_size)
    graph.output("hidden", ["rows", "width", weights.config.hidden_size], f"states that enter layer {weights.fork}")
    return graph.model("trunk", "The layers of an encoder that all tasks share", facts_of(weights, "trunk", kernels))


def branch_graph(
    weights: BackboneWeights,
    form: Form = "optional",
    lora_targets: Sequence[str] = DEFAULT_LORA_TARGETS,
    kernels: Kernels = FLOAT32,
) -> bytes:
    """The layers from the fork up, with adapters and the head as inputs of any rank and any number of labels.

    Args:
        weights: The backbone.
        form: `optional`: what is not fed has rank 0 or no labels, which is the backbone as it is. `required`: the same,
            but everything must be fed, rank 0 included, as onnxruntime-web and OpenVINO want it. `bank`: LoRA inputs
            have a leading axis of adapters, and `adapter_ids` [rows] says which one a row has; all rows have the same
            head, and everything must be fed.
        lora_targets: Where LoRA inputs are: `qkv`, which has one for all three, `out`, `up` or `down`.
        kernels: How linear layers are computed.

    Raises:
        MismatchError: There is no such target.
    """
    config = weights.config
    hidden = config.hidden_size
    layers = range(weights.fork, config.n_layers)
    lora = Lora(form, lora_shapes(layers, hidden, config.intermediate_size, lora_targets))
    graph = Builder()
    graph.input("hidden", ["rows", "width", hidden], doc="states from the trunk")
    declare_inputs(graph, "mask", "pool")
    if form == "bank":
        graph.input("adapter_ids", ["rows"], "int64", doc="the adapter of each row")
    lora.declare(graph)
    optional = form == "optional"
    graph.input("head.weight", [hidden, "labels"], default=np.zeros((hidden, 0), np.float32) if optional else None)
    graph.input("head.bias", ["labels"], default=np.zeros(0, np.float32) if optional else None)
    scope = scope_of(graph, weights, kernels, "mask", lora)
    pool_and_classify(scope, matrix(graph, "states", "hidden", hidden), weights, "head.weight", "head.bias")
    graph.output("features", ["rows", "units", hidden], "mean over the branch's layers of the units' mean states")
    graph.output("logits", ["rows", "units", "labels"], "outputs of the head")
    targets = ",".join(target for target in lora_targets if layers)
    facts = facts_of(weights, "branch", kernels) | {"adapters": form, "lora_targets": targets}
    return graph.model("branch", "The layers of an encoder that belong to one task or family", facts)


def declare_inputs(graph: Builder, *names: str) -> None:
    """Adds some of the inputs `ids`, `mask` and `pool`."""
    for name in names:
        kind, shape, doc = _INPUTS[name]
        graph.input(name, shape, kind, doc=doc)


def scope_of(graph: Builder, weights: BackboneWeights, kernels: Kernels, sized: str, lora: Lora | None = None) -> Scope:
    """What nodes share, with rows and width as in the input `sized`."""
    return Scope(graph, weights.config, kernels, lora or Lora(), graph.add("size", "Shape", [sized]))


def facts_of(weights: BackboneWeights, part: str, kernels: Kernels) -> dict[str, str]:
    """The metadata of a graph."""
    config = weights.config
    return {
        **kernels.facts,
        "attention": kernels.attention,
        "format": str(FORMAT),
        "part": part,
        "backbone": weights.hash,
        "fork": str(weights.fork),
        "model_type": config.model_type,
        "hidden_size": str(config.hidden_size),
        "intermediate_size": str(config.intermediate_size),
        "n_layers": str(config.n_layers),
        "n_heads": str(config.n_heads),
        "max_length": str(config.max_length),
        "pad_id": str(config.pad_id),
        "activation": config.activation,
    }
