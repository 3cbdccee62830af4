"""Features of units from a frozen encoder: the trunk once, then one branch for each request."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from trunkline.encoder.encoder import Encoder, TokenBatch
from trunkline.encoder.lora import Deltas
from trunkline.text.tokens import TextTokenizer, UnitText, by_budget, text_unit

Features = npt.NDArray[np.float32]


@dataclass(frozen=True, slots=True)
class Branch:
    """A request: features of these units through these low-rank updates (or none)."""

    units: Sequence[UnitText]
    deltas: Deltas | None = None


MOST_STATES = 2**27
"""Numbers that `TrunkStates` may keep: half a gigabyte in float32."""


class TrunkStates:
    """What a frozen trunk makes of texts, computed once, so that training adapters above it runs branches alone."""

    def __init__(self, states: Sequence[Tensor]) -> None:
        self._states = states

    @classmethod
    @torch.no_grad()
    def of(cls, encoder: Encoder, units: Sequence[UnitText], *, bf16: bool, budget: int = 4096) -> TrunkStates | None:
        """The states at the fork of all texts, or none where that would be more than `MOST_STATES` numbers."""
        if sum(unit.size for unit in units) * encoder.config.hidden_size > MOST_STATES:
            return None
        states = [torch.empty(0)] * len(units)
        for chosen in by_budget(units, budget):
            batch = encoder.batch([units[i] for i in chosen])
            with torch.autocast(batch.input_ids.device.type, dtype=torch.bfloat16, enabled=bf16):
                parts = encoder.trunk(batch).flatten(0, 1)[_places(batch)].split([units[i].size for i in chosen])
            for index, part in zip(chosen, parts, strict=True):
                states[index] = part.clone()
        return cls(states)

    def some(self, chosen: Sequence[int]) -> TrunkStates:
        """The states of some of the texts, in this order."""
        return TrunkStates([self._states[i] for i in chosen])

    def rows(self, batch: TokenBatch, chosen: Sequence[int]) -> Tensor:
        """[rows, width, hidden] states of a batch packed from these texts in this order; zeros in its padding."""
        states = torch.cat([self._states[i] for i in chosen])
        flat = states.new_zeros(batch.input_ids.numel(), states.shape[-1])
        flat[_places(batch)] = states
        return flat.view(*batch.input_ids.shape, -1)


def _places(batch: TokenBatch) -> Tensor:
    """[tokens] flat indices of a batch's tokens, text by text."""
    segments = batch.segments.flatten()
    return segments.argsort(stable=True)[int((segments < 0).sum()) :]


@torch.inference_mode()
def branch_features(
    encoder: Encoder,
    branches: Sequence[Branch],
    *,
    budget: int = 4096,
    bf16: bool = False,
    states: TrunkStates | None = None,
    last: bool = False,
) -> list[list[Features]]:
    """Computes the features of several branches over the same tokenised texts.

    Args:
        encoder: Used in evaluation mode; its device is where this runs.
        branches: All over the same `Tokens`, unit definitions and adapters may differ.
        budget: Tokens a batch.
        bf16: Whether to compute in bf16 by autocast.
        states: Of the same texts, where they are known.
        last: Whether to pool the last layer's states, which pre-finetuning trains, in place of the mean of the
            branch's layer outputs, which heads read.

    Returns:
        For each branch a list with, for each text, [units, width] float32.
    """
    kind, width = encoder.embeddings.word.weight.device.type, encoder.config.hidden_size
    texts = branches[0].units if branches else []
    results: list[list[Features]] = [[np.zeros((0, width), np.float32)] * len(texts) for _ in branches]
    was_training = encoder.training
    encoder.eval()
    read = encoder.branch if last else encoder.read
    for chosen in by_budget(texts, budget):
        with torch.autocast(kind, dtype=torch.bfloat16, enabled=bf16):
            batches = [encoder.batch([branch.units[i] for i in chosen]) for branch in branches]
            hidden = encoder.trunk(batches[0]) if states is None else states.rows(batches[0], chosen)
            for branch, batch, result in zip(branches, batches, results, strict=True):
                pooled = batch.pool(read(hidden, batch, branch.deltas)).cpu().numpy()
                ends = np.cumsum([branch.units[i].n_units for i in chosen])
                for index, part in zip(chosen, np.split(pooled, ends[:-1]), strict=True):
                    result[index] = part
    encoder.train(was_training)
    return results


def embed_texts(
    encoder: Encoder,
    tokenizer: TextTokenizer,
    texts: Sequence[str],
    deltas: Deltas | None = None,
    *,
    bf16: bool = False,
) -> Features:
    """Mean-pooled, unnormalised embeddings of texts, [texts, width] float32."""
    units = [text_unit(tokens) for tokens in tokenizer.encode(texts)]
    parts = branch_features(encoder, [Branch(units, deltas)], bf16=bf16, last=True)[0]
    return np.stack([part[0] for part in parts]) if parts else np.zeros((0, encoder.config.hidden_size), np.float32)
