"""The main job on the shipped sample, end to end: pre-finetune, compare, save a bundle, predict."""

from __future__ import annotations

from pathlib import Path

from trunkline import ui
from trunkline.adapt import TaskData, adapt
from trunkline.adapt.sweep import run_sweep, summarise
from trunkline.config import AdaptSection, PrefinetuneRecipe, SweepRecipe, load_recipe
from trunkline.data.cards import load_card
from trunkline.encoder.bundle_files import add_task, load_any
from trunkline.engine.command import predict_rows
from trunkline.engine.torch import load
from trunkline.prefinetune import prefinetune
from trunkline.training.log import write_rows

RECIPES = Path(__file__).parent / "recipes"
NEW_SENTENCES = (
    "Could you and Tobias Lindqvist make the tasting at Brennerei Hallig on Thursday at 6:45 pm?",
    "We're out of dishwasher salt and paper towels, 2 packs please, Krämer & Sohn has them for €4.90.",
    "The bus is stuck in snow again, start the rehearsal in the Old Mill without me.",
    "Your account will be erased tonight. Confirm your card number at the link to keep your photos.",
    "i owe lena for the pizza, send her 14 bucks before friday",
)


def quickstart(folder: Path, recipes: Path = RECIPES) -> None:
    """Runs the sample from start to end; every part that is done already is skipped when it is run again.

    Args:
        folder: Holds the run (`run/`), the comparison (`comparison.jsonl`) and the bundle (`run/bundle`).
        recipes: Folder of `quickstart.yaml` and `quickstart-sweep.yaml`.
    """
    recipe = load_recipe(recipes / "quickstart.yaml", PrefinetuneRecipe)
    sweep = load_recipe(recipes / "quickstart-sweep.yaml", SweepRecipe)
    ui.say("1 of 4: pre-finetuning on the sample, both families at once, each with its primary adapter")
    with ui.training_bar(recipe.name) as report:
        bundle = prefinetune(recipe, folder / "run", report)
    ui.say("2 of 4: four tasks from few labels, with and without pre-finetuning")
    encoders = {**sweep.encoders, "task-primary": str(bundle)}
    rows = run_sweep(sweep.model_copy(update={"encoders": encoders}), folder, say=ui.say)
    summary = summarise(rows, sweep.baseline)
    write_rows(folder / "comparison.jsonl", summary)
    ui.say("3 of 4: the same tasks with all their labels, into one bundle")
    start = load_any(str(bundle))
    for name in sweep.tasks:
        card = load_card(name)
        task = TaskData(name, card.family, card.load("train"), card.load("dev"), card.load("test"))
        short = name.removeprefix("sample_")
        if short not in start.tasks:
            add_task(bundle, short, adapt(task, start, AdaptSection()).adapter)
    ui.say("4 of 4: predictions on new sentences, one pass through the trunk for all tasks")
    ui.print_predictions(predict_rows(load(bundle), str(bundle), NEW_SENTENCES, None))
    ui.console.print()
    ui.comparison_table(summary)
    ui.console.print("\nThree commands to try next:", style="bold")
    for command in (
        f'predict {bundle} "Table for two at Osteria Lume on Sunday?"',
        f"adapt mine --family classification --train my.csv --encoder {bundle}",
        "prefinetune recipes/real-cpu.yaml",
    ):
        ui.console.print(f"  trunkline {command}", highlight=False, soft_wrap=True)
