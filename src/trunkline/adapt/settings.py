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
        steps: Optimizer steps.
        rate: Learning rate of updates and head.
        batch: Examples a step.
        dropout: On the features before the head.
        contrast: Weight of the supervised contrastive loss beside cross-entropy, in tasks where a text has one label.
        seed: Of the folds, the start and the order of batches.
    """

    rank: int = 8
    targets: tuple[str, ...] = ("query", "key", "value", "out", "up", "down")
    steps: int = 100
    rate: float = 1e-3
    batch: int = 16
    dropout: float = 0.1
    contrast: float = 1.0
    seed: int = 0

    def __post_init__(self) -> None:
        for name, least in (("rank", 1), ("steps", 1), ("batch", 2), ("seed", 0)):
            value = getattr(self, name)
            if not isinstance(value, int) or isinstance(value, bool) or value < least:
                raise TrunklineError(f"{name}={value!r}", expected=f"a whole number from {least}")
        for name, most in (("rate", 1.0), ("dropout", 1.0), ("contrast", 1000.0)):
            value = getattr(self, name)
            if not isinstance(value, int | float) or not 0 <= value < most:
                raise TrunklineError(f"{name}={value!r}", expected=f"a number from 0 and below {most:g}")
