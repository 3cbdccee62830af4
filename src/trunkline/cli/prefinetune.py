"""The commands of pre-finetuning: run a recipe, merge bundles. They need the extra [train]."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

import typer

from trunkline.cli.base import app

prefinetune_app = typer.Typer(
    no_args_is_help=True,
    rich_markup_mode="markdown",
    help="Pre-finetune an encoder on your own text; merge encoders.",
)
app.add_typer(prefinetune_app, name="prefinetune")


@prefinetune_app.command("run")
def run(
    recipe: Annotated[Path, typer.Argument(help="A recipe in YAML; one with the family text trains a masked LM.")],
    out: Annotated[Path | None, typer.Option(help="The run's folder; runs/NAME by default.")] = None,
    seed: Annotated[
        int | None, typer.Option(help="Instead of the recipe's; the default folder is runs/NAME-SEED.")
    ] = None,
) -> None:
    """Pre-finetune an encoder by a recipe; run it again to go on after an interruption.

    Example: trunkline prefinetune run recipe.yaml --out runs/mine
    """
    from trunkline.extras import needs

    with needs("train", "pre-finetuning"):
        from trunkline.prefinetune import prefinetune
        from trunkline.training.distributed import is_main_process
    from trunkline.config import PrefinetuneRecipe, load_recipe
    from trunkline.ui import training_bar

    parsed = load_recipe(recipe, PrefinetuneRecipe, {} if seed is None else {"seed": seed})
    if seed is not None:
        parsed = parsed.model_copy(update={"name": f"{parsed.name}-{seed}"})
    with training_bar(parsed.name) as report:
        bundle = prefinetune(parsed, out or Path("runs") / parsed.name, report)
    if is_main_process():
        typer.echo(f"{bundle}")


@prefinetune_app.command("merge")
def merge(
    bundles: Annotated[list[Path], typer.Argument(help="Bundles that started from the same encoder; one is scaled.")],
    out: Annotated[Path, typer.Option(help="Folder of the merged bundle.")],
    base: Annotated[str, typer.Option(help="The encoder that they started from.")] = "default",
    method: Annotated[Literal["average", "ties"], typer.Option(help="Average the task vectors, or TIES.")] = "average",
    scale: Annotated[float, typer.Option(help="Factor on the merged task vector.")] = 1.0,
    density: Annotated[
        float, typer.Option(help="Share of each task vector that ties keeps, above 0 and up to 1.")
    ] = 0.2,
) -> None:
    """Merge the encoders of bundles that were pre-finetuned one family each, or go back a part of one's way (WiSE-FT).

    Example: trunkline prefinetune merge runs/ner/bundle runs/classification/bundle --out runs/merged
    """
    from trunkline.extras import needs

    with needs("train", "merging"):
        from trunkline.prefinetune.merge import merge_bundles
    typer.echo(f"{merge_bundles(bundles, out, base=base, method=method, scale=scale, density=density)}")
