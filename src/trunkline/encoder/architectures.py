"""The supported Hugging Face architectures, as data: where each one keeps its sizes and its weights.

All of them are post-norm transformer encoders with absolute positions (Vaswani et al. 2017, section 3.1; Devlin et al.
2019); they differ in names, in an optional embedding projection (ELECTRA) and in where positions start (RoBERTa).
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, replace
from itertools import product
from typing import Any

import numpy as np
import numpy.typing as npt

from trunkline.bundle.manifest import EncoderFacts
from trunkline.errors import EncoderError


@dataclass(frozen=True, slots=True)
class EncoderConfig:
    """The sizes of an encoder. `position_offset` is the index of the first real position (RoBERTa: padding + 1)."""

    model_type: str
    vocab_size: int
    hidden_size: int
    embedding_size: int
    n_layers: int
    n_heads: int
    intermediate_size: int
    activation: str
    max_positions: int
    type_vocab_size: int
    norm_eps: float
    pad_id: int
    position_offset: int = 0

    @property
    def max_length(self) -> int:
        """The longest sequence, special tokens included."""
        return self.max_positions - self.position_offset


@dataclass(frozen=True, slots=True)
class Architecture:
    """Where one Hugging Face architecture keeps its sizes, by `keys` in the order of `_SIZES`, and its weights."""

    prefix: str
    keys: tuple[str, ...]
    layer: str
    layer_parts: Mapping[str, str]
    positions_after_padding: bool = False

    def weight_names(self, config: EncoderConfig) -> dict[str, str]:
        """Our name of every tensor -> its name in a checkpoint (without the prefix)."""
        left_out = {"embeddings.kind"} if config.type_vocab_size == 0 else set()
        left_out |= {"embeddings.project"} if config.embedding_size == config.hidden_size else set()
        modules = {ours: theirs for ours, theirs in _EMBEDDINGS.items() if ours not in left_out}
        for layer, linear in product(range(config.n_layers), self.layer_parts):
            modules[f"layers.{layer}.{linear}"] = self.module_name(layer, linear)
        alone = ("embeddings.word", "embeddings.position", "embeddings.kind")
        return {
            f"{ours}.{part}": f"{theirs}.{part}"
            for ours, theirs in modules.items()
            for part in (("weight",) if ours in alone else ("weight", "bias"))
        }

    def module_name(self, layer: int, linear: str) -> str:
        """The path of a linear layer inside the Hugging Face model, as PEFT names it."""
        return f"{self.layer.format(layer)}.{self.layer_parts[linear]}"


_SIZES = ("hidden_size", "n_layers", "n_heads", "intermediate_size", "activation")
_BERT_KEYS = ("hidden_size", "num_hidden_layers", "num_attention_heads", "intermediate_size", "hidden_act")
_DISTILBERT_KEYS = ("dim", "n_layers", "n_heads", "hidden_dim", "activation")
_EMBEDDINGS = {
    "embeddings.word": "embeddings.word_embeddings",
    "embeddings.position": "embeddings.position_embeddings",
    "embeddings.kind": "embeddings.token_type_embeddings",
    "embeddings.norm": "embeddings.LayerNorm",
    "embeddings.project": "embeddings_project",
}
_BERT_LAYER = {
    "query": "attention.self.query",
    "key": "attention.self.key",
    "value": "attention.self.value",
    "out": "attention.output.dense",
    "attention_norm": "attention.output.LayerNorm",
    "up": "intermediate.dense",
    "down": "output.dense",
    "output_norm": "output.LayerNorm",
}
_DISTILBERT_LAYER = {
    "query": "attention.q_lin",
    "key": "attention.k_lin",
    "value": "attention.v_lin",
    "out": "attention.out_lin",
    "attention_norm": "sa_layer_norm",
    "up": "ffn.lin1",
    "down": "ffn.lin2",
    "output_norm": "output_layer_norm",
}
_BERT = Architecture("bert", _BERT_KEYS, "encoder.layer.{}", _BERT_LAYER)
_ROBERTA = replace(_BERT, prefix="roberta", positions_after_padding=True)
ARCHITECTURES: dict[str, Architecture] = {
    "bert": _BERT,
    "roberta": _ROBERTA,
    "xlm-roberta": _ROBERTA,
    "electra": replace(_BERT, prefix="electra"),
    "distilbert": Architecture("distilbert", _DISTILBERT_KEYS, "transformer.layer.{}", _DISTILBERT_LAYER),
}
ACTIVATIONS = ("gelu", "gelu_new", "gelu_pytorch_tanh", "relu", "silu")


def read_config(raw: Mapping[str, Any], where: str) -> EncoderConfig:
    """Turns the content of a `config.json` into sizes.

    Raises EncoderError if the architecture or one of its switches is not supported, or a size missing or senseless.
    """
    model_type = str(raw.get("model_type", ""))
    if model_type not in ARCHITECTURES:
        raise EncoderError(
            f"{where}: architecture {model_type!r} is not supported",
            expected="one of " + ", ".join(sorted(ARCHITECTURES)) + " (MiniLM checkpoints are of type bert)",
            todo="Choose another encoder; `trunkline encoders` lists those usable here",
        )
    architecture = ARCHITECTURES[model_type]
    if raw.get("position_embedding_type", "absolute") != "absolute" or raw.get("is_decoder"):
        raise EncoderError(
            f"{where}: relative positions or a decoder", expected="an encoder with absolute position embeddings"
        )
    try:
        sizes = {ours: raw[theirs] for ours, theirs in zip(_SIZES, architecture.keys, strict=True)}
        # As in transformers where a configuration leaves it out.
        pad_id = int(raw.get("pad_token_id", architecture.positions_after_padding) or 0)
        config = EncoderConfig(
            model_type=model_type,
            vocab_size=int(raw["vocab_size"]),
            embedding_size=int(raw.get("embedding_size") or sizes["hidden_size"]),
            max_positions=int(raw.get("max_position_embeddings", 512)),
            type_vocab_size=0 if model_type == "distilbert" else int(raw.get("type_vocab_size", 2)),
            norm_eps=float(raw.get("layer_norm_eps", 1e-12)),
            pad_id=pad_id,
            position_offset=pad_id + 1 if architecture.positions_after_padding else 0,
            activation=str(sizes.pop("activation")),
            **{name: int(value) for name, value in sizes.items()},
        )
    except (KeyError, TypeError, ValueError) as error:
        raise EncoderError(f"{where}: a size is missing or not a number ({error})") from error
    if config.activation not in ACTIVATIONS:
        raise EncoderError(
            f"{where}: activation {config.activation!r} is not supported", expected="one of " + ", ".join(ACTIVATIONS)
        )
    if min(config.hidden_size, config.n_heads, config.n_layers) < 1 or config.hidden_size % config.n_heads:
        raise EncoderError(f"{where}: width {config.hidden_size} does not divide into {config.n_heads} heads")
    return config


def weights_hash(config: EncoderConfig, tensors: Mapping[str, npt.NDArray[np.float32]]) -> str:
    """SHA-256 over the sizes, names and float32 bytes of a backbone's tensors by our names, however they are stored.

    An adapter carries it, so that it is refused on any other backbone.
    """
    digest = hashlib.sha256(repr(config).encode())
    for name, tensor in sorted(tensors.items()):
        digest.update(f"{name}{tuple(tensor.shape)}".encode())
        digest.update(np.ascontiguousarray(tensor, np.float32).data)
    return digest.hexdigest()


def encoder_facts(config: EncoderConfig, fork: int, max_length: int, overlap: int) -> EncoderFacts:
    """What a bundle's manifest says of an encoder and its windows."""
    own: dict[str, Any] = {"fork": fork, "max_length": max_length, "overlap": overlap}
    own["vocabulary_size"] = config.vocab_size
    return EncoderFacts(**own, **{name: getattr(config, name) for name in EncoderFacts.__slots__ if name not in own})
