"""Results in the groups that statistics are about, and what is wrong or missing among them."""

from __future__ import annotations

import json
import math
import re
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from trunkline.errors import TrunklineError
from trunkline_lab.benchmark.results import Result

IntArray = npt.NDArray[np.int64]
System = tuple[str, str]
"""Method and encoder."""
Place = tuple[str, str, System]
"""Task, label budget and system."""

_SAME_SCORE = 1e-5
"""How far a score may be from that of its counts; those of question answering are rounded to millionths."""


@dataclass(frozen=True)
class Group:
    """The finished cells of one task, label budget, method and encoder.

    Attributes:
        cells: Results by their seed, in ascending order.
        counts: [examples, counts] of each of them.
    """

    family: str
    task: str
    measure: str
    budget: str
    method: str
    encoder: str
    cells: Mapping[int, Result]
    counts: Mapping[int, IntArray]

    @property
    def system(self) -> System:
        """Method and encoder."""
        return self.method, self.encoder

    @property
    def place(self) -> Place:
        """Task, label budget and system."""
        return self.task, self.budget, self.system


@dataclass(frozen=True)
class Grouped:
    """Results in order.

    Attributes:
        groups: By family (NER first), task, label budget (few first), method and encoder.
        failed: Cells that failed and were not repeated with success.
        problems: Sentences about cells that were left out or are doubtful.
    """

    groups: tuple[Group, ...]
    failed: tuple[Result, ...]
    problems: tuple[str, ...]


def group_results(results: Iterable[Result]) -> Grouped:
    """Sorts results into groups; unusable cells are left out and named, two of one cell are a TrunklineError."""
    places: dict[tuple[Place, int], list[Result]] = {}
    for result in sorted(results, key=lambda result: (_order(result), result.key)):
        place = (result.task, result.budget, (result.method, result.encoder))
        places.setdefault((place, result.seed), []).append(result)
    failed, finished, problems = [], [], []
    for same in places.values():
        done = [result for result in same if not result.error]
        if len(done) > 1:
            raise _twice(done)
        if not done:
            failed.append(same[0])
            continue
        problem = _problem(done[0])
        if problem:
            problems.append(f"{words(done[0])}: {problem}; left out")
        else:
            finished.append(done[0])
    fitting = _of_one_test_part(finished, problems)
    groups: dict[Place, dict[int, Result]] = {}
    for result in fitting:
        groups.setdefault((result.task, result.budget, (result.method, result.encoder)), {})[result.seed] = result
    return Grouped(tuple(_group(cells) for cells in groups.values()), tuple(failed), tuple(problems))


def budget_order(budget: str) -> tuple[int, float, str]:
    """Sorts label budgets in words: a number per class, a number of texts, a share, all, then others by name."""
    for rank, pattern in enumerate((r"([\d.]+) a class", r"([\d.]+) texts", r"([\d.]+) ?%")):
        found = re.fullmatch(pattern, budget)
        if found:
            return rank, float(found[1]), budget
    return (3, 0.0, budget) if budget == "all" else (4, 0.0, budget)


def family_order(family: str) -> tuple[int, str]:
    """Sorts families: `ner`, `classification`, then others by name."""
    known = ("ner", "classification")
    return (known.index(family) if family in known else len(known), family)


def words(result: Result) -> str:
    """The cell of a result in words."""
    return f"{result.task}, {result.budget}, {result.method}, {result.encoder}, seed {result.seed}"


