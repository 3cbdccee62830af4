"""Where low-rank updates go into graphs, and the inputs that carry them."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import numpy.typing as npt

FloatArray = npt.NDArray[np.float32]
Inputs = dict[str, FloatArray]
Shapes = Mapping[str, tuple[int, int]]

LORA_TARGETS: dict[str, tuple[str, ...]] = {
    "qkv": ("query", "key", "value"),
    "out": ("out",),
    "up": ("up",),
    "down": ("down",),
}
"""LoRA target of a graph -> the linear layers whose updates go in there."""

LINEARS = tuple(target for targets in LORA_TARGETS.values() for target in targets)
"""The linear layers of a transformer layer; LoRA can sit on each of them."""

HEAD = ("head.weight", "head.bias")
"""Inputs of the head. What else a file says of a head is for decoding, and no graph has an input for it."""
