"""Mixtures: weighted sources drawn in an order that depends only on the seed and the step, so that runs can resume."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from trunkline.text.examples import Example
from trunkline.text.tokens import IntArray, UnitText


@dataclass(frozen=True)
class Source:
    """One pre-finetuning data set, loaded.

    Attributes:
        name: Its card's name.
        train: Examples to train on.
        held_out: Examples for the monitor, never trained on.
        concepts: Entity label -> text for the concept encoder; empty for pairs.
        closed: Whether an unlabelled word is known to belong to none of the source's concepts.
        weight: How often it is drawn, relative to the other sources of its family.
        units: The tokenised texts of each example of `train`, if they are at hand.
        facts: What is reported of it: `title`, `home`, `licence`, `coverage`, hashes, and what decontamination did.
    """

    name: str
    train: Sequence[Example]
    held_out: Sequence[Example]
    concepts: Mapping[str, str] = field(default_factory=dict)
    closed: bool = True
    weight: float = 1.0
    units: Sequence[list[UnitText]] | None = None
    facts: Mapping[str, Any] = field(default_factory=dict)


def split_source(
    count: int, held_out: int, cap: int | None, seed: int, *, share: float = 0.1
) -> tuple[IntArray, IntArray]:
    """Indices to train on, at most `cap`, and `held_out` (at most a share of all) that are set aside, by the seed."""
    order = np.random.default_rng([seed, count]).permutation(count)
    aside = min(held_out, int(count * share))
    return order[aside:] if cap is None else order[aside : aside + cap], order[:aside]


class Mixture:
    """Draws the examples of one family, step by step.

    Every source is walked in a permutation of its own, a new one each epoch. The state is the number of examples
    drawn from each source; which source comes next depends on the seed and the step alone.
    """

    def __init__(self, sources: Sequence[Source], seed: int, *, one_source_a_step: bool = False) -> None:
        self.sources = list(sources)
        self.seed = seed
        self.one_source_a_step = one_source_a_step
        self.drawn = [0] * len(self.sources)
        weights = np.asarray([source.weight for source in self.sources], dtype=np.float64)
        self.shares = weights / weights.sum()
        self._cumulated = np.cumsum(self.shares) / np.cumsum(self.shares)[-1]
        self._orders: dict[int, tuple[int, IntArray]] = {}

    def draw(self, step: int) -> Iterator[tuple[int, int]]:
        """The examples of a step, without end, as (source, index into its `train`). What is taken counts as drawn."""
        rng = np.random.default_rng([self.seed, step])
        source = self._choose(rng)
        while True:
            yield source, self._next(source)
            if not self.one_source_a_step:
                source = self._choose(rng)

    def _choose(self, rng: np.random.Generator) -> int:
        return int(self._cumulated.searchsorted(rng.random(), side="right"))

    def _next(self, source: int) -> int:
        count = len(self.sources[source].train)
        epoch, position = divmod(self.drawn[source], count)
        if self._orders.get(source, (-1,))[0] != epoch:
            self._orders[source] = epoch, np.random.default_rng([self.seed, source, epoch]).permutation(count)
        self.drawn[source] += 1
        return int(self._orders[source][1][position])

    def state(self) -> dict[str, int]:
        """Examples drawn so far, by source."""
        return {source.name: drawn for source, drawn in zip(self.sources, self.drawn, strict=True)}

    def restore(self, state: Mapping[str, int]) -> None:
        """Goes on from a `state` of the same sources."""
        self.drawn = [state[source.name] for source in self.sources]
