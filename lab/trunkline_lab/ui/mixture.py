"""The table of a mixture."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from rich.table import Table

from trunkline.ui import console


def mixture_table(report: Mapping[str, Any]) -> None:
    """Prints what `trunkline_lab.data.mixing.describe_mixture` counted."""
    table = Table("family", "source", "read", "removed", "left", "labelled", "concepts", "share", box=None)
    for column in table.columns[2:]:
        column.justify = "right"
    for row in report["sources"]:
        labelled = (f"{row['labelled']:,}", f"{row['concepts']:,}") if "labelled" in row else ("", "")
        numbers = (f"{row['examples']:,}", f"{row['removed']:,}", f"{row['left']:,}")
        table.add_row(row["family"], row["source"], *numbers, *labelled, f"{row['share']:.1%}")
    console.print(table)
    for family, total in report["totals"].items():
        parts = ", ".join(f"{value:,} {name}" for name, value in total.items())
        console.print(f"{family}: {parts}", style="bold", highlight=False)
    if "decontaminated" in report:
        names = report["decontaminated"]["against"]
        console.print(f"without what stands in a dev or test part of {len(names)} tasks", style="dim")
