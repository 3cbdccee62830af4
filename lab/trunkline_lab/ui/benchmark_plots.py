"""Plots of a benchmark's report as PNG files; colours that are told apart by the colour-blind, and marks besides."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from trunkline_lab.ui.benchmark_markdown import by_family, family_title, over_baseline, plot_name, points
from trunkline_lab.ui.plots import _GRID, _HEAD, _INK, _SOFT, _bare, _figure, _save, _shorten, _title

_BASE = "#5f6b7a"
_COLOURS = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9", "#000000")
"""After Okabe & Ito 2008, without its yellow, which is too light for marks on white."""
_MARKS = ("o", "s", "^", "D", "v", "P", "X", "<", ">")
_COLUMNS = 5
"""Of a legend."""
_ROW, _SLOT = 0.13, 0.125
"""Inches between the rows of a dot plot, and for each dot of a row."""
_ASIDE = 1.04
"""Factor on the costs of one encoder after the other, so that the bars of equal costs are seen."""
_APART = 0.07
"""Of the distance between two budgets: how far the points of the lines stand apart, so that bars are seen."""

Report = Mapping[str, Any]
Row = Mapping[str, Any]
Look = dict[str, dict[str, Any]]


def plot_report(report: Report, folder: Path) -> list[Path]:
    """Draws a report.

    Args:
        report: What `trunkline_lab.benchmark.report.make_report` returns.
        folder: Where to write.

    Returns:
        The files: for each method `strategies-METHOD.png` (average gains), for each family and method
        `gain-FAMILY-METHOD-LABELS.png` (task by task) and `curve-FAMILY-METHOD.png` (over label budgets), for each
        family `cost-FAMILY.png` (score against size and time); those for which there is something to draw.
    """
    looks = _looks(report["totals"]["encoders"], report["baseline"])
    drawn = [
        plot_strategies(report, method, looks, folder / f"{plot_name('strategies', method)}.png")
        for method in report["totals"]["methods"]
    ]
    for table in report["tables"]:
        place = (table["family"], table["method"], table["budgets"][0])
        drawn.append(plot_gains(report, place, looks, folder / f"{plot_name('gain', *place)}.png"))
    for curve in report["curves"]:
        name = plot_name("curve", curve["family"], curve["method"])
        if any(row["gain"] is not None for row in curve["rows"]):
            drawn.append(plot_curve(report, curve, looks, folder / f"{name}.png"))
    for family in by_family(report["methods"]):
        drawn.append(plot_costs(report, family, looks, folder / f"{plot_name('cost', family)}.png"))
    return [path for path in drawn if path is not None]


def plot_gains(report: Report, place: tuple[str, str, str], looks: Look, path: Path) -> Path | None:
    """Draws each encoder's gain on each task with its interval, and below the average; none without a gain."""
    gains = over_baseline(report, place)
    averages = {
        row["first"]: row
        for row in report["families"]
        if row["second"] == report["baseline"] and (row["family"], row["method"], row["budget"]) == place
    }
    encoders = [name for name in looks if name in averages]
    if not encoders:
        return None
    best = max(encoders, key=lambda name: (averages[name]["gain"], name))
    tasks = sorted({task for task, _ in gains}, key=lambda task: (-gains.get((task, best), {"gain": -9})["gain"], task))
    rows = [*tasks, "average"]
    slots = len(encoders)
    pitch = _ROW + _SLOT * slots
    figure, (axes,) = _canvas(_HEAD + 1.0 + pitch * len(rows), 1)
    for number, name in enumerate(encoders):
        shift = (number - (slots - 1) / 2) * _SLOT / pitch
        for index, task in enumerate(rows):
            row = averages[name] if task == "average" else gains.get((task, name))
            if row is not None:
                sure = row["p"] < report["level"] if task == "average" else row["outcome"] in ("win", "loss")
                _dot(axes, index + shift, row, looks[name], filled=sure)
    axes.set_yticks(range(len(rows)), [_shorten(name) for name in rows])
    axes.get_yticklabels()[-1].set_fontweight("bold")
    axes.set_ylim(len(rows) - 0.5, -0.5)
    for index in range(len(rows) - 1):
        last = index == len(rows) - 2
        axes.axhline(index + 0.5, color=_SOFT if last else _GRID, linewidth=0.9 if last else 0.7, zorder=0)
    _style(axes, f"gain over {report['baseline']}, absolute points (bars: 95 %)", along="x")
    _legend(figure, {name: looks[name] for name in encoders})
    family, method, budget = place
    title = f"{family_title(report, family)}: gain on each task"
    _title(figure, title, f"{method}, labels: {budget}; filled: significant, for tasks after Holm's correction")
    return _save(figure, path)


