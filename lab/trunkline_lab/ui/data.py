"""Tables for `trunkline-lab data`; all fit 100 columns."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from rich.console import Console
from rich.table import Table
from rich.text import Text

from trunkline.ui import console, print_checks

_STATES = {"verified": "green", "differs": "bold red", "missing": "yellow"}


def print_reports(reports: Sequence[Mapping[str, Any]], *, full: bool = False, to: Console = console) -> None:
    """Prints reports of `trunkline_lab.data.checks.shown`, and a last line with the sets that leak."""
    for report in reports:
        print_checks(report, full=full, to=to)
        to.print()
    line = Text(f"{len(reports)} data set{'s' if len(reports) != 1 else ''} checked")
    for severity, waived, words, style in (
        ("error", False, "cannot be read as they should be", "bold red"),
        ("leak", False, "leak", "bold red"),
        ("leak", True, "leak and are waived", "yellow"),
    ):
        wanted = (severity, waived)
        kinds = [{(item["severity"], item["waived"] is not None) for item in report["findings"]} for report in reports]
        if found := [report["name"] for report, own in zip(reports, kinds, strict=True) if wanted in own]:
            line.append(f"\n{len(found)} {words}: {', '.join(found)}", style=style)
    to.print(line, highlight=False, width=min(to.width, 100))


def print_card_list(rows: Sequence[Mapping[str, Any]]) -> None:
    """Prints the rows of `describe.list_cards_table`."""
    if not rows:
        console.print("no card of this kind; `trunkline-lab data list` shows all")
        return
    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0))
    for name in ("name", "role", "kind"):
        table.add_column(name, no_wrap=True)
    table.add_column("labels", justify="right", no_wrap=True)
    table.add_column("train / dev / test", justify="right", no_wrap=True)
    table.add_column("licence", no_wrap=True, max_width=20)
    table.add_column("here")
    for row in rows:
        table.add_row(
            row["name"],
            row["role"],
            row["kind"],
            str(row["labels"] or ""),
            _split_counts(row["counts"]),
            Text(row["licence"]),
            Text("yes", style="green") if row["here"] else Text("no", style="dim"),
        )
    console.print(table)
    here = sum(bool(row["here"]) for row in rows)
    console.print(f"{len(rows)} cards, the files of {here} are here", style="dim")


def print_card(card: Mapping[str, Any]) -> None:
    """Prints what `describe.show` returns."""
    console.print(Text(card["name"], style="bold"), Text(card["title"]))
    table = Table(box=None, show_header=False, pad_edge=False)
    table.add_column(style="dim", no_wrap=True)
    table.add_column(overflow="fold")
    for key in ("role", "family", "kind", "version", "home", "licence", "citation", "reader", "coverage", "metric"):
        if card.get(key):
            table.add_row(key, Text(str(card[key])))
    if card["options"]:
        table.add_row("options", Text(_pairs({name: value for name, value in card["options"].items() if value})))
    for split, rule in card["resplit"].items():
        table.add_row(split, Text(f"{rule['fraction']:.0%} of {rule['from']}, seed {rule['seed']}"))
    for split, files in card["files"].items():
        for ref in files:
            member = f" ({ref['member']})" if ref["member"] else ""
            state = Text("here", style="green") if ref["here"] else Text("not here", style="red")
            table.add_row(split, Text(f"{ref['path']}{member} ").append(state))
    table.add_row("counts", Text(_pairs({k: f"{v:,}" for k, v in card["counts"].items()})))
    for quirk in card["quirks"]:
        table.add_row("quirk", Text(quirk))
    for finding, reason in card["waive"].items():
        table.add_row("waived", Text(f"{finding}: {reason}"))
    if card["labels"]:
        listed = [
            label if _as_words(label) == words else f"{label} = {words}" for label, words in card["labels"].items()
        ]
        table.add_row(f"{len(listed)} labels", Text("; ".join(listed)))
    console.print(table)


def mixture_table(report: Mapping[str, Any]) -> None:
    """Prints what `trunkline_lab.data.finder.describe_mixture` counted."""
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


def print_where(rows: Sequence[Mapping[str, Any]], variable: str, folder: str | None) -> None:
    """Prints the rows of `trunkline_lab.data.where.where`.

    Args:
        rows: The data sets.
        variable: The environment variable that names the data folder.
        folder: Its value, if it has one.
    """
    states = [file["state"] for row in rows for file in row["files"]]
    for row in rows:
        console.print(Text(row["name"], style="bold"), Text(row["title"]))
        console.print(Text(f"  from {row['home']}, licence {row['licence']}"), highlight=False, soft_wrap=True)
        if not row["files"]:
            console.print("  no file to download", style="dim")
        for file in row["files"]:
            state = Text(file["state"], style=_STATES[file["state"]])
            line = Text(f"  ${variable}/{file['path']}  {file['bytes']:,} bytes  ").append(state)
            console.print(line, highlight=False, soft_wrap=True)
            console.print(Text(f"    sha256 {file['sha256']}", style="dim"), highlight=False, soft_wrap=True)
    if folder is None:
        console.print(f"{variable} is not set: put the files into a folder as above, and set {variable} to it.")
    counts = ", ".join(f"{states.count(state):,} {state}" for state in _STATES)
    console.print(f"{len(states):,} files: {counts}", style="dim", highlight=False)


def _split_counts(counts: Mapping[str, int]) -> str:
    known = [f"{counts[split]:,}" if split in counts else "-" for split in ("train", "dev", "test")]
    while len(known) > 1 and known[-1] == "-":
        known.pop()
    return " / ".join(known)


def _as_words(label: str) -> str:
    return " ".join(label.replace("_", " ").replace("-", " ").split()).lower()


def _pairs(values: Mapping[str, Any]) -> str:
    return ", ".join(f"{key} {value!r}" if value == "\t" else f"{key} {value}" for key, value in values.items())
