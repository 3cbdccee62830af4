"""Commands of the main job: encoders, prefinetune, adapt, predict, sweep, quickstart."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from trunkline.cli.base import JsonFlag, app

if TYPE_CHECKING:
    from trunkline.encoder.bundle_files import Loaded


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

    Example: trunkline conflict runs/naive runs/task-primary --out conflict
    """
    from trunkline.config import PrefinetuneRecipe, load_recipe
    from trunkline.prefinetune.conflict import ConflictLog
    from trunkline.prefinetune.conflict_report import conflict_of_bundle
    from trunkline.ui import training_bar
    from trunkline.ui.conflict import conflict_report, print_conflict

    out.mkdir(parents=True, exist_ok=True)
    folders = {path.name: path for path in targets}
    if len(targets) == 1 and targets[0].suffix in (".yaml", ".yml"):
        parsed = load_recipe(targets[0], PrefinetuneRecipe)
        with training_bar(parsed.name) as report:
            ConflictLog(out / "conflict.jsonl").write(0, conflict_of_bundle(parsed, encoder, batches, report=report))
        folders = {parsed.name: out}
    found = conflict_report(folders, out)
    typer.echo(json.dumps(found, indent=2)) if as_json else print_conflict(found)


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
def adapt(
    name: Annotated[str, typer.Argument(help="The task's name.")],
    family: Annotated[str, typer.Option(help="ner, classification or qa.")],
    train: Annotated[str, typer.Option(help="File, hub:NAME@SPLIT or card:NAME@SPLIT.")],
    dev: Annotated[str | None, typer.Option(help="As --train; without it a fifth of train is set aside.")] = None,
    test: Annotated[str | None, typer.Option(help="As --train; only scored.")] = None,
    encoder: Annotated[
        str, typer.Option(help="A bundle's folder, an encoder's folder, a hub id or default.")
    ] = "default",
    mode: Annotated[str, typer.Option(help="head (convex, fast) or lora (LoRA and head).")] = "head",
    out: Annotated[
        Path | None, typer.Option(help="Bundle to put the task into; the encoder itself if it is one.")
    ] = None,
    sentences: Annotated[int | None, typer.Option(min=1, help="Use this many training examples.")] = None,
    per_class: Annotated[
        int | None, typer.Option(min=1, help="Use this many training examples per class or type.")
    ] = None,
    weights: Annotated[
        Literal["float32", "int8", "int4"],
        typer.Option(help="Fit on the encoder as `trunkline export --weights` will round it."),
    ] = "float32",
    texts: Annotated[
        Path | None, typer.Option(help="For rounding, as for export: real texts, one a line or .jsonl.")
    ] = None,
    seed: Annotated[int, typer.Option(min=0, max=2**32 - 1, help="Draws the few examples.")] = 0,
    as_json: JsonFlag = False,
) -> None:
    """Fit one task from labelled examples on a frozen encoder.

    Example: trunkline adapt intents --family classification --train train.csv --dev dev.csv
    """
    from trunkline.adapt.command import AdaptOrder, adapt_command
    from trunkline.config import AdaptSection, BudgetSection, parse_recipe
    from trunkline.ui import print_scores, say

    section = parse_recipe({"mode": mode}, AdaptSection, "options")
    budget = parse_recipe({"sentences": sentences, "per_class": per_class}, BudgetSection, "options")
    parts = {"train": train, "dev": dev, "test": test}
    order = AdaptOrder(name, family, parts, encoder, out, seed, _rounded(weights, texts))
    result = adapt_command(order, section, budget, say=say)
    typer.echo(json.dumps(result, indent=2)) if as_json else print_scores(result)


def _rounded(weights: Literal["float32", "int8", "int4"], texts: Path | None) -> Callable[[Loaded], Loaded] | None:
    if weights == "float32":
        return None
    from trunkline.engine.command import read_texts
    from trunkline.export.settle import rounded_start

    read = read_texts([], texts, None) if texts is not None else ()
    return partial(rounded_start, weights=weights, texts=read)


@app.command()
def predict(
    bundle: Annotated[Path, typer.Argument(help="A bundle's folder.")],
    texts: Annotated[list[str] | None, typer.Argument(help="Texts; without any, lines of stdin or --file.")] = None,
    file: Annotated[Path | None, typer.Option(help="A text file, one text a line, or .jsonl with a text key.")] = None,
    task: Annotated[list[str] | None, typer.Option(help="A task; repeatable; all by default.")] = None,
    out: Annotated[Path | None, typer.Option(help="Write JSON lines here.")] = None,
    as_json: JsonFlag = False,
) -> None:
    """Run a bundle's tasks on texts; a deployed bundle, as `trunkline export` makes it, needs no torch.

    Example: trunkline predict runs/quickstart/bundle "Lunch with Ana on Friday at noon?"
    """
    from trunkline.bundle.manifest import is_deployed
    from trunkline.engine.command import Predictor, predict_rows, read_texts

    given = read_texts(texts or [], file, None if sys.stdin.isatty() else sys.stdin)
    if is_deployed(bundle):
        from trunkline.engine import predictor as runtime

        loaded: Predictor = runtime.load(bundle)
    else:
        from trunkline.engine import torch as inference

        loaded = inference.load(bundle)
    rows = predict_rows(loaded, str(bundle), given, task)
    if out is not None:
        from trunkline.training.log import write_rows

        typer.echo(f"{write_rows(out, rows)} predictions in {out}")
    elif as_json:
        for row in rows:
            typer.echo(json.dumps(row, ensure_ascii=False))
    else:
        from trunkline.ui import print_predictions

        print_predictions(rows)


@app.command()
def sweep(
    recipe: Annotated[Path, typer.Argument(help="A sweep recipe, see recipes/.")],
    out: Annotated[Path | None, typer.Option(help="Folder of the results; runs/NAME by default.")] = None,
    as_json: JsonFlag = False,
) -> None:
    """Adapt several tasks from several encoders on the same few labels and compare them.

    Example: trunkline sweep recipes/real-few-labels.yaml
    """
    from trunkline.adapt.sweep import run_sweep, summarise
    from trunkline.config import SweepRecipe, load_recipe
    from trunkline.ui import comparison_table, say

    parsed = load_recipe(recipe, SweepRecipe)
    results = run_sweep(parsed, out or Path("runs") / parsed.name, say=say)
    summary = summarise(results, parsed.baseline)
    typer.echo(json.dumps(summary, indent=2)) if as_json else comparison_table(summary)


@app.command()
def quickstart(
    out: Annotated[Path, typer.Option(help="Folder of the run.")] = Path("runs/quickstart"),
) -> None:
    """Pre-finetune on the shipped sample, adapt four tasks with and without it, compare, and show predictions.

    Example: trunkline quickstart
    """
    from trunkline.quickstart import quickstart as run

    run(out)
