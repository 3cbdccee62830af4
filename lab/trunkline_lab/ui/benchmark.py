"""What `trunkline benchmark report` writes and shows: JSON, Markdown, plots, and tables in the terminal."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rich.markup import escape
from rich.table import Table
from rich.text import Text

from trunkline.atomic import write_atomic
from trunkline.ui import console
from trunkline_lab.ui.benchmark_markdown import (
    MARK,
    across,
    by_family,
    called,
    contrast,
    family_title,
    outcomes,
    over_baseline,
    percent,
    points,
    span,
    summary,
    to_markdown,
)
from trunkline_lab.ui.benchmark_plots import plot_report

if TYPE_CHECKING:
    from trunkline_lab.benchmark.results import Result

_LEAST, _MOST = 80, 120
"""Columns of the terminal that tables use."""
_WIDE = 100
"""From here on there is room for all columns."""
_CELL = 17
"""Columns of an encoder."""

Report = Mapping[str, Any]


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


def print_report(report: Report, *, detail: bool = False) -> None:
    """Prints averages, pairs and what is missing; with `detail` also the gain on each task.

    Args:
        report: What `make_report` returned, or the content of `report.json`.
        detail: Whether to print a table of tasks for each family, method and label budget.
    """
    width = min(max(console.width, _LEAST), _MOST)
    for line in summary(report):
        console.print(Text(line), width=width)
    for family, tables in by_family(report["tables"]).items():
        _print(_averages(report, tables, width), f"{family_title(report, family)}: averages in percent", width)
    for family, rows in by_family(report["families"]).items():
        chosen = [row for row in rows if row["method"] is None or row["second"] != report["baseline"]]
        if chosen:
            _print([_pairs(chosen, width)], f"{family_title(report, family)}: pairs, in points", width)
    if detail:
        for table in report["tables"]:
            title = f"{family_title(report, table['family'])}, {table['method']}, {table['budgets'][0]}"
            _print(_tasks(report, table, width), title, width)
        note = f"{MARK} significant after Holm's correction over the tasks of a family"
        console.print(Text(note, style="dim"), width=width)
    for row in report["failed"]:
        where = ", ".join(str(row[name]) for name in ("task", "budget", "method", "encoder"))
        console.print(Text(f"failed: {where}, seed {row['seed']}: {called(row['error'])}", style="red"), width=width)
    for problem in report["problems"]:
        console.print(Text(problem, style="yellow"), width=width)


def _print(tables: Sequence[Table], title: str, width: int) -> None:
    console.print()
    console.print(Text(title, style="bold"), width=width)
    for table in tables:
        console.print(table, width=width, highlight=False)


def _chunks(encoders: Sequence[str], left: int, width: int) -> Iterator[Sequence[str]]:
    """As many encoders at a time as fit beside columns that take `left`."""
    size = max(1, (width - left) // (_CELL + 2))
    for begin in range(0, len(encoders), size):
        yield encoders[begin : begin + size]


def _averages(report: Report, tables: Sequence[Mapping[str, Any]], width: int) -> list[Table]:
    encoders = [name for name in report["totals"]["encoders"] if any(_row(table, name) for table in tables)]
    found = []
    for part in _chunks(encoders, 32, width):
        table = Table("method", "labels", "tasks", *map(escape, part), box=None)
        for averages in tables:
            cells = [_score(_row(averages, name)) for name in part]
            table.add_row(averages["method"], averages["budgets"][0], str(len(averages["tasks"])), *cells)
        found.append(table)
    return found


def _row(averages: Mapping[str, Any], encoder: str) -> Mapping[str, Any] | None:
    return next((row for row in averages["rows"] if row["encoder"] == encoder), None)


def _score(row: Mapping[str, Any] | None) -> Text:
    """A mean; below it the gain with its interval, in colour where the interval excludes 0."""
    if row is None:
        return Text("-", style="dim")
    text = Text(percent(row["mean"]))
    if row["gain"] is None:
        return text.append(f"\n{span(row['interval'])}", style="dim")
    low, high = row["gain_interval"]
    style = "green" if low > 0 else "red" if high < 0 else ""
    text.append(f" {points(row['gain'])}", style=style)
    return text.append(f"\n{span(row['gain_interval'], points)}", style="dim")


def _pairs(rows: Sequence[Mapping[str, Any]], width: int) -> Table:
    """Pairs over tasks; where there is room also the interval for other tasks."""
    wide = width >= _WIDE
    table = Table(box=None)
    table.add_column("pair", overflow="fold")
    for name in ("gain", "95 %", *(("tasks like these", "tasks") if wide else ()), "win/tie/loss", "sign p"):
        table.add_column(name, justify="right", no_wrap=True)
    place = None
    for row in rows:
        here = (row["method"] or "across methods", row["budget"])
        if here != place:
            table.add_row(Text(", ".join(here), style="dim"))
            place = here
        low, high = row["interval"]
        style = "green" if low > 0 else "red" if high < 0 else ""
        others = "-" if row["tasks_interval"] is None else span(row["tasks_interval"], points)
        more = (others, str(len(row["tasks"]))) if wide else ()
        cells = (Text(points(row["gain"]), style=style), span(row["interval"], points), *more)
        table.add_row(Text(contrast(row)), *cells, outcomes(row), f"{row['sign_p']:.3f}")
    return table


def _tasks(report: Report, averages: Mapping[str, Any], width: int) -> list[Table]:
    place = (averages["family"], averages["method"], averages["budgets"][0])
    scores, gains = across(report["scores"], place), over_baseline(report, place)
    encoders = [name for name in report["totals"]["encoders"] if any(key[1] == name for key in scores)]
    found = []
    for part in _chunks(encoders, 26, width):
        table = Table("task", *map(escape, part), box=None)
        for task in dict.fromkeys(task for task, _ in scores):
            table.add_row(Text(task, overflow="fold"), *(_gain(scores, gains, (task, name)) for name in part))
        found.append(table)
    return found


def _gain(scores: Mapping[Any, Any], gains: Mapping[Any, Any], key: tuple[str, str]) -> Text:
    if key not in scores:
        return Text("-", style="dim")
    text, row = Text(percent(scores[key]["mean"])), gains.get(key)
    if row is None:
        return text
    sure = row["outcome"] in ("win", "loss")
    style = {"win": "green", "loss": "red"}.get(row["outcome"], "dim")
    return text.append(f" {points(row['gain'])}{MARK if sure else ''}", style=style)
