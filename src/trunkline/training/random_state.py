"""The state of every random generator that training may use, as tensors."""

from __future__ import annotations

import random
from collections.abc import Mapping

import numpy as np
import torch
from torch import Tensor


def seed_everything(seed: int) -> None:
    """Seeds the random generators that training uses."""
    random.seed(seed)
    np.random.seed(seed)
    torch.manual_seed(seed)


def random_state() -> dict[str, Tensor]:
    """The state of torch's generators (the processor's and this process's GPU's), of numpy's and of Python's."""
    _, python, python_normal = random.getstate()
    _, keys, position, has_normal, normal = np.random.get_state()
    state = {
        "torch": torch.get_rng_state(),
        "python": torch.tensor(python, dtype=torch.int64),
        # Both may hold the second of two normal deviates that were drawn at once.
        "python/normal": torch.tensor([] if python_normal is None else [python_normal], dtype=torch.float64),
        "numpy": torch.tensor([*map(int, keys), position], dtype=torch.int64),
        "numpy/normal": torch.tensor([normal] if has_normal else [], dtype=torch.float64),
    }
    if torch.cuda.is_available():
        state["cuda"] = torch.cuda.get_rng_state()
    return state


def restore_random_state(state: Mapping[str, Tensor]) -> None:
    """Goes on from what `random_state` returned."""
    torch.set_rng_state(state["torch"])
    numbers, normal = state["python"].tolist(), state["python/normal"].tolist()
    random.setstate((3, tuple(numbers), normal[0] if normal else None))
    *keys, position = state["numpy"].tolist()
    normal = state["numpy/normal"].tolist()
    np.random.set_state(
        ("MT19937", np.asarray(keys, dtype=np.uint32), position, len(normal), normal[0] if normal else 0.0)
    )
    if "cuda" in state and torch.cuda.is_available():
        torch.cuda.set_rng_state(state["cuda"])
