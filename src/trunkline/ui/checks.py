"""What the checks of data show: one table a data set, leaks in red, accepted ones in yellow."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from rich.console import Console
from rich.padding import Padding
from rich.table import Table
from rich.text import Text

from trunkline.ui import console

_WIDEST = 100
_STYLES = {"leak": "bold red", "error": "bold red", "warning": "", "info": "dim"}


def print_checks(reports: Sequence[Mapping[str, Any]], *, full: bool = False, to: Console = console) -> None:
    """Prints reports of `trunkline.data.checks.check`: counts, findings, and a last line with the sets that leak.

    `full` shows notes (severity `info`) and some texts of each finding, too. Reports may have `role`, `quirks`, what
    was `published` or is expected of the counts.
    """
    width = min(to.width, _WIDEST)
    for report in reports:
        to.print(_title(report), highlight=False, width=width)
        for quirk in report.get("quirks", ()):
            to.print(Padding(Text(quirk, style="italic dim"), (0, 0, 0, 2)), width=width)
        shown = [item for item in report["findings"] if full or item["severity"] != "info"]
        if shown:
            to.print(_table(shown, full), width=width)
        if hidden := len(report["findings"]) - len(shown):
            to.print(f"  and {hidden} note{'s' if hidden != 1 else ''}", style="dim", highlight=False)
        to.print()
    to.print(_summary(reports), highlight=False, width=width)


def _title(report: Mapping[str, Any]) -> Text:
    line = Text(report["name"], style="bold")
    known = [report[key] for key in ("role", "family") if key in report]
    line.append(f"  {', '.join(known)}\n", style="not bold dim")
    loaded = {}
    for number, (split, count) in enumerate(report["counts"].items()):
        loaded[split], expected = (count["loaded"], count["expected"]) if isinstance(count, Mapping) else (count, None)
        line.append(f"{', ' if number else '  '}{split} {loaded[split]}", style="not bold")
        if expected is not None:
            agrees = expected == loaded[split]
            line.append(" as expected" if agrees else f" of {expected}", style="not bold dim")
        if kind := report.get("kinds", {}).get(split):
            line.append(f" ({kind})", style="not bold dim")
    published = {split: n for split, n in report.get("published", {}).items() if n != loaded[split]}
    for split, count in published.items():
        line.append(f"\n  published as {split} {count}, of which the card sets parts aside", style="not bold dim")
    return line


def _table(findings: Sequence[Mapping[str, Any]], samples: bool) -> Table:
    table = Table.grid(padding=(0, 2, 0, 0))
    for column in ("finding", "split"):
        table.add_column(column, no_wrap=True)
    table.add_column("count", justify="right", no_wrap=True)
    table.add_column("what", ratio=1, overflow="fold")
    for finding in findings:
        waived = finding["waived"] is not None
        style = "yellow" if waived else _STYLES[finding["severity"]]
        share = "" if finding["share"] is None else f" {100 * finding['share']:.1f} %"
        what = Text(finding["message"], style=style)
        if waived:
            what.append(f"\nwaived: {finding['waived']}", style="yellow")
        for sample in finding["samples"] if samples else ():
            what.append(f"\n{sample}", style="dim")
        name = Text(f"  {finding['check']}", style=style)
        table.add_row(name, Text(finding["split"], style="dim"), Text(f"{finding['count']}{share}", style=style), what)
    return table


def _summary(reports: Sequence[Mapping[str, Any]]) -> Text:
    def sets(severities: Sequence[str], waived: bool) -> list[str]:
        return [
            report["name"]
            for report in reports
            if any(f["severity"] in severities and (f["waived"] is not None) == waived for f in report["findings"])
        ]

    line = Text(f"{len(reports)} data set{'s' if len(reports) != 1 else ''} checked")
    for severities, waived, words, style in (
        (("error",), False, "cannot be read as they should be", "bold red"),
        (("leak",), False, "leak", "bold red"),
        (("leak",), True, "leak and are waived", "yellow"),
    ):
        if found := sets(severities, waived):
            line.append(f"\n{len(found)} {words}: {', '.join(found)}", style=style)
    return line
