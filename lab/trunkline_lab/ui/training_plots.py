"""Plots of a run from its log: losses, what was measured on held-out data, probes, and how training went."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from trunkline.errors import TrunklineError
from trunkline.training import read_rows
from trunkline_lab.ui.plots import _HEAD, _INK, _SOFT, _bare, _figure, _save, _title

_COLOURS = ("#2a7f9e", "#d1603d", "#5b8c3e", "#8a5fb0", "#b08a1f", "#c0437a", "#3c5aa6", "#6b6b6b", "#1d9a8a")
_HALF_LIFE = 0.012
"""Of all points; in the smoothed line a point that lies so far off counts half."""
_MOST_NAMED = 16
_PANEL = (5.2, 3.1)
_TRAINING = {"rate_factor": "factor on all rates", "gradient_norm": "gradient norm before clipping"}
_TITLES = {
    "losses": "training loss of each family, as logged (faint) and smoothed",
    "dev": "held-out examples of each source, and their mean",
    "probes": "linear probes on frozen features, a few labels each, scored on dev",
    "training": "rates, gradients and speed",
}

Row = Mapping[str, Any]
Line = tuple[Sequence[float], Sequence[float]]
"""Steps and values."""


class Panel(NamedTuple):
    """A line, smoothed if it is `noisy`, and thin ones behind it by name."""

    title: str
    line: Line
    noisy: bool
    behind: Mapping[str, Line] = {}


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
    panels: dict[str, list[Panel]] = {name: [] for name in _TITLES}
    for plot, panel in _panels(read_rows(folder / "metrics.jsonl")):
        panels[plot].append(panel)
    name = folder.resolve().name
    drawn = [_draw(found, name, plot, folder / "plots" / f"{plot}.png") for plot, found in panels.items() if found]
    if not drawn:
        raise TrunklineError(
            f"{folder / 'metrics.jsonl'} has nothing to draw",
            expected="the log of a run",
            todo="Name the folder of a run, or wait for its first steps",
        )
    return drawn


def _panels(rows: Sequence[Row]) -> Iterator[tuple[str, Panel]]:
    """What is drawn, each with the plot that it belongs to."""
    names = dict.fromkeys(name for row in rows for name in row)
    lines = {name: ([r["step"] for r in rows if name in r], [r[name] for r in rows if name in r]) for name in names}
    for name, line in lines.items():
        kind, *rest = name.split("/")
        if kind == "loss":
            yield "losses", Panel(rest[0], line, noisy=True)
        elif kind == "probe":
            yield "probes", Panel("/".join(rest), line, noisy=False)
        elif kind == "dev" and len(rest) == 2:
            family, measure = rest
            own = {other.split("/")[2]: line for other, line in lines.items() if _is_source(other, family, measure)}
            yield "dev", Panel(f"{family}: {measure.replace('_', ' ')}", line, False, own if len(own) > 1 else {})
        elif name in _TRAINING:
            yield "training", Panel(_TRAINING[name], line, noisy=name == "gradient_norm")
    if speeds := list(_speeds(rows)):
        steps, values = zip(*speeds, strict=True)
        yield "training", Panel("tokens a second", (steps, values), noisy=True)


def _is_source(name: str, family: str, measure: str) -> bool:
    parts = name.split("/")
    return len(parts) == 4 and parts[:2] == ["dev", family] and parts[3] == measure


def _speeds(rows: Sequence[Row]) -> Iterator[tuple[float, float]]:
    """Steps, and tokens a second since the row before."""
    step, tokens = 0, 0.0
    for row in rows:
        if "tokens_seen" in row and row.get("seconds_per_step"):
            seconds = row["seconds_per_step"] * (row["step"] - step)
            yield row["step"], (row["tokens_seen"] - tokens) / seconds
            step, tokens = row["step"], row["tokens_seen"]


def _draw(panels: Sequence[Panel], name: str, plot: str, path: Path) -> Path:
    columns = min(2 if len(panels) in (2, 4) else 3, len(panels))
    lines = -(-len(panels) // columns)
    figure = _figure(max(_PANEL[0] * columns, 6.5), _PANEL[1] * lines + _HEAD, w_pad=0.12, h_pad=0.12)
    _title(figure, name, _TITLES[plot])
    for number, panel in enumerate(panels):
        axes = figure.add_subplot(lines, columns, number + 1)
        _panel(axes, panel, number)
        if number >= len(panels) - columns:
            axes.set_xlabel("step", color=_SOFT, size=8.5)
    return _save(figure, path)


def _panel(axes: Any, panel: Panel, number: int) -> None:
    from matplotlib.ticker import FuncFormatter, MaxNLocator

    (steps, values), colour = panel.line, _COLOURS[number % len(_COLOURS)]
    for index, (name, (own, scores)) in enumerate(panel.behind.items()):
        axes.plot(own, scores, color=_COLOURS[index % len(_COLOURS)], linewidth=1.1, alpha=0.75, label=name)
    if panel.noisy:
        axes.plot(steps, values, color=colour, linewidth=0.7, alpha=0.3)
        values = _smooth(values)
    marker = "o" if len(steps) <= 25 and not panel.noisy else None
    ink = _INK if panel.behind else colour
    axes.plot(steps, values, color=ink, linewidth=2.1, marker=marker, markersize=4, label="mean")
    if 0 < len(panel.behind) < _MOST_NAMED:
        axes.legend(frameon=False, fontsize=7, labelcolor=_SOFT, loc="center left", bbox_to_anchor=(1, 0.5))
    last = f"{values[-1]:,.0f}" if abs(values[-1]) >= 100 else f"{values[-1]:.3g}"
    axes.set_title(f"{panel.title}: {last}", loc="left", color=_INK, size=10.5)
    axes.xaxis.set_major_locator(MaxNLocator(5, integer=True))
    axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:,.0f}"))
    axes.yaxis.set_major_locator(MaxNLocator(5, steps=[1, 2, 2.5, 5, 10]))
    axes.tick_params(colors=_SOFT, labelsize=8)
    _bare(axes)


def _smooth(values: Sequence[float]) -> list[float]:
    """Means weighted by nearness on both sides, so that the line does not lag behind; ends are of what there is."""
    life = max(0.5, _HALF_LIFE * len(values))
    reach = min(len(values) - 1, round(6 * life))
    kernel = 0.5 ** (np.abs(np.arange(-reach, reach + 1)) / life)
    sums, weights = (np.convolve(part, kernel) for part in (np.asarray(values, float), np.ones(len(values))))
    return list((sums / weights)[reach : reach + len(values)])
