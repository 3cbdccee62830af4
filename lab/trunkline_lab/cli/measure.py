"""Commands that train or measure: pre-finetuning on cards, strategies, speed, rounding, LiteRT."""

from __future__ import annotations

import json
from importlib import import_module
from pathlib import Path
from typing import Annotated, Literal

import typer

from trunkline.cli.tasks import JsonFlag

speed_app = typer.Typer(no_args_is_help=True, rich_markup_mode=None, help="Speed and memory beside other libraries.")
ARGUMENTS = {"allow_extra_args": True, "ignore_unknown_options": True, "help_option_names": []}
"""What follows such a command goes to the parser of its module, `--help` too."""


def prefinetune(
    recipe: Annotated[Path, typer.Argument(help="A recipe whose sources are cards or files, see lab/recipes/.")],
    out: Annotated[Path | None, typer.Option(help="The run's folder; runs/NAME by default.")] = None,
    seed: Annotated[
        int | None, typer.Option(help="Instead of the recipe's; the default folder is runs/NAME-SEED.")
    ] = None,
) -> None:
    """Pre-finetune an encoder on public data sets; run it again to go on after an interruption.

    Example: trunkline-lab prefinetune lab/recipes/real-cpu.yaml
    """
    from trunkline.config import load_recipe
    from trunkline.prefinetune import prefinetune as run
    from trunkline.ui import training_bar
    from trunkline_lab.data.finder import CardFinder
    from trunkline_lab.probes import ProbedRecipe, ProbeWatch

    parsed = load_recipe(recipe, ProbedRecipe, {} if seed is None else {"seed": seed})
    if seed is not None:
        parsed = parsed.model_copy(update={"name": f"{parsed.name}-{seed}"})
    with training_bar(parsed.name) as report:
        folder, watch = out or Path("runs") / parsed.name, ProbeWatch(parsed)
        bundle = run(parsed, folder, report, finder=CardFinder(), watch=watch)
    typer.echo(f"{bundle}")


def strategies(context: typer.Context) -> None:
    """Compare the strategies of pre-finetuning on the same data, order, steps and seeds.

    Example: trunkline-lab strategies --seeds 0 1 2 --out lab/results/strategies
    """
    _pass_on("strategies", context)


def quantisation(context: typer.Context) -> None:
    """Measure what rounded weights and a smaller vocabulary cost.

    Example: trunkline-lab quantisation --bundle runs/strategies/task-primary-0/bundle
    """
    _pass_on("quantise.benchmark", context)


@speed_app.command("training", context_settings=ARGUMENTS)
def training(context: typer.Context) -> None:
    """Training beside the Trainer of transformers and sentence-transformers.

    Example: trunkline-lab speed training --out lab/results/training-speed
    """
    _pass_on("speed.training.__main__", context)


@speed_app.command("deployment", context_settings=ARGUMENTS)
def deployment(context: typer.Context) -> None:
    """Bundles beside PyTorch, PEFT and ONNX Runtime's usual way.

    Example: trunkline-lab speed deployment --out lab/results/deployment
    """
    _pass_on("speed.deployment.__main__", context)


def decisions(
    out: Annotated[Path, typer.Option(help="The rows, as JSON.")],
    task: Annotated[list[str] | None, typer.Option(help="A card; repeatable. All spare ones by default.")] = None,
    seeds: Annotated[int, typer.Option(min=1, help="Draws of classification of each kind and size.")] = 20,
    ner_seeds: Annotated[int, typer.Option(min=1, help="The same of NER.")] = 3,
) -> None:
    """Measure what sets, thresholds and "none of these" keep of what they promise, on spare tasks. One thread.

    Example: trunkline-lab decisions --out lab/results/decisions/results.json
    """
    from trunkline_lab.decisions import study, table
    from trunkline_lab.few_labels.draws import NER, SPARE

    rows = list(study(task or [*SPARE, *NER], {"classification": seeds, "ner": ner_seeds}))
    out.parent.mkdir(parents=True, exist_ok=True)
    out.write_text("[\n" + ",\n".join(map(json.dumps, rows)) + "\n]\n", encoding="utf-8")
    typer.echo(table(rows))


def conflict(
    runs: Annotated[list[Path], typer.Argument(help="Folders of runs, with their conflict.jsonl.")],
    out: Annotated[Path, typer.Option(help="Folder of the report: conflict.json and plots.")],
    as_json: JsonFlag = False,
) -> None:
    """Compare the families' gradients on the backbone, layer by layer: where do they collide?

    Example: trunkline-lab conflict runs/naive runs/task-primary --out conflict
    """
    from trunkline_lab.conflict.plots import conflict_report, print_conflict

    found = conflict_report({path.name: path for path in runs}, out)
    typer.echo(json.dumps(found, indent=2)) if as_json else print_conflict(found)


def litert(
    source: Annotated[str, typer.Argument(help="The folder of a bundle with weights for torch, or an encoder.")],
    out: Annotated[Path, typer.Option(help="The folder to write.")],
    weights: Annotated[Literal["float32", "int8"], typer.Option(help="How weights are stored.")] = "int8",
    task: Annotated[list[str] | None, typer.Option(help="Only this task; repeatable.")] = None,
    texts: Annotated[Path | None, typer.Option(help="Texts to compare on, as `trunkline predict` reads them.")] = None,
    as_json: JsonFlag = False,
) -> None:
    """Write trunk.tflite, branch.tflite, litert.json and tokenizer.json, compared with torch.

    LiteRT's packages are in an environment of their own; TRUNKLINE_LITERT_PYTHON names its interpreter.

    Example: trunkline-lab litert support-bot --out phone
    """
    from trunkline.data.stream import load_texts
    from trunkline.export.bundle import ExportOptions
    from trunkline_lab.litert.record import litert_record

    read = () if texts is None else tuple(text for text, _ in load_texts(texts))
    options = ExportOptions(weights=weights, tasks=tuple(task) if task else None, texts=read, gate=False)
    record = litert_record(source, out, options)
    typer.echo(json.dumps(record, indent=2) if as_json else f"{record['bytes'] / 1e6:.2f} MB in {out}")


def _pass_on(module: str, context: typer.Context) -> None:
    import_module(f"trunkline_lab.{module}").main(context.args)
