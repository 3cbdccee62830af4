"""What `weak-label` shows."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from rich.table import Table

from trunkline.ui import console


def print_labelled(report: Mapping[str, Any]) -> None:
    """Prints the report of `trunkline.label.weak.command.weak_label`."""
    table = Table("concept", "spans", box=None)
    table.columns[1].justify = "right"
    for concept, count in report["top"]:
        table.add_row(concept, f"{count:,}")
    console.print(table)
    console.print(
        f"{report['labelled']:,} of {report['sentences']:,} sentences have labels: {report['spans']:,} spans of "
        f"{report['concepts']:,} concepts, in {report['seconds']:.1f} s",
        highlight=False,
    )
    for what in ("invalid", "skipped"):
        if report[what]:
            parts = ", ".join(f"{kind} {count:,}" for kind, count in report[what].items())
            console.print(f"{what}: {parts}", style="yellow", highlight=False)
    console.print(f"{report['file']}, to be used in a recipe as {report['card']}", highlight=False)
