"""What the repeats say: medians with their spread, ratios paired by repeat, and a page of Markdown."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from trunkline_lab.speed.side_by_side import Part, Ratio, ratio, ratio_table, spread, summary

Result = Mapping[str, Any]
_PER = ("tokens", "pairs", "flops", "real_flops")
_MIB = 2**20


def measures(repeat: Mapping[str, float]) -> dict[str, float]:
    """Rates and shares of a repeat, from its counts and times."""
    seconds, cpu = repeat["seconds"], repeat["cpu_seconds"]
    found = {"seconds": seconds, "cpu_seconds": cpu}
    for unit in _PER:
        if repeat.get(unit):
            found[f"{unit}_per_second"] = repeat[unit] / seconds
            found[f"{unit}_per_cpu_second"] = repeat[unit] / cpu
    for unit in ("token", "pair"):
        if repeat.get(f"{unit}s"):
            found[f"seconds_per_{unit}"] = seconds / repeat[f"{unit}s"]
            found[f"cpu_seconds_per_{unit}"] = cpu / repeat[f"{unit}s"]
    if repeat.get("computed"):
        found["padding"] = 1 - repeat["tokens"] / repeat["computed"]
    if "waited" in repeat:
        found["waiting"] = repeat["waited"] / seconds
    return found


def summarise(results: Mapping[str, Result]) -> dict[str, dict[str, dict[str, float]]]:
    """Every measure of every case over its repeats."""
    found: dict[str, dict[str, dict[str, float]]] = {}
    for name, result in results.items():
        rows = [measures(repeat) for repeat in result["repeats"]]
        found[name] = {key: summary([row[key] for row in rows]) for key in rows[0]} if rows else {}
    return found


def ratios(asked: Sequence[Ratio], results: Mapping[str, Result]) -> list[dict[str, Any]]:
    """The ratios of the cases that there are."""
    found = [
        ratio(item, *(_values(results.get(name), item.measure) for name in (item.over, item.under))) for item in asked
    ]
    return [row for row in found if row is not None]


def _values(result: Result | None, measure: str) -> list[float]:
    if result is None or not result["repeats"]:
        return []
    if measure == "peak":
        return [float(result["peak"])]
    return [measures(repeat)[measure] for repeat in result["repeats"]]


def page(content: Mapping[str, Any], parts: Mapping[str, Part]) -> str:
    """All sections as Markdown."""
    machine = content["machine"]
    where = ", ".join([*machine["accelerators"], f"{machine['cores']} cores of {machine['processor']}"])
    lines = [
        "# Training speed and memory",
        "",
        f"On {where}. Medians over repeats that take turns, quartiles in brackets; each case in a process of its own.",
    ]
    for name, part in parts.items():
        if name in content["parts"]:
            lines += ["", *_section(part, content["parts"][name])]
    return "\n".join(lines) + "\n"


def _section(part: Part, found: Mapping[str, Any]) -> list[str]:
    results, summaries = found["cases"], found["summary"]
    threads, load = found["threads"], found["load"]
    lines = [f"## {part.title}", "", f"{threads} threads, load {load:.1f} before the start.", ""]
    lines += [
        "| case | a second | a CPU second | padding | waiting for data | memory before, peak (MiB) |",
        "|---|---|---|---|---|---|",
    ]
    for case in part.cases:
        if case.name in results:
            lines.append(_row(case.name, results[case.name], summaries[case.name]))
    lines += ["", *ratio_table(found["ratios"])]
    for name, result in results.items():
        if result.get("operations"):
            shown = ", ".join(f"{row['operation']} {row['share']:.0%}" for row in result["operations"][:10])
            lines += ["", f"Where the time of {name} goes: {shown}."]
    lines += [""] + [f"- {name}: {result['says']}{_details(result)}." for name, result in results.items()]
    return lines


def _row(name: str, result: Result, found: Mapping[str, Mapping[str, float]]) -> str:
    if "missing" in result:
        return f"| {name} | {result['missing']} | | | | |"
    cells = []
    for per in ("second", "cpu_second"):
        units = [unit for unit in ("pairs", "tokens") if f"{unit}_per_{per}" in found]
        shown = [f"{spread(found[f'{unit}_per_{per}'], ',.0f')} {unit}" for unit in units]
        if "flops" in result["repeats"][0]:
            shown.append(f"{found[f'flops_per_{per}']['median'] / 1e9:,.0f} GFLOP")
        cells.append("; ".join(shown))
    for share in ("padding", "waiting"):
        cells.append(f"{found[share]['median']:.1%}" if share in found else "")
    cells.append(f"{result['ready'] / _MIB:,.0f}, {result['peak'] / _MIB:,.0f}")
    return f"| {name} | " + " | ".join(cells) + " |"


def _details(result: Result) -> str:
    shown = [str(result[key]) for key in ("peer", "precision") if key in result]
    if "trained" in result:
        shown.append(f"{result['trained']:,} trained parameters")
    if "examples_per_step" in result:
        shown.append(f"{result['examples_per_step']:.1f} sentences a step")
    return f" ({', '.join(shown)})" if shown else ""
