"""What `trunkline-lab conflict` shows: a table, the findings in words, and plots as PNG files."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from rich.table import Table
from rich.text import Text

from trunkline.encoder.storage import write_json
from trunkline.ui import console
from trunkline_lab.conflict.measure import WHOLE
from trunkline_lab.conflict.report import levels, summarise_conflict
from trunkline_lab.ui.plots import _INK, _SOFT, _bare, _figure, _save, _title

WIDTH = 100
_COLOURS = ("#2a7f9e", "#d1603d", "#5b8c3e", "#8a5fb0", "#b08a1f", "#c0437a", "#3c5aa6", "#6b6b6b")
_SPREAD = 0.12
"""Of the distance between two layers: how far the points of the lines stand apart, so that error bars are seen."""
_WIDEST = 0.56
"""The same from the first to the last line, however many there are: a point must be nearest to its own layer."""
_WITHIN = ("^", "v")
"""Marks of the cosines within the first and the second family."""
_MOST_MARKED = 40
_MOST_ERROR = 0.5
"""Standard error of a cosine without noise from which on it tells nothing and is left out of the plot."""

Line = Mapping[str, Any]


def conflict_report(folders: Mapping[str, Path], out: Path) -> dict[str, Any]:
    """Compares the conflict that runs have measured; writes `conflict.json` and the plots.

    For each pair of families: `cosine-A-B.png` (each layer, with noise floor and, below, corrected for noise), and
    `conflict-A-B.png` (over steps) where there is more than one step.

    Args:
        folders: Folder of each run, with its `conflict.jsonl`, by the name that the plots give it.
        out: Where to write.

    Returns:
        What `trunkline_lab.conflict.report.summarise_conflict` returns, with the names of the plots as `plots`.

    Raises:
        DataError: A folder without measurements, or rows of another form.
    """
    report = summarise_conflict(folders)
    out.mkdir(parents=True, exist_ok=True)
    plots: list[Path] = []
    for pair in dict.fromkeys(tuple(line["families"]) for line in report["lines"]):
        lines = [line for line in report["lines"] if tuple(line["families"]) == pair]
        name = "-".join(pair)
        plots.append(plot_cosines(lines, out / f"cosine-{name}.png"))
        if any(len(line["steps"]) > 1 for line in lines):
            plots.append(plot_over_time(lines, out / f"conflict-{name}.png"))
    report["plots"] = [path.name for path in plots]
    write_json(report, out / "conflict.json")
    return report


def print_conflict(report: Mapping[str, Any]) -> None:
    """Prints what `conflict_report` returns: each line's layers, then the findings."""
    for line in report["lines"]:
        first, second = line["families"]
        head = Text(line["label"], style="bold")
        head.append(f"  {first} against {second}, {_steps(line)}", style="not bold dim")
        console.print(head, width=WIDTH, highlight=False)
        table = Table("group", box=None)
        within = (f"within\n{first}", f"within\n{second}")
        for name in ("cosine\n± 95 %", *within, "without\nnoise", "\nconflict", "norm\nratio"):
            table.add_column(name, justify="right", no_wrap=True)
        for group in [*levels(line["groups"]), WHOLE]:
            row = line["groups"].get(group)
            if row is not None:
                table.add_row(group, *_cells(row, (first, second)), end_section=group == WHOLE)
        console.print(table, width=WIDTH, highlight=False)
        console.print()
    for sentence in report["findings"]:
        console.print(f"{sentence}.", width=WIDTH, highlight=False)


def _cells(row: Mapping[str, Any], families: Sequence[str]) -> list[Text]:
    margin = "" if row["margin"] is None else f" ± {row['margin']:.3f}"
    sure = row["margin"] is not None and row["cosine"] is not None and abs(row["cosine"]) > row["margin"]
    style = ("red" if row["cosine"] < 0 else "green") if sure else ""
    return [
        Text("-" if row["cosine"] is None else f"{row['cosine']:+.3f}{margin}", style=style),
        *(Text(_number(row["within"][family], "+.3f"), style="dim") for family in families),
        Text(_number(row["corrected"], "+.2f")),
        Text(_number(row["conflict"], ".0%")),
        Text(_number(row["norm_ratio"], ".2f")),
    ]


def _number(value: float | None, form: str) -> str:
    return "-" if value is None else format(value, form)


def _steps(line: Line) -> str:
    late = [step for step in line["steps"] if step > 0] or line["steps"]
    return f"step {late[0]}" if len(late) == 1 else f"mean over {len(late)} measurements to step {late[-1]}"


def plot_cosines(lines: Sequence[Line], path: Path) -> Path:
    """Draws the cosine between two families in each layer, with the cosine within families; below, without noise.

    Args:
        lines: Those of `summarise_conflict` for one pair of families.
        path: The PNG to write.

    Returns:
        The path.
    """
    first, second = lines[0]["families"]
    figure, (above, middle, below) = _canvas(8.4, (5, 4, 4))
    names = levels({name for line in lines for name in line["groups"]})
    for number, line in enumerate(lines):
        _layers(above, names, lines, number, _points(line, "cosine", "margin"))
        for family, marker in zip((first, second), _WITHIN, strict=True):
            look = {"label": "", "marker": marker, "linewidth": 1.1}
            _layers(middle, names, lines, number, _points(line, "within", "within_se", family), **look)
        told = {name: row["corrected_se"] or 0.0 for name, row in line["groups"].items()}
        points = _points(line, "corrected", "corrected_se")
        _layers(below, names, lines, number, {name: v for name, v in points.items() if told[name] <= _MOST_ERROR})
    for axes, what in (
        (above, "cosine between families\n(bars: 95 %)"),
        (middle, "cosine within a family"),
        (below, "between, without noise\n(bars: standard error)"),
    ):
        axes.axhline(0, color=_INK, linewidth=0.9, zorder=1)
        _style(axes, what)
        _name_layers(axes, names if axes is below else [""] * len(names))
    low, high = below.get_ylim()
    below.set_ylim(max(min(low, -0.3), -1.5), min(max(high, 0.3), 1.5))
    below.set_xlabel("layer", color=_SOFT, size=9)
    _legend(figure, above, {f"within {family}": mark for family, mark in zip((first, second), _WITHIN, strict=True)})
    subtitle = "below 0 the families collide; noise draws all cosines towards 0, those within a family as well"
    _title(figure, f"{first} against {second}: do the gradients agree?", subtitle)
    return _save(figure, path)


