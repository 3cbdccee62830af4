"""Checkpoints: weights, optimizer state, random state and the caller's own state, as safetensors and JSON.

A checkpoint is written into a temporary folder that is renamed when it is complete, so a killed run never leaves half.
"""

from __future__ import annotations

import json
import random
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from trunkline.errors import MismatchError, TrunklineError

FORMAT = 1


def save_checkpoint(
    folder: Path, step: int, module: nn.Module, optimizer: torch.optim.Optimizer, extra: Mapping[str, Any], keep: int
) -> Path:
    """Writes the checkpoint of a step and removes all but the last `keep`.

    Args:
        folder: The folder of all checkpoints of a run.
        step: Steps done.
        module: Everything that is trained.
        optimizer: Its optimizer, whose parameters are the module's.
        extra: What the caller needs to go on, as JSON.
        keep: How many checkpoints stay.
    """
    folder.mkdir(parents=True, exist_ok=True)
    final = folder / f"step-{step:08d}"
    temporary = folder / f".writing-{step:08d}"
    for half in folder.glob(".writing-*"):
        shutil.rmtree(half, ignore_errors=True)
    temporary.mkdir()
    try:
        save_file(_contiguous(module.state_dict()), temporary / "module.safetensors")
        state, numbers = _optimizer_state(module, optimizer)
        save_file(state, temporary / "optimizer.safetensors")
        save_file({"torch": torch.get_rng_state()}, temporary / "random.safetensors")
        content = {"format": FORMAT, "step": step, "optimizer": numbers, "extra": dict(extra)}
        (temporary / "state.json").write_text(json.dumps(content), encoding="utf-8")
        shutil.rmtree(final, ignore_errors=True)
        temporary.rename(final)
    except (OSError, SafetensorError) as error:
        raise TrunklineError(
            f"checkpoint {final} could not be written ({error}); earlier checkpoints are intact",
            todo="Free some space and run the same command again, it goes on from the last checkpoint",
        ) from error
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
    for old in checkpoints(folder)[:-keep]:
        shutil.rmtree(old)
    return final


def checkpoints(folder: Path) -> list[Path]:
    """The complete checkpoints of a run, oldest first."""
    return sorted(item for item in folder.glob("step-*") if (item / "state.json").is_file())


def load_checkpoint(path: Path, module: nn.Module, optimizer: torch.optim.Optimizer) -> tuple[int, dict[str, Any]]:
    """Restores module, optimizer and random state.

    Returns:
        The steps done and the caller's `extra`.

    Raises:
        MismatchError: The checkpoint is of another format or another module.
    """
    content = json.loads((path / "state.json").read_text(encoding="utf-8"))
    if content.get("format") != FORMAT:
        raise MismatchError(f"{path} has format {content.get('format')}", expected=f"format {FORMAT}")
    try:
        module.load_state_dict(load_file(path / "module.safetensors"))
    except RuntimeError as error:
        raise MismatchError(f"{path} does not fit this recipe ({error})", todo="Use another run folder") from error
    _restore_optimizer(module, optimizer, load_file(path / "optimizer.safetensors"), content["optimizer"])
    torch.set_rng_state(load_file(path / "random.safetensors")["torch"])
    return int(content["step"]), content["extra"]


def seed_everything(seed: int) -> None:
    """Seeds the random generators that training uses."""
    random.seed(seed)
    np.random.seed(seed)
    torch.manual_seed(seed)


def _contiguous(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    return {name: tensor.detach().contiguous() for name, tensor in tensors.items()}


def _optimizer_state(
    module: nn.Module, optimizer: torch.optim.Optimizer
) -> tuple[dict[str, Tensor], dict[str, dict[str, float]]]:
    tensors: dict[str, Tensor] = {}
    numbers: dict[str, dict[str, float]] = {}
    for name, parameter in module.named_parameters():
        for key, value in optimizer.state.get(parameter, {}).items():
            if isinstance(value, Tensor):
                tensors[f"{name}/{key}"] = value.detach().clone()
            else:
                numbers.setdefault(name, {})[key] = value
    return tensors, numbers


def _restore_optimizer(
    module: nn.Module,
    optimizer: torch.optim.Optimizer,
    tensors: Mapping[str, Tensor],
    numbers: Mapping[str, Mapping[str, float]],
) -> None:
    parameters = dict(module.named_parameters())
    for key, tensor in tensors.items():
        name, _, entry = key.rpartition("/")
        optimizer.state[parameters[name]][entry] = tensor
    for name, entries in numbers.items():
        optimizer.state[parameters[name]].update(entries)
