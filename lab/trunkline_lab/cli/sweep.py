"""The command that compares encoders on the same few labels."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

import typer

from trunkline.cli.base import JsonFlag


def sweep(
    recipe: Annotated[Path, typer.Argument(help="A sweep recipe, see lab/recipes/.")],
    out: Annotated[Path | None, typer.Option(help="Folder of the results; runs/NAME by default.")] = None,
    as_json: JsonFlag = False,
) -> None:
    """Adapt several tasks from several encoders on the same few labels and compare them.

    Example: trunkline-lab sweep lab/recipes/real-few-labels.yaml
    """
    from trunkline.config import SweepRecipe, load_recipe
    from trunkline.ui import comparison_table, say
    from trunkline_lab.sweep import run_sweep, summarise

    parsed = load_recipe(recipe, SweepRecipe)
    results = run_sweep(parsed, out or Path("runs") / parsed.name, say=say)
    summary = summarise(results, parsed.baseline)
    typer.echo(json.dumps(summary, indent=2)) if as_json else comparison_table(summary)
