"""A backbone as graphs are made of it: its tensors as numpy arrays by the names of the graphs' constants."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt

from trunkline.encoder.architectures import EncoderConfig, weights_hash
from trunkline.encoder.encoder import Encoder
from trunkline.encoder.storage import encoder_arrays
from trunkline.engine.rounding import graph_tensors
from trunkline.errors import EncoderError


@dataclass(frozen=True, slots=True)
class BackboneWeights:
    """All that a graph needs of an encoder.

    Attributes:
        config: The encoder's sizes.
        fork: The first layer of the branch.
        hash: Of the whole encoder.
        tensors: `embeddings.word`, `.position`, `.norm` and `.project`, and for each layer `layers.N.qkv` (query, key
            and value side by side), `.out`, `.up`, `.down`, `.attention_norm` and `.output_norm`, each with `.weight`
            ([inputs, outputs] of a linear layer) and mostly `.bias`; rounded ones as `quantised` leaves them.
        facts: What readers of a graph should know of the tensors.
    """

    config: EncoderConfig
    fork: int
    hash: str
    tensors: Mapping[str, npt.NDArray[Any]]
    facts: Mapping[str, str] = field(default_factory=lambda: {"weights": "float32"})


def take_weights(encoder: Encoder) -> BackboneWeights:
    """The weights of an encoder; raises EncoderError where one is not finite."""
    tensors = encoder_arrays(encoder)
    wrong = [name for name, tensor in tensors.items() if not np.isfinite(tensor).all()]
    if wrong:
        raise EncoderError(
            f"{len(wrong)} weights have values that are not finite, the first is {wrong[0]}",
            expected="finite weights",
            todo="Load the encoder again, or take an earlier checkpoint",
        )
    return BackboneWeights(encoder.config, encoder.fork, weights_hash(encoder.config, tensors), graph_tensors(tensors))


def shorten_positions(weights: BackboneWeights, max_length: int) -> BackboneWeights:
    """A backbone without the positions behind a window of `max_length` tokens, which nothing ever reads.

    Raises:
        EncoderError: The encoder has fewer.
    """
    if not 2 < max_length <= weights.config.max_length:
        raise EncoderError(f"windows of {max_length} tokens", expected=f"3 to {weights.config.max_length}")
    end, name = max_length + weights.config.position_offset, "embeddings.position.weight"
    config = dataclasses.replace(weights.config, max_positions=end)
    return dataclasses.replace(weights, config=config, tensors={**weights.tensors, name: weights.tensors[name][:end]})
