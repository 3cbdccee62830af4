"""Shared fixtures: no network, one thread, tiny random encoders made once a session."""

from __future__ import annotations

import os

os.environ["HF_HUB_OFFLINE"] = "1"

import copy
import random
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch

import tiny_models
from trunkline.encoder.bundle_files import Loaded, load_any

# Tiny tensors gain nothing from more threads, and lose a hundredfold to waiting where the cores are busy.
torch.set_num_threads(1)


@pytest.fixture(autouse=True)
def _seeds() -> None:
    random.seed(0)
    np.random.seed(0)
    torch.manual_seed(0)


@pytest.fixture(autouse=True, scope="session")
def _own_cache(tmp_path_factory: pytest.TempPathFactory) -> None:
    os.environ["TRUNKLINE_CACHE"] = str(tmp_path_factory.mktemp("cache"))


@pytest.fixture(scope="session")
def tiny_folder(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    """The folder of the tiny encoder of an architecture, as transformers saves it; treat it as read-only."""
    made: dict[str, Path] = {}

    def get(kind: str) -> Path:
        if kind not in made:
            layers = 4 if kind == "bert" else 3
            made[kind] = tiny_models.save_model(kind, tmp_path_factory.mktemp("encoders") / kind, layers)
        return made[kind]

    return get


@pytest.fixture(scope="session")
def _tiny(tiny_folder: Callable[[str], Path]) -> Loaded:
    return load_any(str(tiny_folder("bert")), fork=2, max_length=64)


@pytest.fixture
def tiny(_tiny: Loaded) -> Loaded:
    """The tiny BERT: 4 layers, fork at 2, windows of 64 tokens; each test gets its own copy."""
    return copy.deepcopy(_tiny)
