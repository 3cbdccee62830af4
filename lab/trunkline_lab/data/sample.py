"""Drawing few labels: the same draw for every encoder, so that comparisons are paired."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from typing import TypeVar

import numpy as np

T = TypeVar("T")


def draw(
    examples: Sequence[T],
    classes: Callable[[T], set[str]],
    *,
    seed: int,
    sentences: int | None = None,
    per_class: int | None = None,
) -> list[T]:
    """Draws labelled examples under a budget; everything without one.

    Args:
        examples: What to draw from.
        classes: The classes that an example gives evidence of.
        seed: Decides the order in which examples are considered.
        sentences: Take this many.
        per_class: Greedy: take an example if one of its classes has been seen fewer than this many times. For single
            labels this is exactly `per_class` of each; for entity types a type can exceed it through sentences that
            were taken for another type. A class with fewer examples gives all that it has.
    """
    order = np.random.default_rng([seed, len(examples)]).permutation(len(examples))
    if per_class is None:
        return [examples[i] for i in order[:sentences]]
    seen: Counter[str] = Counter()
    taken = []
    for index in order:
        found = classes(examples[index])
        if any(seen[name] < per_class for name in found):
            taken.append(examples[index])
            seen.update(found)
    return taken
