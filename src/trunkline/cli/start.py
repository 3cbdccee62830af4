"""The commands with which a user begins: quickstart, encoders."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from trunkline.cli.base import JsonFlag, app, print_json


@app.command()
def encoders(as_json: JsonFlag = False) -> None:
    """List the encoders that are usable here without a network.

    Example: trunkline encoders
    """
    from trunkline.encoder.resolve import usable_here
    from trunkline.ui import encoder_table

    rows = [{"name": item.name, "origin": item.origin, "folder": str(item.folder)} for item in usable_here()]
    print_json(rows) if as_json else encoder_table(rows)


@app.command()
def quickstart(
    out: Annotated[Path, typer.Option(help="Folder of the bundles and of the run.")] = Path("runs/quickstart"),
) -> None:
    """Learn four tasks of the shipped sample, pre-finetune on it, learn them again, and show predictions.

    Example: trunkline quickstart
    """
    from trunkline.quickstart import quickstart as run

    run(out)
