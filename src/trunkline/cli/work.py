"""Commands of the main job: encoders, prefinetune, adapt, predict, sweep, quickstart."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from trunkline.cli.base import JsonFlag, app

if TYPE_CHECKING:
    pass


@app.command()
def encoders(as_json: JsonFlag = False) -> None:
    """List the encoders that are usable here without a network.

    Example: trunkline encoders
    """
    from trunkline.encoder.resolve import usable_here
    from trunkline.ui import encoder_table

    found = usable_here()
    rows = [{"name": item.name, "origin": item.origin, "folder": str(item.folder)} for item in found]
    typer.echo(json.dumps(rows, indent=2)) if as_json else encoder_table(rows)


@app.command()
def prefinetune(
    recipe: Annotated[Path, typer.Argument(help="A recipe, see recipes/.")],
    out: Annotated[Path | None, typer.Option(help="The run's folder; runs/NAME by default.")] = None,
    seed: Annotated[
        int | None, typer.Option(help="Instead of the recipe's; the default folder is runs/NAME-SEED.")
    ] = None,
) -> None:
    """Pre-finetune an encoder by a recipe; run it again to go on after an interruption.

    Example: trunkline prefinetune recipes/real-cpu.yaml --out runs/real-cpu
    """
    from trunkline.config import PrefinetuneRecipe, load_recipe
    from trunkline.prefinetune import prefinetune as run
    from trunkline.ui import training_bar

    parsed = load_recipe(recipe, PrefinetuneRecipe, {} if seed is None else {"seed": seed})
    if seed is not None:
        parsed = parsed.model_copy(update={"name": f"{parsed.name}-{seed}"})
    from trunkline.training.distributed import is_main_process
    from trunkline.ui.training_plots import plot_run

    folder = out or Path("runs") / parsed.name
    with training_bar(parsed.name) as report:
        bundle = run(parsed, folder, report)
    if is_main_process():
        plot_run(folder)
        typer.echo(f"{bundle}")


@app.command()
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

    Example: trunkline merge runs/individual-ner/bundle runs/individual-classification/bundle --out runs/merged
    """
    from trunkline.prefinetune.merge import merge_bundles

    typer.echo(f"{merge_bundles(bundles, out, base=base, method=method, scale=scale, density=density)}")


@app.command()
def quickstart(
    out: Annotated[Path, typer.Option(help="Folder of the run.")] = Path("runs/quickstart"),
) -> None:
    """Pre-finetune on the shipped sample, adapt four tasks with and without it, compare, and show predictions.

    Example: trunkline quickstart
    """
    from trunkline.quickstart import quickstart as run

    run(out)
