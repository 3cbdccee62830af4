"""The best weights of a run for each family, by a measure that the recipe declares; rotation never removes them."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from safetensors.torch import load_file
from torch import nn

from trunkline.atomic import write_atomic
from trunkline.errors import TrunklineError
from trunkline.problems import nearest
from trunkline.training.checkpoint import damaged, fit_module, save_module
from trunkline.training.folders import find_folder, write_errors, write_folder


def keep_best(
    folder: Path, rules: Mapping[str, str], step: int, values: Mapping[str, float], module: nn.Module
) -> list[str]:
    """Keeps the weights in `best-FAMILY` for every family whose measure is better than ever before in this run.

    A measure named `loss` is better when it is lower, every other one when it is higher. Of equals the earliest stays.
    A family without held-out data is passed over, as it has no measure.

    Args:
        folder: The folder of all checkpoints of a run.
        rules: Family -> the name of a measure in `values`.
        step: Steps done.
        values: What was measured.
        module: The weights with which it was measured, be they averaged or not.

    Returns:
        The families whose best this is.

    Raises:
        TrunklineError: A rule names what the run does not measure, or the disk is full; what was kept before stays.
    """
    found = []
    for family, measure in rules.items():
        value = _value(family, measure, values)
        if value is None or not math.isfinite(value):
            continue
        held = best_of(folder, family)
        if held is not None and not _better(measure, value, float(held["value"])):
            continue
        content = {"family": family, "measure": measure, "value": value, "step": step, "values": dict(values)}

        def write(path: Path, content: Mapping[str, Any] = content) -> None:
            save_module(module, path)
            write_atomic(path / "best.json", json.dumps(content, indent=2) + "\n")

        final = _folder(folder, family)
        with write_errors(final, "the last checkpoint and the best one before it are intact"):
            write_folder(final, write)
        found.append(family)
    return found


def best_of(folder: Path, family: str) -> dict[str, Any] | None:
    """What made a family's best: `family`, `measure`, `value`, `step` and all `values` of that step; none yet is None.

    Raises:
        TrunklineError: The file is damaged.
    """
    path = find_folder(_folder(folder, family)) / "best.json"
    if not path.is_file():
        return None
    with damaged(path.parent):
        return dict(json.loads(path.read_text(encoding="utf-8")))


def load_best(folder: Path, family: str, module: nn.Module) -> dict[str, Any]:
    """Puts a family's best weights into a module; returns what `best_of` does.

    Raises:
        TrunklineError: There is none, or it is damaged.
        MismatchError: It is of another module.
    """
    content = best_of(folder, family)
    if content is None:
        raise TrunklineError(
            f"{folder} has no best checkpoint of {family}",
            expected=f"a folder best-{family}",
            todo="Set monitor.every and checkpoint.best in the recipe",
        )
    path = find_folder(_folder(folder, family))
    with damaged(path):
        tensors = load_file(path / "module.safetensors")
    fit_module(module, tensors, path)
    return content


def _folder(folder: Path, family: str) -> Path:
    return folder / f"best-{family}"


def _better(measure: str, value: float, than: float) -> bool:
    return value < than if measure.rpartition("/")[2] == "loss" else value > than


def _value(family: str, measure: str, values: Mapping[str, float]) -> float | None:
    if measure in values:
        return values[measure]
    own = f"dev/{family}/"
    if measure.startswith(own) and not any(name.startswith(own) for name in values):
        return None
    raise TrunklineError(
        f"checkpoint.best.{family} is {measure!r}, which this run does not measure{nearest(measure, values)}",
        expected="one of " + ", ".join(sorted(values)),
        todo="Correct the recipe",
    )
