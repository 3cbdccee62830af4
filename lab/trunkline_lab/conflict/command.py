"""`trunkline-lab conflict`: where do the families' gradients collide?"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

import typer

from trunkline.cli.base import JsonFlag


def conflict(
    targets: Annotated[
        list[Path], typer.Argument(help="A recipe to measure before a run, or folders of runs to compare.")
    ],
    out: Annotated[Path, typer.Option(help="Folder of the report: conflict.json and plots.")],
    encoder: Annotated[str | None, typer.Option(help="With a recipe: a bundle or encoder instead of its own.")] = None,
    batches: Annotated[int, typer.Option(min=2, help="With a recipe: batches of each family.")] = 16,
    as_json: JsonFlag = False,
) -> None:
    """Compare the families' gradients on the backbone, layer by layer: where do they collide?

    Example: trunkline-lab conflict runs/naive runs/task-primary --out conflict
    """
    from trunkline.config import PrefinetuneRecipe, load_recipe
    from trunkline.ui import training_bar
    from trunkline_lab.conflict.measure import FILE, ConflictLog
    from trunkline_lab.conflict.plots import conflict_report, print_conflict
    from trunkline_lab.conflict.report import conflict_of_bundle
    from trunkline_lab.data.finder import CardFinder

    out.mkdir(parents=True, exist_ok=True)
    folders = {path.name: path for path in targets}
    if len(targets) == 1 and targets[0].suffix in (".yaml", ".yml"):
        recipe = load_recipe(targets[0], PrefinetuneRecipe)
        with training_bar(recipe.name) as report:
            measured = conflict_of_bundle(recipe, encoder, batches, report=report, finder=CardFinder())
        ConflictLog(out / FILE).write(0, measured)
        folders = {recipe.name: out}
    found = conflict_report(folders, out)
    typer.echo(json.dumps(found, indent=2)) if as_json else print_conflict(found)
