"""What pre-finetuning and merging make: a backbone with its primary adapters, ready to be saved as a bundle."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from trunkline.encoder.adapter_file import AdapterFile
from trunkline.encoder.bundle_files import Loaded
from trunkline.encoder.encoder import Encoder
from trunkline.encoder.lora import LoraAdapter
from trunkline.encoder.storage import backbone_hash
from trunkline.text.tokens import TextTokenizer

START = "started_from"
"""In a bundle's info: the hash of the backbone that training began with."""


def result_of(
    encoder: Encoder,
    start: Loaded,
    tokenizer: TextTokenizer,
    adapters: Mapping[str, LoraAdapter],
    info: Mapping[str, Any],
) -> Loaded:
    """A trained backbone with its primary adapters, which are moved to the CPU.

    Args:
        encoder: The backbone.
        start: What it started from.
        tokenizer: With the windows that it was trained on.
        adapters: By family.
        info: How it was made.
    """
    encoder = encoder.cpu().eval()
    backbone = backbone_hash(encoder)
    primaries = {
        family: AdapterFile(family, backbone, encoder.fork, adapter.cpu().eval())
        for family, adapter in adapters.items()
    }
    info = {**info, START: start.backbone}
    return Loaded(encoder, tokenizer, start.config, backbone, primaries, {}, info)
