"""Checkpoints: weights, optimizer state, random state and the caller's own state, in one safetensors file.

The rates of a step are a function of its number, see `loop.rate_factor`, so they need no state. A file is written under
another name, brought to the disk and renamed: a killed run, a full disk or a power cut never leaves half a checkpoint.
"""

from __future__ import annotations

import json
import os
import random as python_random
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor, nn

from trunkline.errors import MismatchError, TrunklineError
from trunkline.training import write_errors

FORMAT = 3
_KEY, _SUFFIX, _WRITING = "trunkline", ".safetensors", ".writing"


def seed_everything(seed: int) -> None:
    """Seeds the random generators that training and the libraries under it use."""
    python_random.seed(seed)
    np.random.seed(seed)
    torch.manual_seed(seed)


def random_state() -> dict[str, Tensor]:
    """The state of torch's generators, on the processor and this GPU; all else is drawn by the seed and the step."""
    return {"cpu": torch.get_rng_state()} | ({"cuda": torch.cuda.get_rng_state()} if torch.cuda.is_available() else {})


def save_checkpoint(
    folder: Path,
    step: int,
    module: nn.Module,
    optimizer: torch.optim.Optimizer,
    extra: Mapping[str, Any],
    keep: int,
    random: Sequence[Mapping[str, Tensor]] | None = None,
) -> Path:
    """Writes the checkpoint of a step and removes all but the last `keep`.

    `extra` is what the caller needs to go on, as JSON; `random` is the `random_state` of every process, by rank, of
    this one alone by default. Raises TrunklineError where the disk is full or cannot be written to; earlier checkpoints
    are as they were.
    """
    states = [random_state()] if random is None else random
    tensors = {f"module/{name}": tensor for name, tensor in module.state_dict().items()}
    for rank, state in enumerate(states):
        tensors |= {f"random/{rank}/{name}": tensor for name, tensor in state.items()}
    for name, parameter in module.named_parameters():
        tensors |= {f"optimizer/{name}/{key}": value for key, value in optimizer.state.get(parameter, {}).items()}
    content = {"format": FORMAT, "step": step, "processes": len(states), "extra": dict(extra)}
    path = folder / f"step-{step:08d}{_SUFFIX}"
    write_tensors(path, tensors, content)
    with write_errors(folder, f"{path.name} is complete, but an older checkpoint cannot be removed"):
        for old in [*checkpoints(folder)[:-keep], *folder.glob(f".*{_WRITING}")]:
            old.unlink()
    return path


def checkpoints(folder: Path) -> list[Path]:
    """The checkpoints of a run, oldest first."""
    return sorted(folder.glob(f"step-*{_SUFFIX}"))


def load_checkpoint(
    path: Path, module: nn.Module, optimizer: torch.optim.Optimizer, rank: int = 0
) -> tuple[int, dict[str, Any]]:
    """Restores what `save_checkpoint` got, and a rank's random state; returns the steps done and the caller's `extra`.

    Raises:
        MismatchError: The checkpoint is of another format, another module or fewer processes.
        TrunklineError: It is damaged; nothing was restored then.
    """
    content, tensors = read_tensors(path)
    if content.get("format") != FORMAT:
        raise MismatchError(
            f"{path} has format {content.get('format')}",
            expected=f"format {FORMAT}",
            todo="Use another run folder, or the version of trunkline that wrote it",
        )
    if rank >= content["processes"]:
        raise MismatchError(
            f"{path} is of {content['processes']} processes and this is number {rank + 1}",
            expected="as many processes as the run was started with",
        )
    try:
        module.load_state_dict(_part(tensors, "module/"))
    except RuntimeError as error:
        raise MismatchError(
            f"{path} does not fit this recipe ({' '.join(str(error).split())[:300]})", todo="Use another run folder"
        ) from error
    _restore_optimizer(module, optimizer, _part(tensors, "optimizer/"))
    random = _part(tensors, f"random/{rank}/")
    torch.set_rng_state(random["cpu"])
    if "cuda" in random and torch.cuda.is_available():
        torch.cuda.set_rng_state(random["cuda"])
    return int(content["step"]), content["extra"]


def write_tensors(path: Path, tensors: Mapping[str, Tensor], content: Mapping[str, Any]) -> None:
    """Writes tensors with plain data as metadata, complete or not at all."""
    with write_errors(path, "earlier checkpoints are intact"):
        path.parent.mkdir(parents=True, exist_ok=True)
        temporary = path.with_name(f".{path.name}{_WRITING}")
        try:
            owned = {name: tensor.detach().contiguous() for name, tensor in tensors.items()}
            save_file(owned, temporary, {_KEY: json.dumps(content)})
            with temporary.open("rb+") as file:
                os.fsync(file.fileno())
            temporary.replace(path)
        finally:
            temporary.unlink(missing_ok=True)


def read_tensors(path: Path) -> tuple[dict[str, Any], dict[str, Tensor]]:
    """The content and tensors of a file that `write_tensors` wrote; raises a TrunklineError if it is damaged."""
    try:
        with safe_open(str(path), framework="pt") as file:
            names = file.keys()
            return json.loads((file.metadata() or {})[_KEY]), {name: file.get_tensor(name) for name in names}
    except (OSError, ValueError, KeyError, SafetensorError) as error:
        raise TrunklineError(
            f"{path} is damaged ({error})",
            expected="a complete checkpoint, as it was written",
            todo="Delete it and run the same command again, it goes on from the one before",
        ) from error


def _part(tensors: Mapping[str, Tensor], prefix: str) -> dict[str, Tensor]:
    return {name.removeprefix(prefix): tensor for name, tensor in tensors.items() if name.startswith(prefix)}


def _restore_optimizer(module: nn.Module, optimizer: torch.optim.Optimizer, tensors: Mapping[str, Tensor]) -> None:
    parameters = dict(module.named_parameters())
    # A count of steps lies beside the weights where the optimizer's kernel reads it, and else in main memory.
    fused = [group for group in optimizer.param_groups if group.get("fused") or group.get("capturable")]
    on_device = {id(parameter) for group in fused for parameter in group["params"]}
    optimizer.state.clear()
    for key, tensor in tensors.items():
        name, _, entry = key.rpartition("/")
        parameter = parameters[name]
        here = entry != "step" or id(parameter) in on_device
        optimizer.state[parameter][entry] = tensor.to(parameter.device) if here else tensor
