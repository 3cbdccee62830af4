"""A backbone's weights as numpy arrays, in the layout of the graphs: transposed, query, key and value side by side."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from torch import Tensor, nn

from trunkline.bundle.lora import LORA_TARGETS, FloatArray
from trunkline.encoder.architectures import EncoderConfig
from trunkline.encoder.encoder import Embeddings, Encoder
from trunkline.encoder.storage import backbone_hash
from trunkline.errors import EncoderError

PROJECT = "embeddings.project"


@dataclass(frozen=True, slots=True)
class Linear:
    """A linear layer: `weight` [inputs, outputs], `bias` [outputs]."""

    weight: FloatArray
    bias: FloatArray


@dataclass(frozen=True, slots=True)
class Norm:
    """The scale and shift of a layer normalisation, both [width]."""

    weight: FloatArray
    bias: FloatArray


@dataclass(frozen=True, slots=True)
class EmbeddingWeights:
    """`word` [vocabulary, size], `position` [positions, size] with the segment kind added, the norm, the projection."""

    word: FloatArray
    position: FloatArray
    norm: Norm
    project: Linear | None


@dataclass(frozen=True, slots=True)
class LayerWeights:
    """A transformer layer; `qkv` is query, key and value side by side, [hidden, 3 * hidden]."""

    qkv: Linear
    out: Linear
    up: Linear
    down: Linear
    attention_norm: Norm
    output_norm: Norm


@dataclass(frozen=True, slots=True)
class BackboneWeights:
    """All that a graph needs of an encoder; `hash` is that of the whole encoder."""

    config: EncoderConfig
    fork: int
    hash: str
    embeddings: EmbeddingWeights
    layers: tuple[LayerWeights, ...]


def linear_layers(weights: BackboneWeights) -> dict[str, Linear]:
    """The linear layers of a backbone by the names that graphs give them, in the order in which they run."""
    project = weights.embeddings.project
    found = {PROJECT: project} if project is not None else {}
    for number, layer in enumerate(weights.layers):
        found |= {f"layers.{number}.{name}": getattr(layer, name) for name in LORA_TARGETS}
    return found


def with_linear_layers(weights: BackboneWeights, layers: Mapping[str, Linear]) -> BackboneWeights:
    """The backbone with other weights in all of its linear layers."""
    changed = []
    for number, layer in enumerate(weights.layers):
        own: dict[str, Any] = {name: layers[f"layers.{number}.{name}"] for name in LORA_TARGETS}
        changed.append(dataclasses.replace(layer, **own))
    embeddings = dataclasses.replace(weights.embeddings, project=layers.get(PROJECT))
    return dataclasses.replace(weights, embeddings=embeddings, layers=tuple(changed))


def take_weights(encoder: Encoder) -> BackboneWeights:
    """Copies the weights out of an encoder; raises EncoderError where one is not finite."""
    wrong = [name for name, tensor in encoder.state_dict().items() if not tensor.isfinite().all()]
    if wrong:
        raise EncoderError(
            f"{len(wrong)} weights have values that are not finite, the first is {wrong[0]}",
            expected="finite weights",
            todo="Load the encoder again, or take an earlier checkpoint",
        )
    return BackboneWeights(
        config=encoder.config,
        fork=encoder.fork,
        hash=backbone_hash(encoder),
        embeddings=_embeddings(encoder.embeddings),
        layers=tuple(_layer(layer) for layer in encoder.layers),
    )


def shorten_positions(weights: BackboneWeights, max_length: int) -> BackboneWeights:
    """A backbone without the positions behind a window of `max_length` tokens, which nothing ever reads.

    Raises:
        EncoderError: The encoder has fewer.
    """
    if not 2 < max_length <= weights.config.max_length:
        raise EncoderError(f"windows of {max_length} tokens", expected=f"3 to {weights.config.max_length}")
    end = max_length + weights.config.position_offset
    position = np.ascontiguousarray(weights.embeddings.position[:end])
    embeddings = dataclasses.replace(weights.embeddings, position=position)
    config = dataclasses.replace(weights.config, max_positions=end)
    return dataclasses.replace(weights, config=config, embeddings=embeddings)


def _array(tensor: Tensor) -> FloatArray:
    return np.ascontiguousarray(tensor.detach().to("cpu").float().numpy())


def _linear(layer: nn.Linear) -> Linear:
    return Linear(_array(layer.weight.T), _array(layer.bias))


def _norm(norm: nn.LayerNorm) -> Norm:
    return Norm(_array(norm.weight), _array(norm.bias))


def _embeddings(embeddings: Embeddings) -> EmbeddingWeights:
    position, project = embeddings.position.weight.detach(), embeddings.project
    if embeddings.kind is not None:
        position = position + embeddings.kind.weight.detach()[0]
    return EmbeddingWeights(
        word=_array(embeddings.word.weight),
        position=_array(position),
        norm=_norm(embeddings.norm),
        project=None if project is None else _linear(project),
    )


def _layer(layer: Any) -> LayerWeights:
    parts = [_linear(getattr(layer, name)) for name in ("query", "key", "value")]
    qkv = Linear(np.concatenate([p.weight for p in parts], axis=1), np.concatenate([p.bias for p in parts]))
    out, up, down = (_linear(getattr(layer, name)) for name in ("out", "up", "down"))
    return LayerWeights(qkv, out, up, down, _norm(layer.attention_norm), _norm(layer.output_norm))
