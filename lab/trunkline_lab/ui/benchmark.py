"""What `trunkline-lab benchmark report` writes and shows: JSON, Markdown and plots."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rich.markdown import Markdown

from trunkline.atomic import write_atomic
from trunkline.ui import console
from trunkline_lab.ui.benchmark_markdown import to_markdown
from trunkline_lab.ui.benchmark_plots import plot_report

if TYPE_CHECKING:
    from trunkline_lab.benchmark.results import Result


def write_report(results: Sequence[Result], out: Path, *, baseline: str, pairs: Sequence[tuple[str, str]] = ()) -> Path:
    """Writes `report.json`, `report.md` and `plots/*.png`; the same results give the same JSON and Markdown.

    Args:
        results: Finished and failed cells, in any order.
        out: The folder to write to.
        baseline: The encoder that the others are compared with.
        pairs: Further pairs, as for `make_report`.

    Returns:
        The path of `report.md`.

    Raises:
        TrunklineError: As for `trunkline_lab.benchmark.report.make_report`.
    """
    from trunkline_lab.benchmark.report import make_report, report_text

    report = make_report(results, baseline, pairs)
    plots = [path.relative_to(out).as_posix() for path in plot_report(report, out / "plots")]
    write_atomic(out / "report.json", report_text({**report, "plots": plots}))
    write_atomic(out / "report.md", to_markdown(report, plots))
    return out / "report.md"


def print_report(report: Mapping[str, Any]) -> None:
    """Prints what `make_report` returned, or the content of `report.json`."""
    console.print(Markdown(to_markdown(report).replace("<br>", " ")))
