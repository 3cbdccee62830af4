"""What a benchmark shows while it runs: a live table, or a line a cell where the output is no terminal."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

from rich.console import Console
from rich.live import Live
from rich.table import Table
from rich.text import Text

from trunkline.ui import console, notes
from trunkline_lab.benchmark.results import Result
from trunkline_lab.benchmark.run import Status, Summary


@contextmanager
def benchmark_progress(name: str, screen: Console = notes) -> Iterator[Callable[[Status], None]]:
    """Shows a run, as the `watch` that the run takes.

    Args:
        name: The suite's name.
        screen: Where to; stderr by default, so that results can be piped.
    """
    if not screen.is_terminal:
        yield _once_a_cell(lambda status, last: screen.print(_counted(status, last), highlight=False, soft_wrap=True))
        return
    with Live(console=screen, refresh_per_second=2, transient=True) as live:

        def failure(status: Status, last: Result) -> None:
            if last.error:
                live.console.print(_line(last), highlight=False, style="red")

        above = _once_a_cell(failure)

        def show(status: Status) -> None:
            above(status)
            live.update(status_table(name, status))

        yield show


def status_table(name: str, status: Status) -> Table:
    """The state of a run: what is done, what is running, what is left and for how long."""
    table = Table(title=name, title_justify="left", box=None, show_header=False)
    table.add_row("done", f"{status.done} of {status.total}")
    if status.failed:
        table.add_row("failed", Text(str(status.failed), style="red"))
    left = "" if status.seconds_left is None else f", about {duration(status.seconds_left)}"
    table.add_row("left", f"{status.left}{left if status.left else ''}")
    for job in status.running:
        table.add_row("running", job)
    if status.last is not None:
        table.add_row("last", _line(status.last))
    return table


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
    console.print(f"Next: trunkline benchmark report {summary.folder}", highlight=False, soft_wrap=True)


def print_cells(rows: Sequence[Mapping[str, Any]]) -> None:
    """Prints how many cells each task and method of a suite has, and how many of them are done or failed."""
    table = Table("task", "method", "cells", "done", "failed", box=None)
    for row in rows:
        table.add_row(row["task"], row["method"], str(row["cells"]), str(row["done"]), str(row["failed"] or ""))
    sums = {key: sum(row[key] for row in rows) for key in ("cells", "done", "failed")}
    table.add_row("all", "", str(sums["cells"]), str(sums["done"]), str(sums["failed"] or ""))
    console.print(table)


def _once_a_cell(show: Callable[[Status, Result], None]) -> Callable[[Status], None]:
    seen: list[str] = []

    def watch(status: Status) -> None:
        last = status.last
        if last is not None and seen[-1:] != [last.key]:
            seen[:] = [last.key]
            show(status, last)

    return watch


def _counted(status: Status, last: Result) -> Text:
    left = "" if status.seconds_left is None or not status.left else f", {duration(status.seconds_left)} left"
    return Text(f"[{status.done + status.failed} of {status.total}{left}] {_line(last)}")


def _line(result: Result) -> str:
    where = f"{result.task}, {result.encoder}, {result.method}, {result.budget}, seed {result.seed}"
    if result.error:
        return f"{where}: {result.error}"
    return f"{where}: {result.measure} {100 * result.test[result.measure]:.1f} in {result.seconds:.1f} s"
