"""The graphs of a backbone: trunk, branch and, for a single task, all in one.

    trunk    ids, mask                                          -> hidden
    branch   hidden, mask, pool, lora.*, head.*                 -> features, logits
    bank     the same with several adapters, and adapter_ids    -> features, logits
    merged   ids, mask, pool                                    -> logits

Sizes: `ids` int64 and `mask` float32 (1 for tokens, 0 for padding) [rows, width]; `hidden` [rows, width, hidden];
`pool` [rows, units, width], whose rows average the states of one unit each; `features` [rows, units, hidden]; `logits`
[rows, units, labels]. LoRA inputs are those of `trunkline.bundle.lora`; `head.weight` is [hidden, labels].
"""

from __future__ import annotations

import json
from collections.abc import Sequence

import numpy as np

from trunkline.bundle.lora import lora_shapes
from trunkline.errors import TrunklineError
from trunkline.export.builder import Builder, Kind
from trunkline.export.layers import Form, Kernels, Lora, Scope, embeddings, matrix, pool_and_classify, run_layers
from trunkline.export.weights import BackboneWeights, Linear

FORMAT = 2
"""Of the graphs; in the first one a branch gave the states of its last layer alone."""

DEFAULT_LORA_TARGETS = ("qkv",)
"""Adapters sit on query and value unless a recipe says otherwise. Each input costs time even if nothing is fed."""

FLOAT32 = Kernels()

_INPUTS: dict[str, tuple[Kind, list[int | str], str]] = {
    "ids": ("int64", ["rows", "width"], "token ids, special tokens included"),
    "mask": ("float32", ["rows", "width"], "1 for tokens, 0 for padding behind them"),
    "pool": ("float32", ["rows", "units", "width"], "for each unit the share of each token; shares add up to 1"),
}


def trunk_graph(weights: BackboneWeights, kernels: Kernels = FLOAT32) -> bytes:
    """Embeddings and the layers below the fork, which all tasks share.

    Args:
        weights: The backbone.
        kernels: How linear layers and the word embedding are computed.

    Returns:
        A model with inputs `ids` and `mask` and output `hidden`, the states that enter the layer at the fork.
    """
    graph = Builder()
    _inputs(graph, "ids", "mask")
    x = embeddings(graph, weights.embeddings, weights.config, kernels)
    scope = _scope(graph, weights, kernels, "ids")
    scope.rows("hidden", run_layers(scope, x, weights, range(weights.fork))[-1], weights.config.hidden_size)
    graph.output("hidden", ["rows", "width", weights.config.hidden_size], f"states that enter layer {weights.fork}")
    return graph.model("trunk", "The layers of an encoder that all tasks share", _facts(weights, "trunk", kernels))


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
    _inputs(graph, "mask", "pool")
    if form == "bank":
        graph.input("adapter_ids", ["rows"], "int64", doc="the adapter of each row")
    lora.declare(graph)
    optional = form == "optional"
    graph.input("head.weight", [hidden, "labels"], default=np.zeros((hidden, 0), np.float32) if optional else None)
    graph.input("head.bias", ["labels"], default=np.zeros(0, np.float32) if optional else None)
    scope = _scope(graph, weights, kernels, "mask", lora)
    pool_and_classify(scope, matrix(graph, "states", "hidden", hidden), weights, "head.weight", "head.bias")
    graph.output("features", ["rows", "units", hidden], "mean over the branch's layers of the units' mean states")
    graph.output("logits", ["rows", "units", "labels"], "outputs of the head")
    targets = ",".join(target for target in lora_targets if layers)
    facts = _facts(weights, "branch", kernels) | {"adapters": form, "slots": targets}
    return graph.model("branch", "The layers of an encoder that belong to one task or family", facts)


def merged_graph(
    weights: BackboneWeights, head: Linear, labels: Sequence[str] = (), kernels: Kernels = FLOAT32
) -> bytes:
    """One task as an ordinary model, without inputs for adapters.

    Args:
        weights: The backbone with the task's adapter merged into it, from `take_weights(encoder, lora)`.
        head: The head, `weight` [hidden, labels].
        labels: Names of the outputs, for the model's metadata.
        kernels: How linear layers and the word embedding are computed; the head stays in float32.

    Raises:
        TrunklineError: The head does not fit the backbone or the labels.
    """
    hidden, n_labels = weights.config.hidden_size, head.weight.shape[-1]
    fits = head.weight.shape == (hidden, n_labels) and head.bias.shape == (n_labels,)
    if not fits or (labels and len(labels) != n_labels):
        raise TrunklineError(
            f"a head of {head.weight.shape} with bias {head.bias.shape} and {len(labels)} labels",
            expected=f"({hidden}, labels), (labels,) and a name for each label",
        )
    graph = Builder()
    _inputs(graph, "ids", "mask", "pool")
    x = embeddings(graph, weights.embeddings, weights.config, kernels)
    scope = _scope(graph, weights, kernels, "ids")
    weight, bias = graph.constant("head.weight", head.weight), graph.constant("head.bias", head.bias)
    pool_and_classify(scope, run_layers(scope, x, weights, range(weights.fork))[-1], weights, weight, bias)
    graph.output("logits", ["rows", "units", n_labels], "outputs of the head")
    facts = _facts(weights, "merged", kernels) | {"labels": json.dumps(list(labels), ensure_ascii=False)}
    return graph.model("merged", "An encoder with one task merged into it", facts)


def _inputs(graph: Builder, *names: str) -> None:
    for name in names:
        kind, shape, doc = _INPUTS[name]
        graph.input(name, shape, kind, doc=doc)


def _scope(graph: Builder, weights: BackboneWeights, kernels: Kernels, sized: str, lora: Lora | None = None) -> Scope:
    return Scope(graph, weights.config, kernels, lora or Lora(), graph.add("size", "Shape", [sized]))


def _facts(weights: BackboneWeights, part: str, kernels: Kernels) -> dict[str, str]:
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
