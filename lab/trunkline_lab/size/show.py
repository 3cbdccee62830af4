"""What `trunkline-lab size` shows: bytes, memory and milliseconds of deployed bundles, and a plot of several."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from rich.table import Table

from trunkline.ui import console
from trunkline_lab.ui.plots import _INK, _SOFT, _save, _shorten, _title

_BEST, _OTHER = "#2a7f9e", "#c3cbd3"


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


def pareto_plot(rows: Sequence[Mapping[str, Any]], length: int, path: str | Path) -> Path:
    """Draws bundles by what they cost; those that no other one beats in everything are in colour and joined.

    With scores, one panel against milliseconds and one against megabytes; without, megabytes against milliseconds.

    Args:
        rows: From `trunkline_lab.size.report.pareto`; rows without a score are left out where others have one.
        length: Tokens of the text that was timed.
        path: The PNG to write.
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure
    from matplotlib.layout_engine import ConstrainedLayoutEngine

    scored = [row for row in rows if row["score"] is not None]
    shown = scored or list(rows)
    height = 4.2
    layout = ConstrainedLayoutEngine(rect=(0.012, 0.02, 0.976, (height - 0.8) / height))
    figure = Figure(figsize=(12 if scored else 8.5, height), layout=layout, facecolor="white")
    FigureCanvasAgg(figure)
    cost = f"milliseconds of all tasks on a text of {length} tokens"
    if scored:
        left, right = figure.subplots(1, 2, sharey=True)
        _panel(left, shown, ("milliseconds", "score"), (cost, "score, %"))
        _panel(right, shown, ("megabytes", "score"), ("megabytes on disk", ""))
    else:
        _panel(figure.subplots(), shown, ("milliseconds", "megabytes"), (cost, "megabytes on disk"))
    names = figure.axes[-1].get_legend_handles_labels()
    figure.legend(*names, loc="outside right upper", frameon=False, fontsize=8.5, labelcolor=_INK, markerscale=0.5)
    left_out = len(rows) - len(shown)
    below = f"{len(shown)} bundles" + (f"; {left_out} without a score left out" if left_out else "")
    _title(figure, "What deployed bundles cost", f"{below}; in colour those that no other one beats in everything")
    return _save(figure, Path(path))


def _panel(axes: Any, rows: Sequence[Mapping[str, Any]], keys: tuple[str, str], names: tuple[str, str]) -> None:
    factor = 100 if keys[1] == "score" else 1
    for number, row in enumerate(rows, 1):
        x, y = row[keys[0]], factor * row[keys[1]]
        colour, ink = (_BEST, "white") if row["best"] else (_OTHER, _INK)
        axes.scatter(x, y, s=170, color=colour, label=f"{number}  {_shorten(row['name'])}", zorder=2)
        axes.annotate(str(number), (x, y), size=8, color=ink, ha="center", va="center_baseline", zorder=3)
    best = sorted((row[keys[0]], factor * row[keys[1]]) for row in rows if row["best"])
    axes.plot(*zip(*best, strict=True), color=_BEST, linewidth=1, zorder=1)
    axes.margins(x=0.1, y=0.15)
    axes.set_xlabel(names[0], color=_SOFT, size=9)
    axes.set_ylabel(names[1], color=_SOFT, size=9)
    axes.tick_params(colors=_SOFT, labelsize=8, length=0)
    axes.grid(color="#e4e7eb", linewidth=0.8)
    axes.set_axisbelow(True)
    for spine in axes.spines.values():
        spine.set_visible(False)


def _mb(size: float) -> str:
    return f"{size / 1e6:,.2f} MB"
