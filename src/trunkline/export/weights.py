"""A backbone's weights as numpy arrays, in the layout of the graphs: transposed, query, key and value side by side."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from torch import nn

from trunkline.bundle.lora import SLOTS
from trunkline.encoder.architectures import EncoderConfig
from trunkline.encoder.encoder import Embeddings, Encoder, Layer
from trunkline.encoder.lora import LoraAdapter, LowRank
from trunkline.encoder.storage import backbone_hash
from trunkline.errors import EncoderError

PROJECT = "embeddings.project"
FloatArray = npt.NDArray[np.float32]


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
    """All that a graph needs of an encoder. `hash` is that of the backbone before anything was merged into it."""

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
        found |= {f"layers.{number}.{name}": getattr(layer, name) for name in SLOTS}
    return found


def with_linear_layers(weights: BackboneWeights, layers: Mapping[str, Linear]) -> BackboneWeights:
    """The backbone with other weights in some linear layers."""
    changed = []
    for number, layer in enumerate(weights.layers):
        own = {name: layers.get(f"layers.{number}.{name}", getattr(layer, name)) for name in SLOTS}
        changed.append(dataclasses.replace(layer, **own))
    embeddings = dataclasses.replace(weights.embeddings, project=layers.get(PROJECT, weights.embeddings.project))
    return dataclasses.replace(weights, embeddings=embeddings, layers=tuple(changed))


def take_weights(encoder: Encoder, lora: LoraAdapter | None = None) -> BackboneWeights:
    """Copies the weights out of an encoder.

    Args:
        encoder: The encoder; it is not changed.
        lora: Is merged into the weights, `W + alpha / rank * B A` (Hu et al. 2022, section 4.1).

    Raises:
        EncoderError: A weight is not finite.
        MismatchError: The adapter does not fit the encoder.
    """
    if lora is not None:
        lora.config.check(encoder.config, 0)
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
        layers=tuple(_layer(layer, number, lora) for number, layer in enumerate(_layers(encoder))),
    )


def _layers(encoder: Encoder) -> list[Layer]:
    return [layer for layer in encoder.layers if isinstance(layer, Layer)]


def _array(tensor: object) -> FloatArray:
    return np.ascontiguousarray(tensor.detach().to("cpu").float().numpy())  # type: ignore[attr-defined]


def _linear(layer: nn.Linear, part: LowRank | None = None) -> Linear:
    weight = layer.weight.detach()
    if part is not None:
        weight = weight + part.scale * (part.b.detach() @ part.a.detach())
    return Linear(_array(weight.T), _array(layer.bias))


def _norm(norm: nn.LayerNorm) -> Norm:
    return Norm(_array(norm.weight), _array(norm.bias))


def _embeddings(embeddings: Embeddings) -> EmbeddingWeights:
    position = embeddings.position.weight.detach()
    if embeddings.kind is not None:
        position = position + embeddings.kind.weight.detach()[0]
    return EmbeddingWeights(
        word=_array(embeddings.word.weight),
        position=_array(position),
        norm=_norm(embeddings.norm),
        project=None if embeddings.project is None else _linear(embeddings.project),
    )


def _layer(layer: Layer, number: int, lora: LoraAdapter | None) -> LayerWeights:
    def linear(name: str) -> Linear:
        return _linear(getattr(layer, name), None if lora is None else lora.part(number, name))

    parts = [linear(name) for name in ("query", "key", "value")]
    return LayerWeights(
        qkv=Linear(
            np.concatenate([part.weight for part in parts], axis=1), np.concatenate([part.bias for part in parts])
        ),
        out=linear("out"),
        up=linear("up"),
        down=linear("down"),
        attention_norm=_norm(layer.attention_norm),
        output_norm=_norm(layer.output_norm),
    )
