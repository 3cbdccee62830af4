"""The picture of the README: what eight features cost on one backbone, and as eight models.

`python -m trunkline_lab.readme_picture` draws it from the committed results of the deployment benchmark.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[2]
RESULTS = ROOT / "lab" / "results" / "deployment" / "results.json"
PICTURE = ROOT / "docs" / "images" / "eight-features.svg"

INK = "#6e7781"
"""Of all words: a grey that is read on white (4.5 to 1) and on the dark ground of code hosts (4.2 to 1)."""
OURS, THEIRS = "#2da44e", "#8c959f"


def figures(results: dict[str, Any]) -> dict[str, tuple[float, float]]:
    """Measure -> what one backbone and what eight models take.

    Milliseconds are those of eight heads and of eight merged int8 models, run one after the other on a text of 32
    tokens. Megabytes are resident memory over the bare runtime, of the same eight tasks.

    Args:
        results: The content of `RESULTS`.
    """
    times = results["parts"]["eight"]["summary"]
    cost = next(r for r in results["parts"]["costs"]["records"] if r["name"] == "int8, fork 4, heads")
    memory = (cost["memory"]["resident"], cost["separate"]["memory"]["resident"])
    return {
        "megabytes of memory": (memory[0] / 1e6, memory[1] / 1e6),
        "milliseconds a text": (times["ours, heads"]["median"], times["eight merged models of ours"]["median"]),
    }


def draw(measures: dict[str, tuple[float, float]], path: Path) -> None:
    """Draws two bars a measure as SVG, its words as text; the same measures give the same bytes."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    style: Any = {"svg.fonttype": "none", "svg.hashsalt": "trunkline", "font.family": "sans-serif", "font.size": 13}
    with pyplot.rc_context(style):
        figure, axes = pyplot.subplots(1, len(measures), figsize=(8.4, 2.1), layout="constrained")
        for axis, (name, values) in zip(axes, measures.items(), strict=True):
            axis.barh([1, 0], values, color=[OURS, THEIRS], height=0.62)
            for place, value in zip((1, 0), values, strict=True):
                number = f"{value:.0f}" if value >= 10 else f"{value:.1f}"
                axis.text(value, place, f" {number}", va="center", color=INK, fontweight="bold")
            axis.set_yticks([1, 0], ["one backbone", "eight models"] if axis is axes[0] else ["", ""], color=INK)
            axis.set_title(name, color=INK, loc="left", fontsize=13)
            axis.set_xlim(0, max(values) * 1.15)
            axis.set_xticks([])
            axis.tick_params(length=0)
            for spine in axis.spines.values():
                spine.set_visible(False)
        path.parent.mkdir(parents=True, exist_ok=True)
        figure.savefig(path, transparent=True, metadata={"Date": None, "Creator": None})
        pyplot.close(figure)


def main() -> None:
    """Draws the committed picture anew."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--results", type=Path, default=RESULTS)
    parser.add_argument("--out", type=Path, default=PICTURE)
    given = parser.parse_args()
    draw(figures(json.loads(given.results.read_text("utf-8"))), given.out)


if __name__ == "__main__":
    main()
