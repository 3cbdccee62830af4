"""The main job on the shipped sample: features from few labels at once, then pre-finetuning, and what it gives."""

from __future__ import annotations

import importlib.util
import shutil
import sys
from collections.abc import Mapping
from pathlib import Path

from trunkline import samples, ui
from trunkline.data.load import load_examples
from trunkline.model import load

SAMPLES = samples.FOLDER
RECIPE = Path(__file__).parent / "recipes" / "quickstart.yaml"
TASKS = {"events": "jsonl", "orders": "jsonl", "intents": "csv", "triage": "csv"}
"""Name -> ending of the sample's files."""

NEW_SENTENCES = (
    "Could you and Tobias Lindqvist make the tasting at Brennerei Hallig on Thursday at 6:45 pm?",
    "We're out of dishwasher salt and paper towels, 2 packs please, Krämer & Sohn has them for €4.90.",
    "The bus is stuck in snow again, start the rehearsal in the Old Mill without me.",
    "Your account will be erased tonight. Confirm your card number at the link to keep your photos.",
    "i owe lena for the pizza, send her 14 bucks before friday",
)


def quickstart(folder: Path) -> None:
    """Runs the sample from start to end; what is done already is not done again.

    Without the extra `[train]` it ends before pre-finetuning.

    Args:
        folder: Holds the bundles `few-labels`, `pre-finetuned` and the run of pre-finetuning.
    """
    ui.say("1 of 3: four tasks from few labels on the default encoder")
    bundle = folder / "few-labels"
    before = _fitted(bundle, None)
    predictions = load(bundle).predict(NEW_SENTENCES)
    ui.print_predictions({"text": text, "tasks": row} for text, row in zip(NEW_SENTENCES, predictions, strict=True))
    if importlib.util.find_spec("torch") is None:
        ui.say("pre-finetuning needs torch: pip install 'trunkline[train]', then run this again")
    else:
        from trunkline.config import PrefinetuneRecipe, load_recipe
        from trunkline.prefinetune import FileFinder, prefinetune

        ui.say("2 of 3: pre-finetuning on the sample, about 4 minutes on two cores; once stopped, it goes on later")
        recipe, tuned = load_recipe(RECIPE, PrefinetuneRecipe), folder / "pre-finetuned"
        with ui.training_bar(recipe.name) as report:
            base = prefinetune(recipe, folder / "run", report, finder=FileFinder(SAMPLES))
        ui.say(f"3 of 3: the same tasks on the pre-finetuned encoder, in {tuned}")
        lost = ui.print_gains(before, _fitted(tuned, base))
        where = f"{', '.join(lost)}: use {bundle} for these" if lost else "no task"
        ui.console.print(f"pre-finetuning lost on {where}", soft_wrap=True)
        bundle = bundle if lost else tuned
    ui.console.print("\nThree commands to try next:", style="bold")
    for command in (
        f'predict {bundle} "Table for two at Osteria Lume on Sunday?"',
        f"evaluate {bundle} --task intents --data {SAMPLES / 'tasks' / 'intents-test.csv'}",
        f"fit mine --train my.csv --out {bundle}",
    ):
        ui.console.print(f"  {_program()} {command}", soft_wrap=True)


def _fitted(bundle: Path, source: Path | None) -> dict[str, Mapping[str, float]]:
    """The four tasks in a bundle, fitted where they are not there yet; test scores by task."""
    model = load(bundle if (bundle / "manifest.json").is_file() else source)
    scores: dict[str, Mapping[str, float]] = {}
    for name, ending in TASKS.items():
        family, train = load_examples(SAMPLES / "tasks" / f"{name}-train.{ending}")
        if name not in model.tasks:
            model.fit(name, train[:60], family=family)
        _, test = load_examples(SAMPLES / "tasks" / f"{name}-test.{ending}")
        scores[name] = model.evaluate(name, test).scores
    model.save(bundle)
    return scores


def _program() -> str:
    """How to start this program in the same shell."""
    return "trunkline" if shutil.which("trunkline") else f"{sys.executable} -m trunkline.cli"
