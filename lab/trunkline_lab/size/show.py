"""What `trunkline-lab size` shows: bytes, memory and milliseconds of deployed bundles."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from rich.table import Table

from trunkline.ui import console


def print_sizes(record: Mapping[str, Any]) -> None:
    """Prints the record of `trunkline_lab.size.report.report_size`."""
    count = len(record["tasks"])
    console.print(
        f"{record['name']}: {record['weights']}, fork {record['fork']} of {record['n_layers']} layers, "
        f"{count} task{'s' * (count != 1)}",
        style="bold",
        highlight=False,
    )
    separate = record.get("separate")
    costs = Table("", "bundle", *([f"{separate['models']} separate models"] if separate else ()), box=None)
    for column in costs.columns[1:]:
        column.justify = "right"
    for part, size in record["bytes"].items():
        total = [_mb(separate["bytes"])] if separate and part == "total" else [""] * bool(separate)
        costs.add_row(f"{part} on disk", _mb(size), *total, end_section=part == "total")
    for kind, name in (("resident", "memory, resident"), ("peak", "memory at its peak")):
        both = [record["memory"], *([separate["memory"]] if separate else ())]
        costs.add_row(name, *(_mb(memory[kind]) for memory in both))
    console.print(costs)
    names = ("tokenizer", "trunk", "branch", "branches", "head", "total")
    times = Table("tokens", *(f"{name}, ms" for name in names), *(["separate, ms"] if separate else ()), box=None)
    for column in times.columns:
        column.justify = "right"
    for length, row in record["times"].items():
        more = [f"{separate['times'][length]:.2f}"] if separate else []
        times.add_row(length, *(f"{row[name]:.3f}" if row[name] < 1 else f"{row[name]:.2f}" for name in names), *more)
    console.print(times)
    console.print(
        "Memory is over that of the bare runtime. Times are processor time of one thread; `branch` is a pass without "
        "an adapter, `branches` are those of all tasks.",
        style="dim",
    )


def _mb(size: float) -> str:
    return f"{size / 1e6:,.2f} MB"
