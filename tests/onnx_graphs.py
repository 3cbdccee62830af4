"""Running exported graphs on tiny encoders, row by row against torch."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

import tiny_models
from trunkline.bundle.manifest import LORA_TARGETS, Shapes, lora_shapes
from trunkline.bundle.parts import Head, complete, fuse
from trunkline.encoder.architectures import EncoderConfig
from trunkline.encoder.encoder import Encoder
from trunkline.encoder.lora import adapter_arrays
from trunkline.engine.onnx import open_session
from trunkline.export.graph import branch_graph, trunk_graph
from trunkline.export.parity import Adapter
from trunkline.export.weights import BackboneWeights
from trunkline.text.tokens import TextTokenizer

Array = npt.NDArray[np.float32]
ALL_TARGETS = tuple(LORA_TARGETS)
ALL_LINEARS = ("query", "key", "value", "out", "up", "down")


def shapes_of(weights: BackboneWeights, targets: Sequence[str] = ALL_TARGETS) -> Shapes:
    config = weights.config
    return lora_shapes(range(weights.fork, config.n_layers), config.hidden_size, config.intermediate_size, targets)


def sessions(weights: BackboneWeights, **options: Any) -> tuple[Any, Any]:
    """Trunk and branch, by default with an input for every linear layer."""
    branch = branch_graph(weights, **{"lora_targets": ALL_TARGETS, **options})
    return open_session(trunk_graph(weights)), open_session(branch)


@torch.no_grad()
def read_states(
    encoder: Encoder, tokenizer: TextTokenizer, texts: Sequence[str] = tiny_models.SENTENCES, deltas: Any = None
) -> list[Array]:
    """[tokens, hidden] of each text by torch: the mean of what the branch's layers give, written out layer by layer."""
    batch = tiny_models.token_batch(tokenizer, texts, encoder.config.pad_id)
    hidden, outputs = encoder.trunk(batch), []
    for layer in range(encoder.fork, encoder.config.n_layers):
        hidden = encoder._run(hidden, batch, deltas, range(layer, layer + 1))
        outputs.append(hidden)
    mean = torch.stack(outputs).mean(0) if outputs else hidden
    return [part.numpy() for part in tiny_models.states_of(mean, batch)]


def adapter_inputs(lora: Any, head: Head | None = None) -> dict[str, Any]:
    """The inputs of the branch graph for an adapter and a head, in full float32 precision."""
    found: dict[str, Any] = {} if lora is None else fuse(adapter_arrays(lora))
    if head is not None:
        found |= {"head.weight": head.weight, "head.bias": np.asarray(head.bias)}
    return found


def inputs_of(adapters: Mapping[str, Adapter], required: Shapes | None = None) -> dict[str, Any]:
    """What graphs are fed for adapters, in full precision; with shapes, for a graph that must be fed everything."""
    inputs = {name: adapter_inputs(adapter.lora, adapter.head) for name, adapter in adapters.items()}
    if required is None:
        return inputs
    return {name: complete(feed, required, tiny_models.WIDTH) for name, feed in inputs.items()}


def random_head(config: EncoderConfig, labels: int = 5, seed: int = 0) -> Head:
    rng = np.random.default_rng(seed)
    weight = rng.normal(size=(labels, config.hidden_size)).astype(np.float32)
    return Head(np.ascontiguousarray(weight.T), rng.normal(size=labels).astype(np.float32))


def rows_of(tokens: Sequence[Sequence[int]], pad_id: int, extra: int = 0, left: bool = False) -> dict[str, Any]:
    """`ids` and `mask` of token rows with padding behind them, or before them."""
    width = max(map(len, tokens)) + extra
    ids = np.full((len(tokens), width), pad_id, dtype=np.int64)
    mask = np.zeros((len(tokens), width), np.float32)
    for row, own in enumerate(tokens):
        place = slice(width - len(own), width) if left else slice(len(own))
        ids[row, place], mask[row, place] = own, 1
    return {"ids": ids, "mask": mask}


def sentence_rows(tokenizer: TextTokenizer, pad_id: int = 1, extra: int = 3) -> dict[str, Any]:
    return rows_of([tokens.windows[0] for tokens in tokenizer.encode(tiny_models.SENTENCES)], pad_id, extra)


def eye_pool(mask: Array) -> Array:
    """Every token is a unit."""
    rows, width = mask.shape
    return np.repeat(np.eye(width, dtype=np.float32)[None], rows, axis=0)


def mean_pool(mask: Array) -> Array:
    """Every row is one unit."""
    return np.asarray((mask / mask.sum(1, keepdims=True))[:, None], np.float32)


def features(trunk: Any, branch: Any, rows: dict[str, Any], inputs: dict[str, Any] | None = None) -> Array:
    """The state of every token, [rows, width, hidden], through trunk and branch; 0 at padding."""
    return run_branch(branch, trunk.run(["hidden"], rows)[0], rows["mask"], inputs)


def run_branch(branch: Any, hidden: Array, mask: Array, inputs: dict[str, Any] | None = None) -> Array:
    given = {"hidden": hidden, "mask": mask, "pool": eye_pool(mask), **(inputs or {})}
    return np.asarray(branch.run(["features"], given)[0] * mask[:, :, None])


def largest(left: Array, right: Array) -> float:
    assert left.shape == right.shape
    return float(np.abs(left - right).max())


def same_bits(left: Array, right: Array) -> bool:
    return left.shape == right.shape and left.tobytes() == right.tobytes()


def with_activation(encoder: Encoder, activation: str) -> Encoder:
    """The same weights with another activation."""
    import dataclasses

    other = Encoder(dataclasses.replace(encoder.config, activation=activation), encoder.fork)
    other.load_state_dict(encoder.state_dict())
    return other.eval()


def spoiled(encoder: Encoder, name: str, value: float) -> None:
    """Changes one number of a weight."""
    with torch.no_grad():
        encoder.get_parameter(name).view(-1)[3] = value
