"""Plots of a run from its log: losses, what was measured on held-out data, probes, and how training went."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from trunkline.errors import TrunklineError
from trunkline.training import read_rows
from trunkline_lab.ui.plots import _HEAD, _INK, _SOFT, _bare, _figure, _save, _title

_COLOURS = (
    *("#2a7f9e", "#d1603d", "#5b8c3e", "#8a5fb0", "#b08a1f"),
    *("#c0437a", "#3c5aa6", "#6b6b6b", "#1d9a8a", "#9e4a2a"),
)
_HALF_LIFE = 0.012
"""Of all points; in the smoothed line a point that lies so far off counts half."""
_LEAST_SPAN = 0.1
"""Of an axis for scores from 0 to 1, so that noise does not look like a change."""
_MOST_NAMED = 16
_PANEL = (5.2, 3.1)

Row = Mapping[str, Any]
Line = tuple[str, Sequence[float], Sequence[float]]
"""Name, steps, values."""


def plot_run(folder: str | Path) -> list[Path]:
    """Draws the log of a run, finished or not, into its folder `plots`.

    Args:
        folder: The run's folder, with `metrics.jsonl`.

    Returns:
        The PNG files: `losses`, `dev`, `probes` and `training`; those for which the log has something.

    Raises:
        TrunklineError: There is no log, or nothing in it yet.
    """
    folder = Path(folder)
    rows = read_rows(folder / "metrics.jsonl")
    name = folder.resolve().name
    drawn = (_losses(rows), _dev(rows), _probes(rows), _training(rows))
    found = [(file, title, panels) for file, title, panels in drawn if panels]
    if not found:
        raise TrunklineError(
            f"{folder / 'metrics.jsonl'} has nothing to draw",
            expected="the log of a run",
            todo="Name the folder of a run, or wait for its first steps",
        )
    return [_draw(panels, name, title, folder / "plots" / f"{file}.png") for file, title, panels in found]


def _losses(rows: Sequence[Row]) -> tuple[str, str, list[dict[str, Any]]]:
    lines = [_line(rows, name) for name in _names(rows, "loss/")]
    panels = [{"title": line[0].removeprefix("loss/"), "noisy": line, "colour": i} for i, line in enumerate(lines)]
    return "losses", "training loss of each family, as logged (faint) and smoothed", panels


def _dev(rows: Sequence[Row]) -> tuple[str, str, list[dict[str, Any]]]:
    names = _names(rows, "dev/")
    panels = []
    families = list(dict.fromkeys(name.split("/")[1] for name in names))
    for number, family in enumerate(families):
        for mean in (name for name in names if name.count("/") == 2 and name.split("/")[1] == family):
            measure = mean.rpartition("/")[2]
            own = [
                n for n in names if n.count("/") == 3 and n.startswith(f"dev/{family}/") and n.endswith(f"/{measure}")
            ]
            panels.append(
                {
                    "title": f"{family}: {measure.replace('_', ' ')}",
                    "bold": ("mean", *_line(rows, mean)[1:]),
                    "lines": [(n.split("/")[2], *_line(rows, n)[1:]) for n in own] if len(own) > 1 else [],
                    "colour": number,
                    "share": measure != "loss",
                }
            )
    panels.sort(key=lambda panel: not panel["share"])
    return "dev", "held-out examples of each source, and their mean", panels


def _probes(rows: Sequence[Row]) -> tuple[str, str, list[dict[str, Any]]]:
    lines = [_line(rows, name) for name in _names(rows, "probe/")]
    panels = [
        {"title": line[0].removeprefix("probe/"), "bold": ("", *line[1:]), "colour": i, "share": True}
        for i, line in enumerate(lines)
    ]
    return "probes", "linear probes on frozen features, a few labels each, scored on dev", panels


def _training(rows: Sequence[Row]) -> tuple[str, str, list[dict[str, Any]]]:
    logged = [row for row in rows if "rate_factor" in row]
    panels: list[dict[str, Any]] = []
    if logged:
        panels.append({"title": "factor on all rates", "bold": ("", *_line(logged, "rate_factor")[1:]), "colour": 6})
        panels.append({"title": "gradient norm before clipping", "noisy": _line(logged, "gradient_norm"), "colour": 3})
    speeds = _speeds(logged)
    if speeds:
        steps, values = zip(*speeds, strict=True)
        panels.append({"title": "tokens a second", "noisy": ("", steps, values), "colour": 8})
    return "training", "rates, gradients and speed", panels


def _speeds(logged: Sequence[Row]) -> list[tuple[float, float]]:
    """Tokens a second since the row before, of all rows that say both."""
    found, step, tokens = [], 0, 0.0
    for row in logged:
        if "tokens_seen" in row and row.get("seconds_per_step"):
            seconds = row["seconds_per_step"] * (row["step"] - step)
            found.append((row["step"], (row["tokens_seen"] - tokens) / seconds))
            step, tokens = row["step"], row["tokens_seen"]
    return found


def _names(rows: Sequence[Row], prefix: str) -> list[str]:
    return list(dict.fromkeys(name for row in rows for name in row if name.startswith(prefix)))


def _line(rows: Sequence[Row], name: str) -> Line:
    points = [(row["step"], row[name]) for row in rows if name in row]
    return name, [step for step, _ in points], [value for _, value in points]


def _draw(panels: Sequence[Mapping[str, Any]], name: str, title: str, path: Path) -> Path:
    columns = min(2 if len(panels) in (2, 4) else 3, len(panels))
    lines = -(-len(panels) // columns)
    figure = _figure(max(_PANEL[0] * columns, 6.5), _PANEL[1] * lines + _HEAD, w_pad=0.12, h_pad=0.12)
    _title(figure, name, title)
    for number, panel in enumerate(panels):
        _panel(figure.add_subplot(lines, columns, number + 1), panel, last=number >= len(panels) - columns)
    return _save(figure, path)


def _panel(axes: Any, panel: Mapping[str, Any], *, last: bool) -> None:
    colour = _COLOURS[panel["colour"] % len(_COLOURS)]
    title = panel["title"]
    for number, (name, steps, values) in enumerate(panel.get("lines", ())):
        shade = _COLOURS[(panel["colour"] + 1 + number) % len(_COLOURS)]
        look = {"color": shade, "linewidth": 1.1, "alpha": 0.75, "marker": _marker(steps), "markersize": 3}
        axes.plot(steps, values, label=name, **look)
    if "noisy" in panel:
        _, steps, values = panel["noisy"]
        axes.plot(steps, values, color=colour, linewidth=0.7, alpha=0.3)
        axes.plot(steps, _smooth(values), color=colour, linewidth=2)
        _set_limits(axes, values)
        title = f"{title}: {_short(_smooth(values)[-1])}"
    if "bold" in panel:
        name, steps, values = panel["bold"]
        ink = _INK if panel.get("lines") else colour
        axes.plot(steps, values, color=ink, linewidth=2.2, marker=_marker(steps), markersize=4, label=name)
        title = f"{title}: {_short(values[-1])}"
    if 0 < len(panel.get("lines", ())) < _MOST_NAMED:
        axes.legend(frameon=False, fontsize=7, labelcolor=_SOFT, loc="center left", bbox_to_anchor=(1, 0.5))
    axes.set_title(title, loc="left", color=_INK, size=10.5)
    _style(axes, last=last)
    if panel.get("share"):
        low, high = axes.get_ylim()
        more = max(0.0, _LEAST_SPAN - (high - low)) / 2
        axes.set_ylim(max(0.0, low - more), min(1.0, high + more))


def _marker(steps: Sequence[float]) -> str | None:
    return "o" if len(steps) <= 25 else None


def _smooth(values: Sequence[float]) -> list[float]:
    """Means weighted by nearness on both sides, so that the line does not lag behind; ends are of what there is."""
    life = max(0.5, _HALF_LIFE * len(values))
    reach = min(len(values) - 1, round(6 * life))
    kernel = 0.5 ** (np.abs(np.arange(-reach, reach + 1)) / life)
    sums, weights = (np.convolve(part, kernel) for part in (np.asarray(values, float), np.ones(len(values))))
    return list((sums / weights)[reach : reach + len(values)])


def _set_limits(axes: Any, values: Sequence[float]) -> None:
    """Leaves the few wildest values out of sight, so that the course is seen."""
    ordered = sorted(values)
    low, high = ordered[0], ordered[min(len(ordered) - 1, round(0.99 * len(ordered)))]
    if high > low:
        axes.set_ylim(low - 0.06 * (high - low), high + 0.06 * (high - low))


def _style(axes: Any, *, last: bool) -> None:
    from matplotlib.ticker import FuncFormatter, MaxNLocator

    axes.xaxis.set_major_locator(MaxNLocator(5, integer=True))
    axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:,.0f}"))
    axes.yaxis.set_major_locator(MaxNLocator(5, steps=[1, 2, 2.5, 5, 10]))
    axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:,.6g}"))
    axes.tick_params(colors=_SOFT, labelsize=8)
    _bare(axes)
    if last:
        axes.set_xlabel("step", color=_SOFT, size=8.5)


def _short(value: float) -> str:
    return f"{value:,.0f}" if abs(value) >= 100 else f"{value:.3g}"
