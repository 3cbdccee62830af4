"""How often the labels of a data set occur, as a plot."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from trunkline.errors import TrunklineError
from trunkline_lab.ui.plots import _INK, _SOFT, _save, _shorten, _title

MOST_LABELS = 40
SKEWED = 30.0
"""A most frequent label so many times as frequent as the least frequent one calls for a log scale."""

_BAR = "#2a7f9e"
_HEAD = 0.72
"""Inches for the title."""


def label_distribution(stats: Mapping[str, Any], path: str | Path) -> Path:
    """Draws how often each label occurs in the first split of `describe.stats`, most frequent first.

    At most 40 labels are drawn, on a log scale where the counts are far apart.

    Args:
        stats: What `trunkline_lab.data.describe.stats` returns.
        path: The PNG to write.

    Returns:
        The path.

    Raises:
        TrunklineError: The data set has no labels.
    """
    from matplotlib.ticker import LogLocator

    split, found = next(iter(stats["splits"].items()))
    labels = found.get("labels")
    if not labels:
        raise TrunklineError(
            f"{stats['name']} has no labels in {split}",
            expected="a data set of texts with labels, or of sentences with entities",
            todo="Leave the plot out",
        )
    shown = labels[:MOST_LABELS]
    figure, axes = _canvas(len(shown))
    counts = [row["count"] for row in shown]
    log = counts[0] / counts[-1] >= SKEWED
    axes.barh(range(len(shown)), counts, color=_BAR, height=0.72)
    axes.set_yticks(range(len(shown)), [_shorten(row["concept"]) for row in shown])
    axes.set_ylim(len(shown) - 0.4, -0.6)
    if log:
        axes.set_xscale("log", subs=[])
        axes.xaxis.set_major_locator(LogLocator(10, subs=(1, 2, 5)))
        axes.set_xlim(left=max(0.5, min(counts) / 2))
    for row, number in enumerate(counts):
        place = {"xytext": (5, 0), "textcoords": "offset points", "va": "center_baseline"}
        paper = {"facecolor": "white", "edgecolor": "none", "pad": 0.8}
        axes.annotate(f"{number:,}", (number, row), size=8, color=_SOFT, bbox=paper, **place)
    axes.margins(x=0.08)
    what = "entities" if "entities" in found else "examples"
    _style(axes, f"{what} in {split}" + (" (log scale)" if log else ""))
    total = found["entities"] if "entities" in found else found["examples"]
    more = f", the {len(shown)} most frequent" if len(labels) > len(shown) else ""
    _title(figure, stats["name"], f"{total:,} {what} with {len(labels)} label{'s' * (len(labels) != 1)}{more}")
    return _save(figure, Path(path))


def _canvas(bars: int) -> tuple[Any, Any]:
    """A figure whose bars have one height whatever their number, with room for two lines above them."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure
    from matplotlib.layout_engine import ConstrainedLayoutEngine

    height = _HEAD + 0.7 + 0.25 * bars
    layout = ConstrainedLayoutEngine(rect=(0.012, 0.08 / height, 0.976, (height - _HEAD - 0.08) / height))
    figure = Figure(figsize=(8, height), layout=layout, facecolor="white")
    FigureCanvasAgg(figure)
    return figure, figure.add_subplot()


def _style(axes: Any, what: str) -> None:
    from matplotlib.ticker import FuncFormatter, NullFormatter

    axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:,.0f}"))
    axes.xaxis.set_minor_formatter(NullFormatter())
    axes.set_xlabel(what, color=_SOFT, size=9)
    axes.tick_params(axis="x", colors=_SOFT, labelsize=8, length=0, which="both")
    axes.tick_params(axis="y", colors=_INK, labelsize=9, length=0)
    axes.grid(axis="x", color="#e4e7eb", linewidth=0.8)
    axes.set_axisbelow(True)
    for spine in axes.spines.values():
        spine.set_visible(False)
