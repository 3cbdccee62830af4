"""The figure: what eight tasks on one text take, and what twenty tasks need on disk and in memory."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from trunkline_lab.ui.plots import _INK, _SOFT, _save

_OURS, _PEER = "#2a7f9e", "#c3cbd3"


def plot(content: Mapping[str, Any], path: Path) -> Path:
    """Draws the sections that there are as bars, ours in colour."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    panels = _panels(content["parts"])
    heights = [len(rows) + 1.6 for _, rows in panels]
    figure = Figure(figsize=(8, 0.3 * sum(heights) + 0.4), layout="constrained", facecolor="white")
    FigureCanvasAgg(figure)
    axes = figure.subplots(len(panels), 1, gridspec_kw={"height_ratios": heights}, squeeze=False)[:, 0]
    for axis, (title, rows) in zip(axes, panels, strict=True):
        names, values = list(rows), list(rows.values())
        colours = [_OURS if _is_ours(name) else _PEER for name in names]
        axis.barh(range(len(names)), values, color=colours, height=0.72)
        axis.set_yticks(range(len(names)), names, color=_INK, size=9)
        axis.set_ylim(len(names) - 0.4, -0.6)
        axis.set_xlim(0, 1.12 * max(values))
        axis.set_xticks([])
        axis.tick_params(length=0)
        axis.set_title(title, loc="left", color=_INK, size=10.5, weight="bold")
        for place, value in enumerate(values):
            where: Any = {"xytext": (4, 0), "textcoords": "offset points", "va": "center_baseline"}
            shown = f"{value:.3g}" if value < 1000 else f"{value:,.0f}"
            axis.annotate(shown, (value, place), size=8.5, color=_SOFT, **where)
        for spine in axis.spines.values():
            spine.set_visible(False)
    return _save(figure, path)


def _panels(parts: Mapping[str, Any]) -> list[tuple[str, dict[str, float]]]:
    panels = []
    titles = {"one": "One task with its adapter", "eight": "Eight tasks on one text", "mixed": "Eight rows"}
    for name, title in titles.items():
        if name in parts:
            rows = {key: row["median"] for key, row in parts[name]["summary"].items()}
            shown = {key: value for key, value in rows.items() if not key.startswith("switch")}
            panels.append((f"{title}, ms", dict(sorted(shown.items(), key=lambda item: item[1]))))
    if "twenty" in parts:
        rows = parts["twenty"]["rows"]
        panels.append(("Twenty tasks, MB on disk", {name: row["disk"] for name, row in rows.items()}))
        memory = {name: row["resident"]["median"] for name, row in rows.items()}
        panels.append(("Twenty tasks, MB in memory over the bare runtime", memory))
    return panels


def _is_ours(name: str) -> bool:
    return not any(peer in name for peer in ("PyTorch", "PEFT", "quantize_dynamic"))