def missing(grouped: Grouped) -> list[dict[str, Any]]:
    """What a balanced design would have beside the cells there are, finished, left out or failed.

    A design is balanced within a family, method and label budget: there all encoders have all tasks and seeds.

    Returns:
        Rows `family`, `task`, `budget`, `method`, `encoder`, `seeds`; those of `failed` are not among them.
    """
    cells = [result for group in grouped.groups for result in group.cells.values()]
    there: dict[tuple[str, str, str], set[tuple[str, str, int]]] = {}
    for result in (*cells, *grouped.failed):
        place = (result.family, result.budget, result.method)
        there.setdefault(place, set()).add((result.task, result.encoder, result.seed))
    rows = []
    for (family, budget, method), found in there.items():
        tasks, encoders, seeds = (sorted({item[index] for item in found}) for index in range(3))
        for task in tasks:
            for encoder in encoders:
                gone = [seed for seed in seeds if (task, encoder, seed) not in found]
                if gone:
                    names = {"family": family, "task": task, "budget": budget, "method": method, "encoder": encoder}
                    rows.append({**names, "seeds": gone})
    return sorted(
        rows,
        key=lambda row: (
            family_order(row["family"]),
            row["method"],
            budget_order(row["budget"]),
            row["task"],
            row["encoder"],
        ),
    )


def _order(result: Result) -> tuple[Any, ...]:
    where = (family_order(result.family), result.task, budget_order(result.budget))
    return (*where, result.method, result.encoder, result.seed)


def _twice(done: Sequence[Result]) -> TrunklineError:
    return TrunklineError(
        f"{len(done)} results of one cell ({words(done[0])}), with the keys {', '.join(r.key for r in done)}",
        expected="one, so that no average mixes versions of encoders, tasks or settings",
        todo="Report on the results of one suite at a time, and move those of older settings away",
    )


def _problem(result: Result) -> str:
    """Why a finished result cannot be used; empty if it can."""
    from trunkline.tasks import FAMILIES
    from trunkline_lab.resampling import score_of_counts

    score = result.test.get(result.measure)
    if result.family not in FAMILIES:
        return f"its family {result.family!r} is unknown"
    if score is None:
        return f"it has no test score {result.measure!r}"
    if not math.isfinite(score) or not 0 <= score <= 1:
        return f"its test score is {score}"
    if len({len(row) for row in result.counts}) != 1:
        return "its counts are missing" if not result.counts else "its rows of counts differ in length"
    again = score_of_counts(result.family)(_counts(result).sum(axis=0).astype(float))
    if abs(again - score) > _SAME_SCORE:
        return f"its test score is {score:.6f} and that of its counts {again:.6f}"
    return ""


def _of_one_test_part(finished: Sequence[Result], problems: list[str]) -> list[Result]:
    """Of each task the results that have the same test examples, family and measure as most have."""
    kinds = {id(result): (len(result.counts), result.family, result.measure) for result in finished}
    numbers: dict[str, Counter[Any]] = {}
    cards: dict[str, set[str]] = {}
    for result in finished:
        numbers.setdefault(result.task, Counter())[kinds[id(result)]] += 1
        cards.setdefault(result.task, set()).add(json.dumps(result.info.get("card"), sort_keys=True))
    usual = {task: max(found, key=lambda kind: (found[kind], kind)) for task, found in numbers.items()}
    for task, versions in cards.items():
        if len(versions) > 1:
            problems.append(f"{task}: its cells were made with {len(versions)} versions of its data")
    for result in finished:
        kind = kinds[id(result)]
        if kind != usual[result.task]:
            others = f"{usual[result.task][0]} and {usual[result.task][2]}"
            problems.append(
                f"{words(result)}: {kind[0]} test examples and {kind[2]}, where most cells of the task have "
                f"{others}; left out"
            )
    return [result for result in finished if kinds[id(result)] == usual[result.task]]


def _group(cells: Mapping[int, Result]) -> Group:
    one = next(iter(cells.values()))
    return Group(
        family=one.family,
        task=one.task,
        measure=one.measure,
        budget=one.budget,
        method=one.method,
        encoder=one.encoder,
        cells=cells,
        counts={seed: _counts(result) for seed, result in cells.items()},
    )


def _counts(result: Result) -> IntArray:
    return np.asarray(result.counts, dtype=np.int64)
