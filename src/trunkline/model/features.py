"""Features of units from a frozen encoder: the trunk once, then one branch for each request."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch

from trunkline.data.batching import ROW_WIDTH, UnitText, by_budget, pack
from trunkline.model.batch import TokenBatch
from trunkline.model.encoder import Encoder
from trunkline.model.lora import Deltas

Features = npt.NDArray[np.float32]


@dataclass(frozen=True, slots=True)
class Branch:
    """A request: features of these units through these low-rank updates (or none)."""

    units: Sequence[UnitText]
    deltas: Deltas | None = None


@torch.inference_mode()
def branch_features(
    encoder: Encoder,
    branches: Sequence[Branch],
    *,
    budget: int = 4096,
    bf16: bool = False,
    progress: Callable[[int], None] = lambda texts: None,
) -> list[list[Features]]:
    """Computes the features of several branches over the same tokenised texts.

    Args:
        encoder: Used in evaluation mode; its device is where this runs.
        branches: All over the same `Tokens`, unit definitions and adapters may differ.
        budget: Tokens a batch.
        bf16: Whether to compute in bf16 by autocast.
        progress: Called with the number of texts of each finished batch.

    Returns:
        For each branch a list with, for each text, [units, width] float32.
    """
    device = next(encoder.parameters()).device
    width = encoder.config.hidden_size
    texts = branches[0].units if branches else []
    results: list[list[Features]] = [[np.zeros((0, width), np.float32)] * len(texts) for _ in branches]
    was_training = encoder.training
    encoder.eval()
    for chosen in by_budget(texts, budget):
        with torch.autocast(device.type, dtype=torch.bfloat16, enabled=bf16):
            batches = [
                TokenBatch.from_packed(pack([b.units[i] for i in chosen], encoder.config.pad_id, ROW_WIDTH), device)
                for b in branches
            ]
            hidden = encoder.trunk(batches[0])
            for branch, batch, result in zip(branches, batches, results, strict=True):
                pooled = batch.pool(encoder.branch(hidden, batch, branch.deltas)).cpu().numpy()
                ends = np.cumsum([branch.units[i].n_units for i in chosen])
                for index, part in zip(chosen, np.split(pooled, ends[:-1]), strict=True):
                    result[index] = part
        progress(len(chosen))
    encoder.train(was_training)
    return results