def plot_over_time(lines: Sequence[Line], path: Path) -> Path:
    """Draws the share of batches and layers whose gradients conflict, step by step; arguments as for `plot_cosines`."""
    from matplotlib.ticker import FuncFormatter, MaxNLocator

    first, second = lines[0]["families"]
    figure, (axes,) = _canvas(4.4, (1,))
    for number, line in enumerate(lines):
        moments = [moment for moment in line["over_time"] if moment["conflict"] is not None]
        steps = [moment["step"] for moment in moments]
        style = _look(lines, number)
        if len(steps) > _MOST_MARKED:
            style["marker"] = ""
        axes.plot(steps, [moment["conflict"] for moment in moments], linewidth=1.8, **style)
    axes.axhline(0.5, color=_SOFT, linewidth=1.4, dashes=(1, 1.5), label="gradients without relation", zorder=1)
    _style(axes, "share of negative cosines")
    axes.set_ylim(-0.03, 1.03)
    axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:.0%}"))
    axes.xaxis.set_major_locator(MaxNLocator(8, integer=True))
    axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:,.0f}"))
    axes.set_xlabel("step", color=_SOFT, size=9)
    _legend(figure, axes)
    _title(
        figure,
        f"{first} against {second}: how often do they collide?",
        "negative cosines among all batches, embeddings and layers",
    )
    return _save(figure, path)


def _canvas(height: float, rows: Sequence[float]) -> tuple[Any, Any]:
    """A figure of axes above one another, their heights as in `rows`, with room for two lines above them."""
    figure = _figure(8, height)
    return figure, figure.subplots(len(rows), 1, squeeze=False, height_ratios=rows)[:, 0]


def _points(line: Line, key: str, error: str, family: str | None = None) -> dict[str, tuple[float, float]]:
    """For each layer its value and half the length of its error bar."""
    found = {}
    for name in levels(line["groups"]):
        row = line["groups"][name]
        value, width = (row[key], row[error]) if family is None else (row[key][family], row[error][family])
        if value is not None:
            found[name] = value, width or 0.0
    return found


def _layers(
    axes: Any,
    names: Sequence[str],
    lines: Sequence[Line],
    number: int,
    points: Mapping[str, tuple[float, float]],
    **changes: Any,
) -> None:
    """One line through its layers, moved sideways a little by its number; `changes` are to its look."""
    last = len(lines) - 1
    shift = (number - last / 2) * min(_SPREAD, _WIDEST / max(1, last))
    # Where there is no point the line is broken.
    values, widths = zip(*(points.get(name, (math.nan,) * 2) for name in names), strict=True)
    look = {"linewidth": 1.6, "elinewidth": 1.1, "capsize": 0, **_look(lines, number), **changes}
    axes.errorbar([index + shift for index in range(len(names))], values, widths, **look)


def _look(lines: Sequence[Line], number: int) -> dict[str, Any]:
    """A run has one colour; without its adapters it is dashed, with open marks."""
    line = lines[number]
    colour = _COLOURS[list(dict.fromkeys(other["run"] for other in lines)).index(line["run"]) % len(_COLOURS)]
    out = not line["adapters"] and any(other["adapters"] for other in lines if other["run"] == line["run"])
    return {
        "label": line["label"],
        "color": colour,
        "linestyle": (0, (4, 2)) if out else "-",
        "marker": "o",
        "markersize": 5,
        "markerfacecolor": "white" if out else colour,
    }


def _style(axes: Any, what: str) -> None:
    axes.set_ylabel(what, color=_SOFT, size=9)
    axes.tick_params(axis="x", colors=_INK, labelsize=9)
    axes.tick_params(axis="y", colors=_SOFT, labelsize=8)
    _bare(axes, "y")


def _name_layers(axes: Any, names: Sequence[str]) -> None:
    axes.set_xticks(range(len(names)), [name.removeprefix("layer-") for name in names])
    axes.set_xlim(-0.6, len(names) - 0.4)


def _legend(figure: Any, axes: Any, marks: Mapping[str, str] | None = None) -> None:
    """Names the lines below the plot, and marks that are the same for all of them."""
    from matplotlib.lines import Line2D

    handles, labels = axes.get_legend_handles_labels()
    for label, marker in (marks or {}).items():
        handles.append(Line2D([], [], color=_SOFT, marker=marker, markersize=5, linewidth=1.1))
        labels.append(label)
    look = {"frameon": False, "fontsize": 8.5, "labelcolor": _INK, "handlelength": 2.6, "borderaxespad": 0.9}
    figure.legend(handles, labels, loc="outside lower left", ncols=3, **look)
