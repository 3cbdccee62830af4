"""Versions that a result depends on."""

from __future__ import annotations

import platform
from importlib.metadata import version

PACKAGES = ("trunkline", "torch", "accelerate", "tokenizers", "safetensors", "numpy", "scikit-learn", "seqeval")


def versions() -> dict[str, str]:
    """Python's version and those of the packages that results depend on."""
    return {"python": platform.python_version(), **{package: version(package) for package in PACKAGES}}