def plot_curve(report: Report, curve: Row, looks: Look, path: Path) -> Path:
    """Draws the average score over label budgets, and beside it the gain over the baseline."""
    figure, (left, right) = _canvas(4.4, 2)
    budgets = curve["budgets"]
    encoders = [name for name in looks if any(row["encoder"] == name for row in curve["rows"])]
    for axes, key, bounds in ((left, "mean", "interval"), (right, "gain", "gain_interval")):
        named = []
        for number, name in enumerate(encoders):
            rows = {row["budget"]: row for row in curve["rows"] if row["encoder"] == name and row[key] is not None}
            if not rows:
                continue
            shift = (number - (len(encoders) - 1) / 2) * _APART
            places = [budgets.index(budget) + shift for budget in rows]
            values = [100 * row[key] for row in rows.values()]
            bars = [[100 * abs(row[bounds][end] - row[key]) for row in rows.values()] for end in range(2)]
            axes.errorbar(places, values, bars, linewidth=1.6, elinewidth=1, markersize=5, **looks[name])
            named.append((name, values[-1]))
        axes.set_xticks(range(len(budgets)), budgets)
        axes.set_xlim(-0.4, len(budgets) - 0.6)
        axes.set_xlabel("labels", color=_SOFT, size=9)
    _style(left, "mean test score, %", along="y")
    _style(right, f"gain over {report['baseline']}, absolute points", along="y")
    right.axhline(0, color=_INK, linewidth=0.9, zorder=1)
    _legend(figure, {name: looks[name] for name in encoders})
    title = f"{family_title(report, curve['family'])}: fewer labels"
    _title(figure, title, f"{curve['method']}, {_tasks(curve['tasks'])}, the same ones for all labels; bars: 95 %")
    return _save(figure, path)


def plot_strategies(report: Report, method: str, looks: Look, path: Path) -> Path | None:
    """Draws the average gain of each encoder, a panel for each family; none without a gain."""
    rows = [row for row in report["families"] if row["method"] == method and row["second"] == report["baseline"]]
    families = by_family(rows)
    if not families:
        return None
    most = max(len(found) + 1.5 * len({row["budget"] for row in found}) for found in families.values())
    figure, panels = _canvas(_HEAD + 1.0 + 0.24 * most, len(families))
    for axes, (family, found) in zip(panels, families.items(), strict=True):
        height, places, names = 0.0, [], []
        for budget in dict.fromkeys(row["budget"] for row in found):
            same = {row["first"]: row for row in found if row["budget"] == budget}
            number = {len(row["tasks"]) for row in same.values()}
            tasks = f"{max(number)} tasks" if len(number) == 1 else f"{min(number)} to {max(number)} tasks"
            places.append(height)
            names.append(f"{budget}, {tasks}")
            for name in (name for name in looks if name in same):
                height += 1
                _dot(axes, height, same[name], looks[name], thick=True)
                _value(axes, height, same[name])
                places.append(height)
                names.append(_shorten(name))
            height += 1.5
        axes.set_yticks(places, names)
        for label, name in zip(axes.get_yticklabels(), names, strict=True):
            label.set_fontweight("normal" if name in looks else "bold")
        axes.set_ylim(height - 0.9, -0.7)
        axes.set_title(family_title(report, family), loc="left", color=_INK, size=10)
        _style(axes, f"mean gain over {report['baseline']}, points", along="x")
    what = "absolute points; thick bars: 95 % for these tasks; between the strokes: for tasks like these"
    _title(figure, f"Average gain of each encoder, {method}", what)
    return _save(figure, path)


