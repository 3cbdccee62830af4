"""What results say: means with intervals, paired comparisons of systems on a task and over the tasks of a family.

A system is a method with an encoder. Scores lie in [0, 1], gains are differences of scores, intervals are for
95 %. `docs/benchmark-report.md` says what each number means and where it comes from.
"""

from __future__ import annotations

import zlib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt

from trunkline_lab.benchmark.groups import Group, Place, System, budget_order, family_order
from trunkline_lab.resampling import RESAMPLES, FloatArray, interval, resample, score_of_counts

Interval = list[float]
Seeds = tuple[int, ...]

LEVEL = 0.05
"""Comparisons whose corrected p-value is below this are significant."""
_MOST_COUNTS = 2**23
"""Counts that are resampled at once, 64 MB."""
_DIGITS = 12
"""Of gains, so that equal scores added up in another order differ by 0."""


class Bootstrap:
    """Resampled scores of groups, drawn when they are asked for and kept.

    Seeds of the same task are drawn together for all systems that have them, so that their differences are paired. One
    seed fewer is drawn than there are: drawing all n of n makes the variance of their mean too small by the share 1/n,
    which is a third for three seeds (Rao & Wu 1988).
    """

    def __init__(self, groups: Iterable[Group], resamples: int = RESAMPLES) -> None:
        self.groups: dict[Place, Group] = {group.place: group for group in groups}
        self.resamples = resamples
        self._drawn: dict[tuple[Place, Seeds], FloatArray] = {}

    def scores(self, group: Group, seeds: Seeds | None = None) -> FloatArray:
        """[resamples] scores of a group over `seeds`, by default all that it has."""
        wanted = tuple(group.cells) if seeds is None else seeds
        if (group.place, wanted) not in self._drawn:
            self._draw(group, wanted)
        return self._drawn[group.place, wanted]

    def difference(self, first: Group, second: Group) -> tuple[Seeds, float, FloatArray]:
        """The seeds that both groups of a task have, the mean gain of the first over them, [resamples] of it."""
        seeds = tuple(seed for seed in first.cells if seed in second.cells)
        if not seeds:
            return (), 0.0, np.zeros(self.resamples)
        gain = round(mean_score(first, seeds) - mean_score(second, seeds), _DIGITS)
        return seeds, gain, np.round(self.scores(first, seeds) - self.scores(second, seeds), _DIGITS)

    def _draw(self, group: Group, seeds: Seeds) -> None:
        score = score_of_counts(group.family)
        able = [other for other in self.groups.values() if other.task == group.task and set(seeds) <= set(other.cells)]
        size = max(1, _MOST_COUNTS // (len(seeds) * group.counts[seeds[0]].size))
        for begin in range(0, len(able), size):
            part = able[begin : begin + size]
            drawn = resample(
                [[other.counts[seed] for seed in seeds] for other in part],
                score,
                resamples=self.resamples,
                drawn_seeds=max(1, len(seeds) - 1),
                entropy=_entropy(group.task),
            )
            for number, other in enumerate(part):
                self._drawn[other.place, seeds] = np.ascontiguousarray(drawn[:, number])


@dataclass(frozen=True)
class Pair:
    """Two systems to compare; a gain is that of the first."""

    first: System
    second: System


@dataclass(frozen=True)
class Comparison:
    """One pair on one task with one label budget.

    Attributes:
        seeds: Those that both have.
        gain: Mean of the first less mean of the second over these seeds.
        interval: Of the gain.
        p: Two-sided, of the paired bootstrap.
        corrected_p: After Holm over the tasks of the family.
        outcome: `win` or `loss` where `corrected_p` is significant, `tie` where the interval contains 0, else
            `unclear`: the interval alone excludes 0.
        draws: [resamples] of the gain.
    """

    family: str
    task: str
    budget: str
    pair: Pair
    seeds: Seeds
    gain: float
    interval: Interval
    p: float
    corrected_p: float
    outcome: str
    draws: FloatArray = field(repr=False, compare=False)


@dataclass(frozen=True)
class FamilyComparison:
    """One pair over the tasks of a family that both have, with one label budget.

    Attributes:
        gain: Mean over the tasks.
        interval: For these very tasks: seeds and examples drawn within each.
        tasks_interval: For tasks like these: tasks drawn, with their gains as measured; none for one task.
        p: Two-sided, of the paired bootstrap for these very tasks.
        outcomes: How many tasks have each outcome.
        up: Tasks with a gain above 0.
        down: Tasks with a gain below 0.
        sign_p: Two-sided sign test over tasks.
        wilcoxon_p: Two-sided signed-rank test over tasks.
    """

    family: str
    budget: str
    pair: Pair
    tasks: tuple[str, ...]
    gain: float
    interval: Interval
    tasks_interval: Interval | None
    p: float
    outcomes: Mapping[str, int]
    up: int
    down: int
    sign_p: float
    wilcoxon_p: float


OUTCOMES = ("win", "tie", "loss", "unclear")


def mean_score(group: Group, seeds: Seeds | None = None) -> float:
    """The mean main score over seeds, by default all of the group."""
    wanted = tuple(group.cells) if seeds is None else seeds
    return float(np.mean([group.cells[seed].test[group.measure] for seed in wanted]))


def compare(bootstrap: Bootstrap, pairs: Sequence[Pair]) -> list[Comparison]:
    """Compares pairs on each task and budget where both have a common seed; by family, budget, pair and task."""
    places: dict[tuple[str, str], list[str]] = {}
    for group in bootstrap.groups.values():
        tasks = places.setdefault((group.family, group.budget), [])
        if group.task not in tasks:
            tasks.append(group.task)
    found: list[Comparison] = []
    for family, budget in sorted(places, key=lambda place: (family_order(place[0]), budget_order(place[1]))):
        for pair in pairs:
            both = []
            for task in sorted(places[family, budget]):
                groups = [bootstrap.groups.get((task, budget, system)) for system in (pair.first, pair.second)]
                if groups[0] is not None and groups[1] is not None:
                    seeds, gain, draws = bootstrap.difference(groups[0], groups[1])
                    both += [(task, seeds, gain, draws)] if seeds else []
            values = [p_value(draws) for *_, draws in both]
            for (task, seeds, gain, draws), p, corrected in zip(both, values, holm(values), strict=True):
                bounds = interval(draws)
                won = outcome(gain, bounds, corrected)
                found.append(Comparison(family, task, budget, pair, seeds, gain, bounds, p, corrected, won, draws))
    return found


def compare_families(comparisons: Sequence[Comparison]) -> list[FamilyComparison]:
    """Sums up what `compare` found over the tasks of each family, label budget and pair."""
    rows: dict[tuple[str, str, Pair], list[Comparison]] = {}
    for row in comparisons:
        rows.setdefault((row.family, row.budget, row.pair), []).append(row)
    found = []
    for (family, budget, pair), same in rows.items():
        gains = [row.gain for row in same]
        draws = np.mean([row.draws for row in same], axis=0)
        found.append(
            FamilyComparison(
                family=family,
                budget=budget,
                pair=pair,
                tasks=tuple(row.task for row in same),
                gain=float(np.mean(gains)),
                interval=interval(draws),
                tasks_interval=interval_over_tasks(gains, entropy=_entropy(family)),
                p=p_value(draws),
                outcomes={name: sum(row.outcome == name for row in same) for name in OUTCOMES},
                up=sum(gain > 0 for gain in gains),
                down=sum(gain < 0 for gain in gains),
                sign_p=sign_test(gains),
                wilcoxon_p=wilcoxon_test(gains),
            )
        )
    return found


def outcome(gain: float, bounds: Sequence[float], corrected_p: float) -> str:
    """`win`, `loss`, `tie` or `unclear`, as `Comparison.outcome` says."""
    if corrected_p < LEVEL and gain != 0:
        return "win" if gain > 0 else "loss"
    return "tie" if bounds[0] <= 0 <= bounds[1] else "unclear"


def p_value(draws: FloatArray) -> float:
    """Two-sided p-value of a resampled difference: twice the smaller share of draws that lie on one side of 0.

    It is the level at which the percentile interval just reaches 0. The difference itself counts as one more draw,
    so that no number of resamples gives 0 (Davison & Hinkley 1997, chapter 4).
    """
    fewer = min(int(np.sum(draws <= 0)), int(np.sum(draws >= 0)))
    return min(1.0, 2 * (fewer + 1) / (len(draws) + 1))


def holm(values: Sequence[float]) -> list[float]:
    """p-values corrected for their number by Holm's step-down procedure (Holm 1979), in the order given."""
    corrected, largest = [0.0] * len(values), 0.0
    for rank, index in enumerate(sorted(range(len(values)), key=lambda index: values[index])):
        largest = max(largest, min(1.0, (len(values) - rank) * values[index]))
        corrected[index] = largest
    return corrected


def sign_test(gains: Sequence[float]) -> float:
    """Two-sided exact sign test that gains above and below 0 are equally likely; gains of 0 are left out."""
    from scipy.stats import binomtest

    up, down = sum(gain > 0 for gain in gains), sum(gain < 0 for gain in gains)
    return float(binomtest(up, up + down).pvalue) if up + down else 1.0


def wilcoxon_test(gains: Sequence[float]) -> float:
    """Two-sided signed-rank test (Wilcoxon 1945) that gains lie symmetrically about 0; gains of 0 are left out."""
    from scipy.stats import wilcoxon

    other = [gain for gain in gains if gain != 0]
    return float(wilcoxon(other).pvalue) if other else 1.0


def interval_over_tasks(gains: Sequence[float], *, entropy: int, resamples: int = RESAMPLES) -> Interval | None:
    """The interval of the mean gain over tasks like these; none for fewer than two.

    Only tasks are drawn: their measured gains already hold the noise of seeds and examples, and drawing at lower levels
    as well would count it twice (Davison & Hinkley 1997, section 3.8). One fewer is drawn than there are, as of seeds.
    """
    if len(gains) < 2:
        return None
    drawn = np.random.default_rng(entropy).integers(len(gains), size=(resamples, len(gains) - 1))
    values: npt.NDArray[np.float64] = np.asarray(gains)[drawn].mean(axis=1)
    return interval(values)


def _entropy(name: str) -> int:
    """Other draws for each name, the same ones in each report."""
    return zlib.crc32(name.encode())
