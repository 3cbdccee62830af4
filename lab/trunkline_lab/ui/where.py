"""What `trunkline-lab data where` shows."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from rich.text import Text

from trunkline.ui import console

_COLOURS = {"verified": "green", "differs": "bold red", "missing": "yellow"}


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
            state = Text(file["state"], style=_COLOURS[file["state"]])
            line = Text(f"  ${variable}/{file['path']}  {file['bytes']:,} bytes  ").append(state)
            console.print(line, highlight=False, soft_wrap=True)
            console.print(Text(f"    sha256 {file['sha256']}", style="dim"), highlight=False, soft_wrap=True)
    if folder is None:
        console.print(f"{variable} is not set: put the files into a folder as above, and set {variable} to it.")
    counts = ", ".join(f"{states.count(state):,} {state}" for state in _COLOURS)
    console.print(f"{len(states):,} files: {counts}", style="dim", highlight=False)