def plot_costs(report: Report, family: str, looks: Look, path: Path) -> Path | None:
    """Draws scores against bytes a task and against time a text, at the label budget with the most systems."""
    tables = [table for table in report["methods"] if table["family"] == family]
    table = max(tables, key=lambda table: len(table["rows"]))
    axes_of = [
        (key, factor, what)
        for key, factor, what in (
            ("n_bytes", 1e-3, "kB that a task adds, log scale"),
            ("ms_per_text", 1.0, "ms to predict a text, log scale"),
        )
        if any(row[key] for row in table["rows"])
    ]
    if not axes_of:
        return None
    methods = list(dict.fromkeys(row["method"] for row in table["rows"]))
    marks = {method: _MARKS[number % len(_MARKS)] for number, method in enumerate(methods)}
    shown = [name for name in looks if any(row["encoder"] == name for row in table["rows"])]
    figure, panels = _canvas(4.8, len(axes_of))
    for axes, (key, factor, what) in zip(panels, axes_of, strict=True):
        known = [{**row, "place": (row[key] * factor, 100 * row["mean"])} for row in table["rows"] if row[key]]
        front = pareto([row["place"] for row in known])
        axes.step(*zip(*front, strict=True), where="post", color=_SOFT, linewidth=1.1, linestyle=(0, (4, 2)), zorder=1)
        for row in known:
            cost, score = row["place"]
            shift = _ASIDE ** (shown.index(row["encoder"]) - (len(shown) - 1) / 2)
            bars = [[100 * abs(row["interval"][end] - row["mean"])] for end in range(2)]
            look = {"color": looks[row["encoder"]]["color"], "marker": marks[row["method"]], "markersize": 6.5}
            axes.errorbar(cost * shift, score, bars, elinewidth=0.8, **look)
        _style(axes, "mean test score, %", along="y")
        _log_axis(axes, what, [row["place"][0] for row in known])
    named = [{name: {"color": looks[name]["color"], "marker": "s", "linestyle": ""} for name in shown}]
    named += [{method: {"color": _SOFT, "marker": mark, "linestyle": ""} for method, mark in marks.items()}]
    _legend(figure, *named)
    what = f"labels: {table['budgets'][0]}, {_tasks(table['tasks'])}"
    subtitle = f"{what}; bars: 95 %; dashed: nothing is better and as cheap"
    _title(figure, f"{family_title(report, family)}: score against cost", subtitle)
    return _save(figure, path)


def pareto(points: Sequence[tuple[float, float]]) -> list[tuple[float, float]]:
    """The points (cost, score) that no other point beats in both, by cost."""
    front: list[tuple[float, float]] = []
    for cost, score in sorted(points, key=lambda point: (point[0], -point[1])):
        if not front or score > front[-1][1]:
            front.append((cost, score))
    return front


def _looks(encoders: Sequence[str], baseline: str) -> Look:
    """Colour and mark of each encoder, the same in all plots; the baseline is grey and dashed."""
    others = [name for name in encoders if name != baseline]
    looks: Look = (
        {baseline: {"color": _BASE, "marker": "o", "markerfacecolor": "white", "linestyle": (0, (4, 2))}}
        if encoders
        else {}
    )
    for number, name in enumerate(others):
        # Where colours come round again, marks do not.
        colour, mark = _COLOURS[number % len(_COLOURS)], _MARKS[number % len(_MARKS)]
        looks[name] = {"color": colour, "marker": mark, "linestyle": "-"}
    return looks


