"""Plots as PNG files; matplotlib is imported when one is drawn, and no window is needed."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

from trunkline.bundle.files import write_atomic

_INK, _SOFT, _GRID = "#1f2933", "#7b8794", "#e4e7eb"
_HEAD = 0.8
"""Inches for the title."""
_LONGEST_NAME = 48


def _figure(width: float, height: float, **pads: Any) -> Any:
    """A figure of so many inches with room for two lines above its axes."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure
    from matplotlib.layout_engine import ConstrainedLayoutEngine

    rect = (0.1 / width, 0.08 / height, 1 - 0.2 / width, (height - _HEAD - 0.08) / height)
    figure = Figure(figsize=(width, height), layout=ConstrainedLayoutEngine(rect=rect, **pads), facecolor="white")
    FigureCanvasAgg(figure)
    return figure


def _bare(axes: Any, grid: str = "both") -> None:
    """Axes without frame and ticks, with a faint grid below what is drawn."""
    axes.tick_params(length=0, which="both")
    axes.grid(axis=grid, color=_GRID, linewidth=0.8)
    axes.set_axisbelow(True)
    for spine in axes.spines.values():
        spine.set_visible(False)


def _title(figure: Any, title: str, below: str) -> None:
    height, left = figure.get_figheight(), 0.16 / figure.get_figwidth()
    figure.text(left, 1 - 0.15 / height, title, va="top", color=_INK, size=14, weight="bold")
    figure.text(left, 1 - 0.44 / height, below, va="top", color=_SOFT, size=9.5)


def _save(figure: Any, path: Path) -> Path:
    content = io.BytesIO()
    figure.savefig(content, format="png", dpi=150)
    write_atomic(path, content.getvalue())
    return path


def _shorten(name: str) -> str:
    return name if len(name) <= _LONGEST_NAME else name[: _LONGEST_NAME - 1] + "…"
