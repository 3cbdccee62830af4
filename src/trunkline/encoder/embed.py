"""Embeddings of whole texts by an encoder as it is, without adapters."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np

from trunkline.encoder.bundle_files import load_any
from trunkline.encoder.encoder import Encoder
from trunkline.encoder.features import Branch, Features, branch_features
from trunkline.encoder.lora import Deltas
from trunkline.text.packing import text_unit
from trunkline.text.tokens import TextTokenizer


def embed_texts(
    encoder: Encoder,
    tokenizer: TextTokenizer,
    texts: Sequence[str],
    deltas: Deltas | None = None,
    *,
    bf16: bool = False,
) -> Features:
    """Mean-pooled, unnormalised embeddings of texts, [texts, width] float32."""
    units = [text_unit(tokens) for tokens in tokenizer.encode(texts)]
    parts = branch_features(encoder, [Branch(units, deltas)], bf16=bf16, last=True)[0]
    return np.stack([part[0] for part in parts]) if parts else np.zeros((0, encoder.config.hidden_size), np.float32)


def embedder(name: str, max_length: int = 128) -> Callable[[Sequence[str]], Features]:
    """A function that embeds texts by an encoder or bundle; a bundle's classification adapter is used if it has one."""
    loaded = load_any(name, max_length=max_length)
    return lambda texts: embed_texts(loaded.encoder, loaded.tokenizer, texts, loaded.primary("classification"))
