"""What `label weak` and `label pairs` show."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from rich.table import Table
from rich.text import Text

from trunkline.ui import console


def print_labelled(report: Mapping[str, Any]) -> None:
    """Prints what `trunkline.label.label_text` returns."""
    table = Table("concept", "spans", box=None)
    table.columns[1].justify = "right"
    for concept, count in report["top"]:
        table.add_row(Text(concept), f"{count:,}")
    console.print(table)
    console.print(
        f"{report['labelled']:,} of {report['sentences']:,} sentences have labels: {report['spans']:,} spans of "
        f"{report['concepts']:,} concepts, in {report['seconds']:.1f} s",
        highlight=False,
    )
    for what in ("invalid", "skipped"):
        if report[what]:
            parts = ", ".join(f"{kind} {count:,}" for kind, count in report[what].items())
            console.print(Text(f"{what}: {parts}", style="yellow"))
    console.print(Text(f"{report['out']} with its source card {report['card']}"))


def print_mined(report: Mapping[str, Any]) -> None:
    """Prints what `trunkline.label.mine_pairs` returns."""
    table = Table(box=None, show_header=False, pad_edge=False)
    table.add_column(overflow="fold")
    table.add_column(justify="right")
    table.add_row("candidates", f"{report['candidates']:,}")
    for reason, number in report["dropped"].items():
        table.add_row(Text(f"  {reason}", style="dim"), f"-{number:,}")
    table.add_row(Text("pairs", style="bold"), f"{report['kept']:,}")
    console.print(table)
    ranks = report["consistency"]
    if ranks:
        listed = ", ".join(f"{band}: {number:,}" for band, number in ranks["ranks"].items() if number)
        kept = f"ranks of the partners among {ranks['pool']:,} texts: {listed}; kept up to {ranks['top_k']}"
        console.print(kept, highlight=False)
    console.print(Text(f"{report['out']} with its source card {report['card']}, {report['seconds']:.1f} s"))
