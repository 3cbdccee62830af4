"""Two evaluations of the same examples side by side: is one better, or is it chance?"""

from __future__ import annotations

import dataclasses
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from trunkline.errors import TrunklineError
from trunkline.tasks.classification import Counts, FloatArray, Tally

if TYPE_CHECKING:
    from trunkline.results.evaluation import Evaluation

RESAMPLES, SEED = 2000, 0
"""Draws of each kind, and where their random numbers start."""

MAX_CHANGED = 200
"""Examples that a comparison keeps."""

BLOCK = 2**22
"""Values that are drawn at once, 32 MB."""


@dataclass(frozen=True, slots=True)
class Comparison:
    """Two tasks, or a task of two bundles, on the same examples.

    Attributes:
        first: `bundle` and `task`; a difference is the score of the first less that of the second.
        second: The same of the other.
        examples: Their number.
        measures: For each score that of the `first` and `second`, their `difference`, its `interval` and `p`. The
            interval is for 95 % of other examples of the same kind: percentiles of the paired bootstrap (Efron &
            Tibshirani 1993). `p` is the share of swaps of both predictions of examples, each by a coin, that make as
            large a difference, what was measured counted in (approximate randomization, Noreen 1989).
        right: How many examples are wholly right in `both`, the `first` or the `second` alone, and `neither`.
        changed: Up to `MAX_CHANGED` that are right in one alone, with `index`, `text`, `gold`, `first` and `second`.
        resamples: Draws of each kind.
        seed: Where their random numbers start.
    """

    first: Mapping[str, str]
    second: Mapping[str, str]
    examples: int
    measures: Mapping[str, Mapping[str, Any]]
    right: Mapping[str, int]
    changed: Sequence[Mapping[str, Any]]
    resamples: int = RESAMPLES
    seed: int = SEED

    @staticmethod
    def of(first: Evaluation, second: Evaluation) -> Comparison:
        """Compares evaluations; raises TrunklineError unless they are of the same examples."""
        if first.judged is None or second.judged is None or first.judged[:2] != second.judged[:2]:
            given = f"evaluations of {first.examples} {first.family} and {second.examples} {second.family} examples"
            raise TrunklineError(given, expected="the same examples in the same order")
        (family, examples, guess), other = first.judged, second.judged[2]
        labels = tuple({**first.labels, **second.labels})
        tallies = [family.tally(examples, said, labels) for said in (guess, other)]
        parts: list[list[dict[str, FloatArray]]] = [[], []]
        for pairs in _resampled(tallies, len(examples)):
            for own, pair in zip(parts, pairs, strict=True):
                one, two = (family.measures(Counts.of(totals)) for totals in pair)
                own.append({name: one[name] - two[name] for name in one})
        gains = [{name: np.concatenate([block[name] for block in own]) for name in own[0]} for own in parts]
        measures = {}
        for name in gains[0]:
            score = first.scores[name]
            gain = score - second.scores[name]
            low, high = np.quantile(gains[0][name], (0.025, 0.975))
            found = {"first": score, "second": second.scores[name], "difference": gain}
            as_far = int((np.abs(gains[1][name]) >= abs(gain) - 1e-12).sum())
            measures[name] = {**found, "interval": [float(low), float(high)], "p": (1 + as_far) / (1 + RESAMPLES)}
        names = [{"bundle": it.bundle, "task": it.task} for it in (first, second)]
        return Comparison(names[0], names[1], len(examples), measures, *_changed(first.judged, other))

    to_dict = dataclasses.asdict
    """Plain data for JSON, where every number is finite."""


def _resampled(tallies: Sequence[Tally], count: int) -> Iterator[tuple[list[FloatArray], list[FloatArray]]]:
    """Block by block the totals of both: in the same examples drawn with replacement, and with examples swapped."""
    rng, coin = np.random.default_rng(SEED), np.random.default_rng(SEED)
    first, second = (tally.totals(np.ones((1, count))) for tally in tallies)
    rows = max(1, BLOCK // max(1, *(len(tally.example) for tally in tallies)))
    for begin in range(0, RESAMPLES, rows):
        block = min(rows, RESAMPLES - begin)
        drawn = [np.bincount(rng.integers(count, size=count), minlength=count) for _ in range(block)]
        draws, swaps = np.stack(drawn).astype(np.float64), coin.integers(2, size=(block, count)).astype(np.float64)
        given, taken = (tally.totals(swaps) for tally in tallies)
        yield [tally.totals(draws) for tally in tallies], [first - given + taken, second - taken + given]


def _changed(judged: tuple[Any, ...], other: Sequence[Any]) -> tuple[dict[str, int], list[dict[str, Any]]]:
    family, examples, guess = judged
    right, changed = Counter[str](), list[dict[str, Any]]()
    for index, (example, *said) in enumerate(zip(examples, guess, other, strict=True)):
        (gold, first), (truth, second) = (family.compare(example, prediction) for prediction in said)
        name = (("neither", "second"), ("first", "both"))[gold == first][truth == second]
        right[name] += 1
        if name in ("first", "second") and len(changed) < MAX_CHANGED:
            answers = {"gold": gold, "first": first, "second": second}
            listed = {key: [list(answer) for answer in sorted(own)] for key, own in answers.items()}
            changed.append({"index": index, "text": example.text, **listed})
    return {name: right[name] for name in ("both", "first", "second", "neither")}, changed
