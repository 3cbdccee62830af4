"""Checkpoints: weights, optimizer state, averages, random state and the caller's own state, as safetensors and JSON.

The rates of a step are a function of its number, see `loop.rate_factor`, so they need no state. A killed run, a full
disk or a power cut never leaves half a checkpoint, see `folders`.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from trunkline.atomic import write_atomic
from trunkline.errors import MismatchError, TrunklineError
from trunkline.training.ema import Ema
from trunkline.training.folders import find_folders, remove_folder, write_errors, write_folder
from trunkline.training.random_state import random_state, restore_random_state, seed_everything

__all__ = ["checkpoints", "load_checkpoint", "save_checkpoint", "seed_everything"]

FORMAT = 2


def save_checkpoint(
    folder: Path,
    step: int,
    module: nn.Module,
    optimizer: torch.optim.Optimizer,
    extra: Mapping[str, Any],
    keep: int,
    ema: Ema | None = None,
    random: Sequence[Mapping[str, Tensor]] | None = None,
) -> Path:
    """Writes the checkpoint of a step and removes all but the last `keep`.

    Args:
        folder: The folder of all checkpoints of a run.
        step: Steps done.
        module: Everything that is trained.
        optimizer: Its optimizer, whose parameters are the module's.
        extra: What the caller needs to go on, as JSON.
        keep: How many checkpoints stay.
        ema: The averages of the weights, if any are kept.
        random: The `random_state` of every process, in the order of their ranks; of this one alone by default.

    Raises:
        TrunklineError: The disk is full or cannot be written to; earlier checkpoints are as they were.
    """
    states = [random_state()] if random is None else random
    tensors, numbers = _optimizer_state(module, optimizer)
    content = {
        "format": FORMAT,
        "step": step,
        "processes": len(states),
        "averages": ema is not None,
        "optimizer": numbers,
        "extra": dict(extra),
    }

    def write(path: Path) -> None:
        save_module(module, path)
        save_file(_contiguous(tensors), path / "optimizer.safetensors")
        if ema is not None:
            save_file(_contiguous(ema.state()), path / "ema.safetensors")
        save_file(
            {f"{rank}/{name}": tensor for rank, state in enumerate(states) for name, tensor in state.items()},
            path / "random.safetensors",
        )
        write_atomic(path / "state.json", json.dumps(content))

    final = folder / f"step-{step:08d}"
    with write_errors(final, "earlier checkpoints are intact"):
        write_folder(final, write)
    with write_errors(folder, f"{final.name} is complete, but an older checkpoint cannot be removed"):
        for old in checkpoints(folder)[:-keep]:
            remove_folder(old)
    return final


def checkpoints(folder: Path) -> list[Path]:
    """The complete checkpoints of a run, oldest first."""
    return [item for item in find_folders(folder, "step-") if (item / "state.json").is_file()]


def load_checkpoint(
    path: Path, module: nn.Module, optimizer: torch.optim.Optimizer, ema: Ema | None = None, rank: int = 0
) -> tuple[int, dict[str, Any]]:
    """Restores module, optimizer, averages and random state; everything is read and checked before any of it is.

    Args:
        path: One of `checkpoints`.
        module: As it was saved.
        optimizer: As it was saved.
        ema: As it was saved; none if none was.
        rank: This process's, where there are several; the random state is that of the same rank.

    Returns:
        The steps done and the caller's `extra`.

    Raises:
        MismatchError: The checkpoint is of another format, another module or fewer processes.
        TrunklineError: It is damaged.
    """
    with damaged(path):
        content = json.loads((path / "state.json").read_text(encoding="utf-8"))
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
    if content["averages"] != (ema is not None):
        held, asked = (("averages", "none"), ("none", "averages"))[ema is not None]
        raise MismatchError(f"{path} has {held} of the weights", expected=asked, todo="Use another run folder")
    with damaged(path):
        weights, state, random = (load_file(path / f"{name}.safetensors") for name in ("module", "optimizer", "random"))
        averages = load_file(path / "ema.safetensors") if ema is not None else {}
    fit_module(module, weights, path)
    _restore_optimizer(module, optimizer, state, content["optimizer"])
    if ema is not None:
        ema.restore(averages)
    own = f"{rank}/"
    restore_random_state({name.removeprefix(own): part for name, part in random.items() if name.startswith(own)})
    return int(content["step"]), content["extra"]


def save_module(module: nn.Module, folder: Path) -> None:
    """Writes `module.safetensors`."""
    save_file(_contiguous(module.state_dict()), folder / "module.safetensors")


def fit_module(module: nn.Module, tensors: Mapping[str, Tensor], path: Path) -> None:
    """Puts tensors into a module; raises MismatchError, before anything is changed, if they are of another one."""
    ours = {name: tuple(tensor.shape) for name, tensor in module.state_dict().items()}
    theirs = {name: tuple(tensor.shape) for name, tensor in tensors.items()}
    if ours != theirs:
        name = min(name for name in {**ours, **theirs} if ours.get(name) != theirs.get(name))
        raise MismatchError(
            f"{path} does not fit this recipe: {name} is {theirs.get(name, 'missing')} there",
            expected=f"{ours.get(name, 'no such weight')}",
            todo="Use another run folder",
        )
    module.load_state_dict(dict(tensors))


@contextmanager
def damaged(path: Path) -> Iterator[None]:
    """Says of a folder that cannot be read what to do about it."""
    try:
        yield
    except (OSError, ValueError, SafetensorError) as error:
        raise TrunklineError(
            f"{path} is damaged ({error})",
            expected="a complete checkpoint, as it was written",
            todo="Delete it and run the same command again, it goes on from the one before",
        ) from error


def _contiguous(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    result: dict[str, Tensor] = {}
    storages: set[int] = set()
    for name, tensor in tensors.items():
        result[name] = tensor.detach().contiguous()
        # The format has no tied weights; each name gets bytes of its own, and loading puts them where they were tied.
        if result[name].untyped_storage().data_ptr() in storages:
            result[name] = result[name].clone()
        storages.add(result[name].untyped_storage().data_ptr())
    return result


def _optimizer_state(
    module: nn.Module, optimizer: torch.optim.Optimizer
) -> tuple[dict[str, Tensor], dict[str, dict[str, float]]]:
    tensors: dict[str, Tensor] = {}
    numbers: dict[str, dict[str, float]] = {}
    for name, parameter in module.named_parameters():
        for key, value in optimizer.state.get(parameter, {}).items():
            if isinstance(value, Tensor):
                tensors[f"{name}/{key}"] = value
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
    # A count of steps lies beside the weights where the optimizer's kernel reads it, and else in main memory.
    on_device = {
        id(parameter)
        for group in optimizer.param_groups
        for parameter in group["params"]
        if group.get("fused") or group.get("capturable")
    }
    optimizer.state.clear()
    for key, tensor in tensors.items():
        name, _, entry = key.rpartition("/")
        parameter = parameters[name]
        here = entry != "step" or id(parameter) in on_device
        optimizer.state[parameter][entry] = tensor.to(parameter.device) if here else tensor
    for name, entries in numbers.items():
        optimizer.state[parameters[name]].update(entries)
