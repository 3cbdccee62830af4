"""`trunkline report-size` of several bundles with eight tasks: formats, fork depths and kinds of adapters."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from deployment.options import EIGHT, FORK, Options

from trunkline_lab.size.report import LENGTHS, SizeOptions, pareto, report_size
from trunkline_lab.size.show import pareto_plot
from trunkline_lab.speed.deployment.options import EIGHT, FORK, Options

_LOW = tuple(f"task-{n:02}" for n in range(EIGHT))
BUNDLES = {
    "float32, fork 0, LoRA": ("low-float32", _LOW),
    "int8, fork 0, LoRA": ("low-int8", _LOW),
    "int8, 8,000 pieces, fork 0, LoRA": ("low-int8-8000", _LOW),
    "int4, fork 0, LoRA": ("low-int4", _LOW),
    f"int8, fork {FORK}, LoRA": ("forked-int8", tuple(f"lora-{n}" for n in range(EIGHT))),
    f"int8, fork {FORK}, heads": ("forked-int8", tuple(f"head-{n}" for n in range(EIGHT))),
}


def measure_costs(options: Options, say: Callable[[str], None]) -> dict[str, Any]:
    """The records of `report_size` by the names above."""
    records = []
    for name, (place, tasks) in BUNDLES.items():
        chosen = SizeOptions(tasks, tuple(sorted({*LENGTHS, options.length})), repeats=5)
        records.append({**report_size(options.place(place), chosen), "name": name})
        say(f"{name}: {records[-1]['times'][str(options.length)]['total']:.2f} ms")
    return {"records": records, "length": options.length}


def plot_costs(found: Mapping[str, Any], path: Path) -> Path:
    """Megabytes against milliseconds."""
    return pareto_plot(pareto(found["records"], found["length"]), found["length"], path)


def costs_lines(found: Mapping[str, Any]) -> list[str]:
    """The records as Markdown."""
    lines = [
        "| eight tasks | tokens | tokenizer | trunk | a branch | all branches | heads, decoding | total | separate |"
    ]
    lines += ["|---" * 9 + "|"]
    for record in found["records"]:
        for length, row in record["times"].items():
            cells = [row[key] for key in ("tokenizer", "trunk", "branch", "branches", "head", "total")]
            cells.append(record["separate"]["times"][length])
            lines.append(f"| {record['name']} | {length} | " + " | ".join(f"{cell:.3g}" for cell in cells) + " |")
    lines += [
        "",
        "| eight tasks | MB of trunk | branch | tokenizer | adapters | tasks | total | MB in memory | separate |",
    ]
    lines += ["|---" * 9 + "|"]
    for record in found["records"]:
        sizes, separate = record["bytes"], record["separate"]
        cells = [sizes[key] for key in ("trunk", "branch", "tokenizer", "adapters", "tasks", "total")]
        cells += [record["memory"]["resident"], separate["memory"]["resident"]]
        lines.append(f"| {record['name']} | " + " | ".join(f"{cell / 1e6:.2f}" for cell in cells) + " |")
    return lines
