"""Settings of LoRA from few labels."""

from __future__ import annotations

from dataclasses import dataclass

from trunkline.errors import TrunklineError


@dataclass(frozen=True, slots=True)
class LoraSettings:
    """How LoRA is trained.

    Attributes:
        rank: Of new updates; those that start at a primary adapter keep its rank.
        targets: Linear layers that get updates, of new ones.
        epochs: Most passes over the examples.
        rate: Learning rate of updates and head.
        batch: Examples a step.
        dropout: On the features before the head.
        seed: Of the folds, the start and the order of batches.
    """

    rank: int = 8
    targets: tuple[str, ...] = ("query", "key", "value")
    epochs: int = 20
    rate: float = 1e-3
    batch: int = 16
    dropout: float = 0.1
    seed: int = 0

    def __post_init__(self) -> None:
        for name, least in (("rank", 1), ("epochs", 1), ("batch", 1), ("seed", 0)):
            value = getattr(self, name)
            if not isinstance(value, int) or isinstance(value, bool) or value < least:
                raise TrunklineError(f"{name}={value!r}", expected=f"a whole number from {least}")
        if not 0 < self.rate < 1 or not 0 <= self.dropout < 1:
            raise TrunklineError(
                f"rate={self.rate!r}, dropout={self.dropout!r}", expected="numbers below 1, rate above 0"
            )