def _dot(
    axes: Any, place: float, row: Row, look: Mapping[str, Any], *, filled: bool = True, thick: bool = False
) -> None:
    """A gain with its interval; with `thick` also that for other tasks, thin."""
    gain, colour = 100 * row["gain"], look["color"]
    wide = row.get("tasks_interval") if thick else None
    if wide is not None:
        ends = [100 * value for value in wide]
        axes.plot(ends, [place] * 2, color=colour, linewidth=0.9, marker="|", markersize=9)
    axes.plot([100 * value for value in row["interval"]], [place] * 2, color=colour, linewidth=3.2 if thick else 1.3)
    face = colour if filled else "white"
    axes.plot([gain], [place], marker=look["marker"], markersize=5.5, color=colour, markerfacecolor=face, zorder=3)


def _value(axes: Any, place: float, row: Row) -> None:
    """Writes a gain to the right of its bars."""
    right = 100 * max(*row["interval"], *(row["tasks_interval"] or ()))
    where = {"xytext": (6, 0), "textcoords": "offset points", "va": "center"}
    axes.annotate(points(row["gain"]), (right, place), size=8, color=_SOFT, **where)


def _tasks(names: Sequence[str]) -> str:
    return f"mean of {len(names)} task{'s' * (len(names) != 1)}"


def _canvas(height: float, columns: int) -> tuple[Any, Any]:
    """A figure of axes side by side, with room for two lines above them."""
    figure = _figure(8, height, w_pad=0.1)
    return figure, figure.subplots(1, columns, squeeze=False)[0]


def _style(axes: Any, what: str, *, along: str) -> None:
    """Names the axis of values (`x` or `y`) and draws its grid; at gains also the line at 0."""
    from matplotlib.ticker import MaxNLocator

    other = "y" if along == "x" else "x"
    (axes.set_xlabel if along == "x" else axes.set_ylabel)(what, color=_SOFT, size=9)
    axes.tick_params(axis=along, colors=_SOFT, labelsize=8.5)
    axes.tick_params(axis=other, colors=_INK, labelsize=8.5)
    (axes.xaxis if along == "x" else axes.yaxis).set_major_locator(MaxNLocator(7, steps=[1, 2, 2.5, 5, 10]))
    _bare(axes, along)
    if along == "x":
        axes.axvline(0, color=_INK, linewidth=0.9, zorder=1)


def _log_axis(axes: Any, what: str, values: Sequence[float]) -> None:
    from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter, NullLocator

    low, high = min(values), max(values)
    axes.set_xscale("log")
    axes.set_xlim(low / 1.6, high * 1.6)
    axes.xaxis.set_major_locator(LogLocator(10, subs=(1, 2, 5) if high / low < 300 else (1,), numticks=12))
    axes.xaxis.set_minor_locator(NullLocator())
    axes.xaxis.set_minor_formatter(NullFormatter())
    axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:,.6g}"))
    axes.set_xlabel(what, color=_SOFT, size=9)


def _legend(figure: Any, *looks: Mapping[str, Mapping[str, Any]]) -> None:
    """Names looks below the plot; each group starts a row of its own."""
    from matplotlib.lines import Line2D

    names = [list(group.items()) for group in looks]
    columns = min(_COLUMNS, max(map(len, names)))
    rows = [group[begin : begin + columns] for group in names for begin in range(0, len(group), columns)]
    # Matplotlib fills columns one after the other.
    cells = [row[column] if column < len(row) else ("", {"linestyle": ""}) for column in range(columns) for row in rows]
    handles = [Line2D([], [], markersize=5.5, linewidth=1.4, **look) for _, look in cells]
    form = {"frameon": False, "fontsize": 8.5, "labelcolor": _INK, "handlelength": 2.4, "borderaxespad": 0.9}
    figure.legend(handles, [name for name, _ in cells], loc="outside lower left", ncols=columns, **form)
