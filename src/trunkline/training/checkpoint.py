"""Checkpoints: weights, optimizer state, random state and the caller's own state, in one safetensors file.

The rates of a step are a function of its number, see `loop.rate_factor`, so they need no state. A file is written under
another name, brought to the disk and renamed: a killed run, a full disk or a power cut never leaves half a checkpoint.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor, nn

from trunkline.bundle.files import write_atomic
from trunkline.errors import MismatchError, TrunklineError
from trunkline.training import write_errors

FORMAT = 3
_KEY, _SUFFIX = "trunkline", ".safetensors"


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
    with write_errors(path, "earlier checkpoints are intact"):
        # Of a run that was killed here, which comes back to this step.
        for left in folder.glob(".step-*.part"):
            left.unlink()
        owned = {name: tensor.detach().contiguous() for name, tensor in tensors.items()}
        write_atomic(path, save(owned, {_KEY: json.dumps(content)}))
    with write_errors(folder, f"{path.name} is complete, but an older checkpoint cannot be removed"):
        for old in checkpoints(folder)[:-keep]:
            old.unlink()
    return path


def checkpoints(folder: Path) -> list[Path]:
    """The checkpoints of a run, oldest first."""
    return sorted(folder.glob(f"step-*{_SUFFIX}"))


def load_checkpoint(
    path: Path, module: nn.Module, optimizer: torch.optim.Optimizer, rank: int = 0
) -> tuple[int, dict[str, Any]]:
    """Restores what `save_checkpoint` got, and a rank's random state; returns the steps done and the caller's `extra`.

    Raises MismatchError for another format, another module or fewer processes, and TrunklineError for a damaged file;
    nothing was restored then.
    """
    try:
        with safe_open(str(path), framework="pt") as file:
            content = json.loads((file.metadata() or {})[_KEY])
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    except (OSError, ValueError, KeyError, SafetensorError) as error:
        todo = "Delete it and run the same command again, it goes on from the one before"
        expected = "a complete checkpoint, as it was written"
        raise TrunklineError(f"{path} is damaged ({error})", expected=expected, todo=todo) from error
    if content.get("format") != FORMAT:
        given, todo = content.get("format"), "Use another run folder, or the version of trunkline that wrote it"
        raise MismatchError(f"{path} has format {given}", expected=f"format {FORMAT}", todo=todo)
    if rank >= content["processes"]:
        given = f"{path} is of {content['processes']} processes and this is number {rank + 1}"
        raise MismatchError(given, expected="as many processes as the run was started with")
    try:
        module.load_state_dict(_part(tensors, "module/"))
    except RuntimeError as error:
        given = f"{path} does not fit this recipe ({' '.join(str(error).split())[:300]})"
        raise MismatchError(given, todo="Use another run folder") from error
    names = {id(parameter): name for name, parameter in module.named_parameters()}
    optimized = [names[id(parameter)] for group in optimizer.param_groups for parameter in group["params"]]
    states = {number: _part(tensors, f"optimizer/{name}/") for number, name in enumerate(optimized)}
    known = {number: state for number, state in states.items() if state}
    optimizer.load_state_dict({"state": known, "param_groups": optimizer.state_dict()["param_groups"]})
    random = _part(tensors, f"random/{rank}/")
    torch.set_rng_state(random["cpu"])
    if "cuda" in random and torch.cuda.is_available():
        torch.cuda.set_rng_state(random["cuda"])
    return int(content["step"]), content["extra"]


def _part(tensors: Mapping[str, Tensor], prefix: str) -> dict[str, Tensor]:
    return {name.removeprefix(prefix): tensor for name, tensor in tensors.items() if name.startswith(prefix)}
