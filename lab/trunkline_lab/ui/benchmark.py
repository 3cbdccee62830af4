"""What a benchmark shows while it runs and when it has ended, and its report: JSON, Markdown and plots."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.markdown import Markdown
from rich.table import Table
from rich.text import Text

from trunkline.bundle.files import write_atomic
from trunkline.ui import console, notes
from trunkline_lab.benchmark.report import make_report, report_text
from trunkline_lab.benchmark.results import Result
from trunkline_lab.benchmark.run import Status, Summary
from trunkline_lab.ui.benchmark_markdown import to_markdown
from trunkline_lab.ui.benchmark_plots import plot_report


def benchmark_progress(screen: Console = notes) -> Callable[[Status], None]:
    """Shows a run, a line a cell, as the `watch` that the run takes.

    Args:
        screen: Where to; stderr by default, so that results can be piped.
    """

    def watch(status: Status) -> None:
        seen = status.done + status.failed
        left = f", {duration(status.seconds_left)} left" if seen < status.total else ""
        line = Text(f"[{seen} of {status.total}{left}] {_line(status.last)}")
        screen.print(line, highlight=False, soft_wrap=True, style="red" if status.last.error else None)

    return watch


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
    report = make_report(results, baseline, pairs)
    plots = [path.relative_to(out).as_posix() for path in plot_report(report, out / "plots")]
    write_atomic(out / "report.json", report_text({**report, "plots": plots}))
    write_atomic(out / "report.md", to_markdown(report, plots))
    return out / "report.md"


def print_report(report: Mapping[str, Any]) -> None:
    """Prints what `make_report` returned, or the content of `report.json`."""
    console.print(Markdown(to_markdown(report).replace("<br>", " ")))


def duration(seconds: float) -> str:
    """Seconds in the two units that matter: `40 s`, `3 min 20 s`, `2 h 5 min`."""
    whole = round(seconds)
    hours, minutes = divmod(whole // 60, 60)
    if hours:
        return f"{hours} h {minutes} min"
    return f"{minutes} min {whole % 60} s" if minutes else f"{whole} s"


def print_summary(summary: Summary) -> None:
    """Prints what a run has come to, and which cells failed."""
    done = len(summary.results) - len(summary.failures)
    console.print(f"{done} of {len(summary.results)} cells are done, {summary.ran} were run now", highlight=False)
    for result in summary.failures:
        console.print(_line(result), highlight=False, style="red", soft_wrap=True)
    if summary.failures:
        console.print(f"Tracebacks are in {summary.folder / 'failures.log'}; run it again to try these again.")
    console.print(f"Next: trunkline-lab benchmark report {summary.folder}", highlight=False, soft_wrap=True)


def print_cells(rows: Sequence[Mapping[str, Any]]) -> None:
    """Prints how many cells each task and method of a suite has, and how many of them are done or failed."""
    table = Table("task", "method", "cells", "done", "failed", box=None)
    for row in rows:
        table.add_row(row["task"], row["method"], str(row["cells"]), str(row["done"]), str(row["failed"] or ""))
    sums = {key: sum(row[key] for row in rows) for key in ("cells", "done", "failed")}
    table.add_row("all", "", str(sums["cells"]), str(sums["done"]), str(sums["failed"] or ""))
    console.print(table)


def _line(result: Result) -> str:
    where = f"{result.task}, {result.encoder}, {result.method}, {result.budget}, seed {result.seed}"
    if result.error:
        return f"{where}: {result.error}"
    return f"{where}: {result.measure} {100 * result.test[result.measure]:.1f} in {result.seconds:.1f} s"
