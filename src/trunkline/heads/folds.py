"""Folds for cross-validation: every class in as many folds as it has examples, repeated texts in one fold."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

IntArray = npt.NDArray[np.int64]


def stratified_folds(texts: Sequence[str], classes: Sequence[set[str]], count: int = 5, seed: int = 0) -> IntArray:
    """The fold of each example, 0 to `count` - 1.

    Examples of rare classes are dealt out first, each to the fold that has fewest of its rarest class (iterative
    stratification, Sechidis et al. 2011), of equal ones to the one with fewest of its other classes, then to the
    smaller one.

    Args:
        texts: Texts that differ only in case and blanks get one fold, as they would leak into each other.
        classes: The classes of each example; several or none for a sentence with entities.
        count: Number of folds; fewer are used if there are fewer different texts.
        seed: Order of examples that are equal in all this.

    Returns:
        [examples].
    """
    groups: dict[str, list[int]] = {}
    for number, text in enumerate(texts):
        groups.setdefault(" ".join(text.casefold().split()), []).append(number)
    members = list(groups.values())
    count = max(1, min(count, len(members)))
    total = Counter(name for own in classes for name in own)
    held = [Counter(name for number in group for name in classes[number]) for group in members]
    shuffled = np.random.default_rng(seed).permutation(len(members))
    rank = {int(group): place for place, group in enumerate(shuffled)}
    rarest = [min(own, key=lambda name: (total[name], name)) if own else "" for own in held]
    order = sorted(
        range(len(members)), key=lambda g: (not rarest[g], total[rarest[g]], rarest[g], -len(members[g]), rank[g])
    )
    seen: list[Counter[str]] = [Counter() for _ in range(count)]
    sizes = [0] * count
    fold = np.zeros(len(texts), dtype=np.int64)
    for group in order:
        chosen = min(
            range(count),
            key=lambda f: (seen[f][rarest[group]], sum(seen[f][name] for name in held[group]), sizes[f], f),
        )
        seen[chosen].update(held[group])
        sizes[chosen] += len(members[group])
        fold[members[group]] = chosen
    return fold
