"""What the repeats say: medians with their quartiles, ratios paired by repeat, and a page of Markdown."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from trunkline_lab.speed.deployment.cases import Part, Ratio
from trunkline_lab.speed.side_by_side import judged, summary

Found = Mapping[str, Any]


def summarise(results: Mapping[str, Found], ratios: Sequence[Ratio]) -> dict[str, Any]:
    """Medians and quartiles of every case, and the ratios."""
    return {
        "summary": {name: summary(found["milliseconds"]) for name, found in results.items() if found["milliseconds"]},
        "ratios": [row for asked in ratios if (row := _ratio(asked, results))],
    }


def _ratio(asked: Ratio, results: Mapping[str, Found]) -> dict[str, Any] | None:
    over = results[asked.over]["milliseconds"]
    under = results[asked.under]["milliseconds"] if asked.under else [1.0] * len(over)
    if not over or not under:
        return None
    values = [a / b for a, b in zip(over, under, strict=True)]
    return {"what": asked.what, **judged(values, asked.at_least, asked.at_most)}


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
        shown = _spread(found["summary"][case.name]) if case.name in found["summary"] else result["missing"]
        lines.append(f"| {case.name} | {shown} | {result['says']} |")
    return [*lines, "", *_ratios(found["ratios"])]


def _twenty(found: Found) -> list[str]:
    lines = ["## Twenty tasks on disk and in memory", "", _when(found), ""]
    lines += ["Memory is resident memory over that of Python with ONNX Runtime loaded, after all tasks have run.", ""]
    lines += ["| what | MB on disk | MB a task | MB in memory | at its peak |", "|---|---|---|---|---|"]
    for name, row in found["rows"].items():
        memory = f"{_spread(row['resident'])} | {_spread(row['peak'])}"
        lines.append(f"| {row['tasks']} tasks, {name} | {row['disk']:.1f} | {row['a task']:.3f} | {memory} |")
    return [*lines, "", *_ratios(found["ratios"])]


def _when(found: Found) -> str:
    return f"Taken {found['at']}, {found['minutes']:.0f} minutes, load {found['load']:.1f} before the start."


def _ratios(rows: Sequence[Found]) -> list[str]:
    lines = ["| compared | median | asked | met |", "|---|---|---|---|"]
    for row in rows:
        asked = f"at least {row['at_least']}" if row.get("at_least") is not None else ""
        asked = f"at most {row['at_most']}" if row.get("at_most") is not None else asked
        met = {None: "", True: "yes", False: "**no**"}[row.get("met")]
        lines.append(f"| {row['what']} | {_spread(row)} | {asked} | {met} |")
    return lines


def _spread(values: Found) -> str:
    if "lower_quartile" not in values:
        return format(values["median"], ".4g")
    shown = [_number(values[key]) for key in ("median", "lower_quartile", "upper_quartile")]
    return shown[0] if len(set(shown)) == 1 else f"{shown[0]} ({shown[1]} to {shown[2]})"


def _number(value: float) -> str:
    return format(value, ".3g") if value < 100 else f"{value:.0f}"
