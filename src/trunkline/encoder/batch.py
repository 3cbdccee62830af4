"""What an encoder reads: packed token rows, and the units (words or texts) whose features are pooled from them."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from trunkline.text.packing import Packed


@dataclass(frozen=True, slots=True)
class TokenBatch:
    """Rows of tokens. Several texts may share a row: a token attends only to tokens of its own segment.

    Attributes:
        input_ids: [rows, width] token ids.
        positions: [rows, width] position inside the own segment, from 0.
        segments: [rows, width] segment number, -1 for padding.
        unit_tokens: [pairs] flat index (row * width + column) of a token that belongs to a unit.
        unit_ids: [pairs] the unit it belongs to.
        n_units: Number of units.
    """

    input_ids: Tensor
    positions: Tensor
    segments: Tensor
    unit_tokens: Tensor
    unit_ids: Tensor
    n_units: int

    @classmethod
    def from_packed(cls, packed: Packed, device: torch.device | str = "cpu") -> TokenBatch:
        """Moves the arrays of `trunkline.text.packing.pack` to a device."""

        def move(array: object) -> Tensor:
            return torch.as_tensor(array, dtype=torch.long).to(device, non_blocking=True)

        return cls(
            input_ids=move(packed.input_ids),
            positions=move(packed.positions),
            segments=move(packed.segments),
            unit_tokens=move(packed.unit_tokens),
            unit_ids=move(packed.unit_ids),
            n_units=packed.n_units,
        )

    @property
    def n_tokens(self) -> int:
        """Real tokens, padding not counted."""
        return int((self.segments >= 0).sum())

    def attention_mask(self) -> Tensor:
        """[rows, 1, width, width], true where a token may attend. Padding attends to padding, which keeps it finite."""
        return (self.segments[:, :, None] == self.segments[:, None, :])[:, None]

    def pool(self, hidden: Tensor) -> Tensor:
        """Mean of the token states of each unit.

        Args:
            hidden: [rows, width, hidden] states.

        Returns:
            [units, hidden] in float32.
        """
        flat = hidden.reshape(-1, hidden.shape[-1]).float()
        sums = flat.new_zeros(self.n_units, flat.shape[-1])
        sums.index_add_(0, self.unit_ids, flat[self.unit_tokens])
        counts = torch.bincount(self.unit_ids, minlength=self.n_units).clamp_(min=1)
        return sums / counts[:, None]
