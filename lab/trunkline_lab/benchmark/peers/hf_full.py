"""Fine-tuning of the whole encoder with transformers' Trainer: the recipe that everybody starts from.

Rate, epochs, decay and optimiser are the Trainer's defaults, which the examples run_ner and run_glue of transformers
use; few labels get more epochs, see `TrainerSettings`.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from trunkline_lab.benchmark.peers import PeerOutput
from trunkline_lab.benchmark.peers.trainer import TrainerSettings, fine_tune, parameter_bytes

if TYPE_CHECKING:
    from trunkline_lab.fitting import TaskData


@dataclass(frozen=True)
class Settings(TrainerSettings):
    """See `TrainerSettings`."""


def fit_predict(task: TaskData, encoder: Path, *, seed: int, settings: Settings = Settings()) -> PeerOutput:
    """See `trunkline_lab.benchmark.peers.Peer`."""

    def whole(model: Any, missing: set[str]) -> Any:
        return model

    return fine_tune(task, encoder, settings, seed=seed, wrap=whole, size=parameter_bytes)
