"""The best weights of a run for each family, by a measure that the recipe declares; rotation never removes them."""

from __future__ import annotations

import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from torch import nn

from trunkline.errors import TrunklineError
from trunkline.problems import nearest
from trunkline.training.checkpoint import read_tensors, write_tensors


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
        own = f"dev/{family}/"
        if measure not in values and measure.startswith(own) and not any(name.startswith(own) for name in values):
            continue
        if measure not in values:
            raise TrunklineError(
                f"checkpoint.best.{family} is {measure!r}, which this run does not measure{nearest(measure, values)}",
                expected="one of " + ", ".join(sorted(values)),
                todo="Correct the recipe",
            )
        value, held = values[measure], best_of(folder, family)
        sign = -1 if measure.rpartition("/")[2] == "loss" else 1
        if not math.isfinite(value) or (held is not None and sign * value <= sign * float(held["value"])):
            continue
        content = {"family": family, "measure": measure, "value": value, "step": step, "values": dict(values)}
        kept = "the last checkpoint and the best one before it are intact"
        write_tensors(_path(folder, family), module.state_dict(), content, kept)
        found.append(family)
    return found


def best_of(folder: Path, family: str) -> dict[str, Any] | None:
    """What made a family's best: `family`, `measure`, `value`, `step` and all `values` of that step; none yet is None.

    Raises:
        TrunklineError: The file is damaged.
    """
    path = _path(folder, family)
    return read_tensors(path, only_content=True)[0] if path.is_file() else None


def _path(folder: Path, family: str) -> Path:
    return folder / f"best-{family}.safetensors"
