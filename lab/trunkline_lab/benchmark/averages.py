"""Averages over the tasks of a family: only of tasks that all who are compared have, which is said with each."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TypeVar

import numpy as np

from trunkline_lab.benchmark.groups import Group, System, budget_order, family_order
from trunkline_lab.benchmark.stats import Bootstrap, Interval, mean_score
from trunkline_lab.resampling import interval

T = TypeVar("T")


@dataclass(frozen=True)
class Average:
    """A system's mean over tasks, for these very tasks, and its gain over the baseline with the same method.

    `gain` and `gain_interval` are none for the baseline itself, and where the baseline lacks a task.
    """

    budget: str
    system: System
    mean: float
    interval: Interval
    gain: float | None
    gain_interval: Interval | None


@dataclass(frozen=True)
class Averages:
    """Averages over the same tasks.

    Attributes:
        method: Empty where methods are compared.
        budgets: One, or those of a curve.
        tasks: Those that all systems have with all budgets.
        rows: By label budget and system.
        left_out: Systems without an average, because they have fewer than half of the tasks.
    """

    family: str
    method: str
    budgets: tuple[str, ...]
    tasks: tuple[str, ...]
    rows: tuple[Average, ...]
    left_out: tuple[System, ...] = ()


def average_each(bootstrap: Bootstrap, baseline: str) -> list[Averages]:
    """The averages of all encoders, for each family, method and label budget."""
    found = []
    for (family, method), by_budget in _by_method(bootstrap.groups.values()).items():
        for budget, groups in by_budget.items():
            systems, tasks, left_out = share_tasks(groups)
            rows = [_average(bootstrap, tasks, budget, system, baseline) for system in systems if tasks]
            found.append(Averages(family, method, (budget,), tuple(tasks), tuple(rows), tuple(left_out)))
    return found


def learning_curves(bootstrap: Bootstrap, baseline: str) -> list[Averages]:
    """For each family and method with several label budgets, averages over tasks that are there with all of them."""
    found = []
    for (family, method), by_budget in _by_method(bootstrap.groups.values()).items():
        shared = [share_tasks(groups) for groups in by_budget.values()]
        tasks = _in_all([tasks for _, tasks, _ in shared])
        systems = _in_all([systems for systems, _, _ in shared])
        if len(by_budget) > 1 and tasks and systems:
            rows = [_average(bootstrap, tasks, budget, system, baseline) for budget in by_budget for system in systems]
            found.append(Averages(family, method, tuple(by_budget), tuple(tasks), tuple(rows)))
    return found


def compare_methods(bootstrap: Bootstrap, baseline: str) -> list[Averages]:
    """For each family and label budget, averages of all methods over the tasks that all of them have."""
    places: dict[tuple[str, str], dict[str, list[Group]]] = {}
    for (family, method), by_budget in _by_method(bootstrap.groups.values()).items():
        for budget, groups in by_budget.items():
            places.setdefault((family, budget), {})[method] = groups
    found = []
    for (family, budget), methods in sorted(
        places.items(), key=lambda item: (family_order(item[0][0]), budget_order(item[0][1]))
    ):
        shared = [share_tasks(groups) for groups in methods.values()]
        tasks = _in_all([tasks for _, tasks, _ in shared])
        if tasks:
            systems = [system for systems, _, _ in shared for system in systems]
            rows = [_average(bootstrap, tasks, budget, system, baseline) for system in systems]
            found.append(Averages(family, "", (budget,), tuple(tasks), tuple(rows)))
    return found


def share_tasks(groups: Sequence[Group]) -> tuple[list[System], list[str], list[System]]:
    """Which systems of one family and label budget can be averaged, and over which tasks.

    A system with fewer than half of the tasks would leave the others with these few, so it is left out.

    Returns:
        The systems, the tasks that all of them have, and the systems left out.
    """
    tasks = sorted({group.task for group in groups})
    had: dict[System, set[str]] = {}
    for group in groups:
        had.setdefault(group.system, set()).add(group.task)
    systems = [system for system, own in had.items() if 2 * len(own) >= len(tasks)]
    shared = [task for task in tasks if all(task in had[system] for system in systems)]
    return sorted(systems), shared, sorted(set(had) - set(systems))


def _average(bootstrap: Bootstrap, tasks: Sequence[str], budget: str, system: System, baseline: str) -> Average:
    groups = [bootstrap.groups[task, budget, system] for task in tasks]
    mean = float(np.mean([mean_score(group) for group in groups]))
    bounds = interval(np.mean([bootstrap.scores(group) for group in groups], axis=0))
    others = [bootstrap.groups.get((task, budget, (system[0], baseline))) for task in tasks]
    differences = [
        bootstrap.difference(group, other) for group, other in zip(groups, others, strict=True) if other is not None
    ]
    if system[1] == baseline or len(differences) < len(tasks) or not all(seeds for seeds, _, _ in differences):
        return Average(budget, system, mean, bounds, None, None)
    gain = float(np.mean([gain for _, gain, _ in differences]))
    gained = interval(np.mean([draws for _, _, draws in differences], axis=0))
    return Average(budget, system, mean, bounds, gain, gained)


def _by_method(groups: Iterable[Group]) -> Mapping[tuple[str, str], dict[str, list[Group]]]:
    """Groups by family and method, then by label budget, in order."""
    found: dict[tuple[str, str], dict[str, list[Group]]] = {}
    for group in sorted(groups, key=lambda group: budget_order(group.budget)):
        found.setdefault((group.family, group.method), {}).setdefault(group.budget, []).append(group)
    return {key: found[key] for key in sorted(found, key=lambda key: (family_order(key[0]), key[1]))}


def _in_all(parts: Sequence[Collection[T]]) -> list[T]:
    return [item for item in parts[0] if all(item in part for part in parts)] if parts else []
