"""The commands for one's own domain: label text, mine pairs, pre-finetune, merge encoders."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Literal

import typer
from typer import Argument, Option

from trunkline.cli.tasks import JsonFlag, SetOption, app, print_json, settings_of
from trunkline.errors import needs

label_app = typer.Typer(
    no_args_is_help=True, rich_markup_mode="markdown", help="Label text, or mine pairs, for pre-finetuning."
)
app.add_typer(label_app, name="label")

OutOption = Annotated[Path, Option(help="The .jsonl file to write; its source card goes beside it.")]
LicenceOption = Annotated[str | None, Option(help="Of the text, for the source card.")]
TextColumnOption = Annotated[str | None, Option(help="The texts of a table; text by default.")]


@label_app.command("weak")
def label_weak(
    source: Annotated[str, Argument(help="Text: .txt, .md, a folder of them, or .csv, .tsv or .jsonl.")],
    method: Annotated[str, Option(help="gazetteer or chat.")],
    out: OutOption,
    text_column: TextColumnOption = None,
    limit: Annotated[int | None, Option(help="Label only the first so many sentences.")] = None,
    drop: Annotated[list[str] | None, Option(help="Leave this concept out; repeatable.")] = None,
    licence: LicenceOption = None,
    gazetteer: Annotated[Path | None, Option(help="gazetteer: table with the columns surface and concept.")] = None,
    base_url: Annotated[str | None, Option(help="chat: such as http://localhost:8000/v1.")] = None,
    model: Annotated[str | None, Option(help="chat: the model's name there.")] = None,
    key_variable: Annotated[str | None, Option(help="chat: environment variable with the key.")] = None,
    cache: Annotated[Path | None, Option(help="chat: file of the answers; beside the output.")] = None,
    yes: Annotated[bool, Option("--yes", "-y", help="chat: send requests without asking.")] = False,
    settings: SetOption = None,
    as_json: JsonFlag = False,
) -> None:
    """Label the sentences of your own text with concepts.

    Example: trunkline label weak notes/ --method gazetteer --gazetteer names.tsv --out notes.jsonl
    """
    given = {key: value for key, value in locals().items() if key not in ("source", "yes", "settings", "as_json")}
    from trunkline.label import label_text
    from trunkline.label.options import TEXT_METHODS
    from trunkline.ui import print_labelled, say

    report = label_text(
        source,
        say=say,
        confirm=lambda question: yes or typer.confirm(question, err=True),
        **_with_settings(given, settings, TEXT_METHODS),
    )
    print_json(report) if as_json else print_labelled(report)


@label_app.command("pairs")
def label_pairs(
    sources: Annotated[list[Path], Argument(help="Files and folders: .txt, .md, .csv, .tsv, .jsonl.")],
    method: Annotated[str, Option(help="columns, adjacent, question-answer, title-body or duplicates.")],
    out: OutOption,
    left_column: Annotated[str | None, Option(help="columns: such as the title.")] = None,
    right_column: Annotated[str | None, Option(help="columns: such as the body.")] = None,
    group_column: Annotated[str | None, Option(help="duplicates: the value that rows share.")] = None,
    conversation_column: Annotated[str | None, Option(help="adjacent: rows that share it are turns.")] = None,
    text_column: TextColumnOption = None,
    min_words: Annotated[int | None, Option(help="The shortest side.")] = None,
    max_words: Annotated[int | None, Option(help="The longest side.")] = None,
    max_pairs: Annotated[int | None, Option(help="The most pairs of a document or group.")] = None,
    group_documents: Annotated[bool | None, Option("--group-documents", help="No negatives within a document.")] = None,
    encoder: Annotated[
        str | None, Option(help="Keep pairs that it finds again: default, a folder, a bundle; needs [train].")
    ] = None,
    top_k: Annotated[int | None, Option(help="The lowest rank that is kept, with --encoder.")] = None,
    seed: Annotated[int | None, Option(help="Draws what is drawn.")] = None,
    licence: LicenceOption = None,
    settings: SetOption = None,
    as_json: JsonFlag = False,
) -> None:
    """Mine pairs of texts that belong together.

    Example: trunkline label pairs faq/ --method question-answer --encoder default --out faq.jsonl
    """
    given = {key: value for key, value in locals().items() if key not in ("sources", "settings", "as_json")}
    from trunkline.label import mine_pairs
    from trunkline.label.options import PAIR_METHODS
    from trunkline.ui import print_mined, say

    report = mine_pairs(sources, say=say, **_with_settings(given, settings, PAIR_METHODS))
    print_json(report) if as_json else print_mined(report)


def _with_settings(given: Mapping[str, Any], settings: list[str] | None, methods: Mapping[str, Any]) -> dict[str, Any]:
    """The options that were given, and those of `--set`, whose names must be options of some method."""
    known = {name for options in methods.values() for name in options.model_fields}
    return {key: value for key, value in given.items() if value not in (None, [])} | settings_of(settings, known)


prefinetune_app = typer.Typer(
    no_args_is_help=True, rich_markup_mode="markdown", help="Pre-finetune an encoder on your own text; merge encoders."
)
app.add_typer(prefinetune_app, name="prefinetune")


@prefinetune_app.command("run")
def run(
    recipe: Annotated[Path, Argument(help="A recipe in YAML; one with the family text trains a masked LM.")],
    out: Annotated[Path | None, Option(help="The run's folder; runs/NAME by default.")] = None,
    seed: Annotated[int | None, Option(help="Instead of the recipe's; the default folder is runs/NAME-SEED.")] = None,
) -> None:
    """Pre-finetune an encoder by a recipe; run it again to go on after an interruption.

    Example: trunkline prefinetune run recipe.yaml --out runs/mine
    """
    with needs("train", "pre-finetuning"):
        from trunkline.prefinetune import prefinetune
        from trunkline.training.loop import process_state
    from trunkline.config import PrefinetuneRecipe, load_recipe
    from trunkline.ui import training_bar

    parsed = load_recipe(recipe, PrefinetuneRecipe, {} if seed is None else {"seed": seed})
    if seed is not None:
        parsed = parsed.model_copy(update={"name": f"{parsed.name}-{seed}"})
    with training_bar(parsed.name) as report:
        bundle = prefinetune(parsed, out or Path("runs") / parsed.name, report)
    if process_state().is_main_process:
        typer.echo(f"{bundle}")


@prefinetune_app.command("merge")
def merge(
    bundles: Annotated[list[Path], Argument(help="Bundles that started from the same encoder; one is scaled.")],
    out: Annotated[Path, Option(help="Folder of the merged bundle.")],
    base: Annotated[str, Option(help="The encoder that they started from.")] = "default",
    method: Annotated[Literal["average", "ties"], Option(help="Average the task vectors, or TIES.")] = "average",
    scale: Annotated[float, Option(help="Factor on the merged task vector.")] = 1.0,
    density: Annotated[float, Option(help="Share of each task vector that ties keeps, above 0 and up to 1.")] = 0.2,
) -> None:
    """Merge the encoders of bundles that were pre-finetuned one family each, or go back a part of one's way (WiSE-FT).

    Example: trunkline prefinetune merge runs/ner/bundle runs/classification/bundle --out runs/merged
    """
    with needs("train", "merging"):
        from trunkline.prefinetune.strategies import merge_bundles
    typer.echo(f"{merge_bundles(bundles, out, base=base, method=method, scale=scale, density=density)}")
