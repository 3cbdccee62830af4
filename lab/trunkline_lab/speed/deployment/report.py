"""What the repeats say: medians with their quartiles, ratios paired by repeat, and a page of Markdown."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from trunkline_lab.speed.side_by_side import Part, Ratio, ratio, ratio_table, spread, summary

Found = Mapping[str, Any]


def summarise(results: Mapping[str, Found], asked: Sequence[Ratio]) -> dict[str, Any]:
    """Medians and quartiles of every case, and the ratios."""
    values = {name: [row["milliseconds"] for row in found["repeats"]] for name, found in results.items()}
    rows = [ratio(item, values[item.over], values.get(item.under, ())) for item in asked]
    return {
        "summary": {name: summary(found) for name, found in values.items() if found},
        "ratios": [row for row in rows if row is not None],
    }


def page(content: Found, parts: Mapping[str, Part]) -> str:
    """All sections as Markdown."""
    machine = content["machine"]
    where = f"{machine['cores']} cores of {machine['processor']}, {machine['memory_bytes'] / 2**30:.0f} GiB"
    versions = ", ".join(f"{name} {number}" for name, number in content["versions"].items())
    lines = [
        "# Speed, memory and size of bundles",
        "",
        f"On {where}; {versions}.",
        "",
        "Milliseconds of processor time on one pinned core with one thread: medians over repeats that take turns,",
        "quartiles in brackets; a repeat is the best of several rounds' medians; each case in a process of its own.",
        "Ratios are paired by repeat.",
    ]
    found = content["parts"]
    for name, part in parts.items():
        if name in found:
            lines += ["", *_timed(part, found[name])]
    if "twenty" in found:
        lines += ["", *_twenty(found["twenty"])]
    return "\n".join(lines) + "\n"


def _timed(part: Part, found: Found) -> list[str]:
    lines = [f"## {part.title}", "", _when(found), "", "| case | ms | what |", "|---|---|---|"]
    for case in part.cases:
        result = found["cases"].get(case.name)
        if result is None:
            continue
        shown = spread(found["summary"][case.name]) if case.name in found["summary"] else result["missing"]
        lines.append(f"| {case.name} | {shown} | {result['says']} |")
    return [*lines, "", *ratio_table(found["ratios"])]


def _twenty(found: Found) -> list[str]:
    lines = ["## Twenty tasks on disk and in memory", "", _when(found), ""]
    lines += ["Memory is resident memory over that of Python with ONNX Runtime loaded, after all tasks have run.", ""]
    lines += ["| what | MB on disk | MB a task | MB in memory | at its peak |", "|---|---|---|---|---|"]
    for name, row in found["rows"].items():
        memory = f"{spread(row['resident'])} | {spread(row['peak'])}"
        lines.append(f"| {row['tasks']} tasks, {name} | {row['disk']:.1f} | {row['a task']:.3f} | {memory} |")
    return [*lines, "", *ratio_table(found["ratios"])]


def _when(found: Found) -> str:
    return f"Taken {found['at']}, {found['minutes']:.0f} minutes, load {found['load']:.1f} before the start."
