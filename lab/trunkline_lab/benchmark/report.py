"""The report on a benchmark as plain data: all that tables and plots need, from results alone."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from statistics import median
from typing import Any

import numpy as np

from trunkline.errors import TrunklineError, nearest
from trunkline_lab.benchmark.averages import Averages, average_each, compare_methods, learning_curves
from trunkline_lab.benchmark.groups import Group, Grouped, System, budget_order, family_order, group_results, missing
from trunkline_lab.benchmark.results import Result
from trunkline_lab.benchmark.stats import (
    LEVEL,
    Bootstrap,
    Comparison,
    FamilyComparison,
    Pair,
    compare,
    compare_families,
    mean_score,
)
from trunkline_lab.benchmark.suite import OWN_METHODS
from trunkline_lab.resampling import RESAMPLES, interval

CHOSEN = "task-primary"
"""The encoder that is compared with full fine-tuning and with peers."""
PAIRS = ((CHOSEN, "individual"), (CHOSEN, "naive"), ("naive", "individual"))
"""Pairs of encoders that are compared where a report has both, beside each encoder with the baseline."""

Row = dict[str, Any]
_FIRST = (*OWN_METHODS, "full")
"""Methods before all others; `full`, which trained the whole encoder, is in committed results alone."""
_DIGITS = 6
_FAILURE = ("family", "task", "budget", "method", "encoder", "seed", "error")


def make_report(
    results: Sequence[Result], baseline: str, pairs: Sequence[tuple[str, str]] = (), *, resamples: int = RESAMPLES
) -> Row:
    """Computes a report.

    Args:
        results: Finished and failed cells, in any order.
        baseline: The encoder with which all others are compared, method by method.
        pairs: Further pairs, the first less the second; either two encoders, compared with each method, or two of the
            form `method/encoder`. `PAIRS` are compared anyway, and `CHOSEN` with our methods against full fine-tuning
            of the baseline and against all peers, as far as the results have them.
        resamples: Draws of the bootstrap.

    Returns:
        Plain data, rounded to 6 digits, the same for the same results: `baseline`, `resamples`, `level`, `totals`,
        `scores` (task by task), `tables` (averages), `curves`, `methods` (averages across methods), `comparisons` (pair
        by pair on each task), `families` (pairs over tasks), `failed`, `missing`, `problems`.

    Raises:
        TrunklineError: No results, two of one cell, or an encoder that they do not have.
    """
    if not results:
        raise TrunklineError("no results", expected="cells of a benchmark", todo="Run the suite first")
    _require(baseline, {result.encoder for result in results}, "encoder")
    grouped = group_results(results)
    bootstrap = Bootstrap(grouped.groups, resamples)
    order = _Order(baseline)
    wanted = _pairs(results, baseline, pairs)
    comparisons = compare(bootstrap, wanted)
    gone = missing(grouped)
    report = {
        "baseline": baseline,
        "resamples": resamples,
        "level": LEVEL,
        "totals": {**_totals(results, grouped, order), "missing": sum(len(row["seeds"]) for row in gone)},
        "scores": [_score(bootstrap, group) for group in sorted(grouped.groups, key=order.group)],
        "tables": [_averages(found, order) for found in average_each(bootstrap, baseline)],
        "curves": [_averages(found, order) for found in learning_curves(bootstrap, baseline)],
        "methods": [_across(found, order, bootstrap) for found in compare_methods(bootstrap, baseline)],
        "comparisons": [_comparison(row) for row in comparisons],
        "families": [_over_tasks(row) for row in compare_families(comparisons)],
        "failed": [_fields(result, *_FAILURE) for result in grouped.failed],
        "missing": gone,
        "problems": list(grouped.problems),
    }
    rounded: Row = _rounded(report)
    return rounded


def report_text(report: Mapping[str, Any]) -> str:
    """A report as JSON with one row a line, so that two reports can be compared line by line."""
    parts = []
    for key, value in report.items():
        if isinstance(value, list) and value:
            rows = ",\n".join(f"  {json.dumps(row, ensure_ascii=False)}" for row in value)
            parts.append(f"{json.dumps(key)}: [\n{rows}\n]")
        else:
            parts.append(f"{json.dumps(key)}: {json.dumps(value, ensure_ascii=False)}")
    return "{\n" + ",\n".join(parts) + "\n}\n"


class _Order:
    """How a report sorts: the baseline before other encoders, our methods before peers."""

    def __init__(self, baseline: str) -> None:
        self.baseline = baseline

    def encoder(self, name: str) -> tuple[bool, str]:
        return name != self.baseline, name

    def method(self, name: str) -> tuple[int, str]:
        return (_FIRST.index(name) if name in _FIRST else len(_FIRST)), name

    def system(self, system: System) -> tuple[Any, ...]:
        return self.method(system[0]), self.encoder(system[1])

    def group(self, group: Group) -> tuple[Any, ...]:
        return (
            family_order(group.family),
            self.system(group.system)[0],
            budget_order(group.budget),
            group.task,
            (self.encoder(group.encoder)),
        )


def _pairs(results: Sequence[Result], baseline: str, given: Sequence[tuple[str, str]]) -> list[Pair]:
    order = _Order(baseline)
    systems = {(result.method, result.encoder) for result in results}
    encoders = sorted({encoder for _, encoder in systems}, key=order.encoder)
    methods = sorted({method for method, _ in systems}, key=order.method)
    wanted = [(encoder, baseline) for encoder in encoders if encoder != baseline]
    wanted += [pair for pair in PAIRS if set(pair) <= set(encoders)]
    wanted += _across_methods(sorted(systems, key=order.system), baseline)
    wanted += [(first, second) for first, second in given]
    found: list[Pair] = []
    for first, second in dict.fromkeys(wanted):
        ends = [_system(name, methods) for name in (first, second)]
        for name, (_, encoder) in zip((first, second), ends, strict=True):
            _require(encoder, encoders, f"encoder of the pair ({first}, {second})", name)
        if bool(ends[0][0]) != bool(ends[1][0]):
            raise TrunklineError(
                f"the pair ({first}, {second})", expected="two encoders, or two systems such as head/none and full/none"
            )
        for method in methods:
            pair = Pair((ends[0][0] or method, ends[0][1]), (ends[1][0] or method, ends[1][1]))
            if {pair.first, pair.second} <= systems and pair not in found:
                found.append(pair)
    return sorted(found, key=lambda pair: (pair.first[0] != pair.second[0], order.method(pair.first[0])))


def _across_methods(systems: Sequence[System], baseline: str) -> list[tuple[str, str]]:
    ours = [system for system in systems if system in (("head", CHOSEN), ("lora", CHOSEN))]
    others = [system for system in systems if system == ("full", baseline) or system[0] not in (*OWN_METHODS, "full")]
    return [("/".join(first), "/".join(second)) for first in ours for second in others]


def _system(name: str, methods: Iterable[str]) -> System:
    """Method and encoder of a name; the method is empty where it names an encoder alone."""
    method, slash, encoder = name.partition("/")
    return (method, encoder) if slash and method in methods else ("", name)


def _require(name: str, known: Iterable[str], what: str, given: str = "") -> None:
    if name not in known:
        names = sorted(known)
        raise TrunklineError(
            f"{given or name!r} is no {what} of these results{nearest(name, names)}",
            expected=f"one of {', '.join(names)}",
        )


def _totals(results: Sequence[Result], grouped: Grouped, order: _Order) -> Row:
    cells = [result for group in grouped.groups for result in group.cells.values()]
    tasks: dict[str, list[str]] = {}
    for family in sorted({result.family for result in results}, key=family_order):
        tasks[family] = sorted({result.task for result in results if result.family == family})
    versions: dict[str, set[str]] = {}
    for result in cells:
        for package, version in (result.info.get("versions") or {}).items():
            versions.setdefault(package, set()).add(str(version))
    return {
        "finished": len(cells),
        "failed": len(grouped.failed),
        "left_out": len({(r.task, r.budget, r.method, r.encoder, r.seed) for r in results})
        - len(cells)
        - len(grouped.failed),
        "tasks": tasks,
        "encoders": sorted({result.encoder for result in results}, key=order.encoder),
        "methods": sorted({result.method for result in results}, key=order.method),
        "budgets": sorted({result.budget for result in results}, key=budget_order),
        "seeds": sorted({result.seed for result in results}),
        "seconds": sum(result.seconds for result in cells),
        "versions": {package: sorted(found) for package, found in sorted(versions.items())},
    }


def _score(bootstrap: Bootstrap, group: Group) -> Row:
    cells = list(group.cells.values())
    values = [cell.test[group.measure] for cell in cells]
    return {
        **_place(group.family, group.budget),
        **_fields(group, "task", "method", "encoder", "measure"),
        "seeds": list(group.cells),
        "train": float(np.mean([cell.n_train for cell in cells])),
        "test": len(group.counts[cells[0].seed]),
        "mean": mean_score(group),
        "interval": interval(bootstrap.scores(group)),
        "deviation": float(np.std(values, ddof=1)) if len(values) > 1 else None,
        "measures": {
            name: float(np.mean([cell.test[name] for cell in cells]))
            for name in cells[0].test
            if all(name in cell.test for cell in cells)
        },
        **_costs([group]),
    }


def _costs(groups: Sequence[Group]) -> Row:
    """Medians over cells; none where it is not known."""
    cells = [cell for group in groups for cell in group.cells.values()]
    found: Row = {}
    for name in ("n_bytes", "ms_per_text", "seconds"):
        known = [getattr(cell, name) for cell in cells if getattr(cell, name) > 0]
        found[name] = float(median(known)) if known else None
    return found


def _place(family: str, budget: str) -> Row:
    return {"family": family, "budget": budget}


def _averages(found: Averages, order: _Order) -> Row:
    return {
        **_fields(found, "family", "method", "budgets", "tasks"),
        "left_out": ["/".join(system) if not found.method else system[1] for system in found.left_out],
        "rows": [
            {
                "budget": row.budget,
                "method": row.system[0],
                "encoder": row.system[1],
                **_fields(row, "mean", "interval", "gain", "gain_interval"),
            }
            for row in sorted(found.rows, key=lambda row: (budget_order(row.budget), order.system(row.system)))
        ],
    }


def _across(found: Averages, order: _Order, bootstrap: Bootstrap) -> Row:
    """Averages across methods, each with what the system costs on these tasks."""
    table = _averages(found, order)
    for row in table["rows"]:
        system = (row["method"], row["encoder"])
        row |= _costs([bootstrap.groups[task, row["budget"], system] for task in found.tasks])
    return table


def _pair(pair: Pair) -> Row:
    """The names of a pair: of its encoders under one method, else of its systems, and then the method is none."""
    if pair.first[0] == pair.second[0]:
        return {"method": pair.first[0], "first": pair.first[1], "second": pair.second[1]}
    return {"method": None, "first": "/".join(pair.first), "second": "/".join(pair.second)}


def _comparison(row: Comparison) -> Row:
    return {
        **_place(row.family, row.budget),
        **_pair(row.pair),
        **_fields(row, "task", "seeds", "gain", "interval", "p", "corrected_p", "outcome"),
    }


def _over_tasks(row: FamilyComparison) -> Row:
    return {
        **_place(row.family, row.budget),
        **_pair(row.pair),
        **_fields(row, "tasks", "gain", "interval", "tasks_interval", "p"),
        **row.outcomes,
        **_fields(row, "up", "down", "sign_p", "wilcoxon_p"),
    }


def _fields(item: Any, *names: str) -> Row:
    return {name: getattr(item, name) for name in names}


def _rounded(value: Any) -> Any:
    if isinstance(value, float):
        return round(value, _DIGITS) + 0.0  # the sum makes -0.0 one with 0.0
    if isinstance(value, dict):
        return {key: _rounded(item) for key, item in value.items()}
    return [_rounded(item) for item in value] if isinstance(value, list | tuple) else value
