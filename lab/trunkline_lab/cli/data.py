"""Commands about public data sets."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

import typer

from trunkline.cli.tasks import JsonFlag

data_app = typer.Typer(
    no_args_is_help=True, rich_markup_mode=None, help="Public data sets: list, show, mix, check them."
)


@data_app.command("mix")
def mix(
    recipe: Annotated[Path, typer.Argument(help="A mixture, see lab/recipes/mixtures/.")],
    out: Annotated[Path | None, typer.Option(help="Write the report here as JSON.")] = None,
    as_json: JsonFlag = False,
) -> None:
    """Read, clean and count a mixture of pre-finetuning sources.

    Example: trunkline-lab data mix lab/recipes/mixtures/open.yaml --out open.json
    """
    from trunkline.bundle.files import write_atomic
    from trunkline.config import load_recipe
    from trunkline.ui import say
    from trunkline_lab.data.finder import CardFinder, MixtureRecipe, describe_mixture
    from trunkline_lab.ui.data import mixture_table

    report = describe_mixture(load_recipe(recipe, MixtureRecipe), say, CardFinder())
    if out is not None:
        write_atomic(out, json.dumps(report, indent=2, ensure_ascii=False) + "\n")
    typer.echo(json.dumps(report, indent=2)) if as_json else mixture_table(report)


@data_app.command("list")
def list_data(
    role: Annotated[str | None, typer.Option(help="Only these: task or source.")] = None,
    family: Annotated[str | None, typer.Option(help="Only these: ner, classification, qa or text.")] = None,
    as_json: JsonFlag = False,
) -> None:
    """List the data sets of the cards, and which of them are on this machine.

    Example: trunkline-lab data list --role task --family ner
    """
    from trunkline_lab.data.describe import list_cards_table
    from trunkline_lab.ui.data import print_card_list

    rows = list_cards_table(role, family)
    typer.echo(json.dumps(rows, indent=2, ensure_ascii=False)) if as_json else print_card_list(rows)


@data_app.command("show")
def show_data(
    name: Annotated[str, typer.Argument(help="A card's name, or the path of one.")], as_json: JsonFlag = False
) -> None:
    """Show everything that a data set's card says.

    Example: trunkline-lab data show wnut17
    """
    from trunkline_lab.data.describe import show
    from trunkline_lab.ui.data import print_card

    card = show(name)
    typer.echo(json.dumps(card, indent=2, ensure_ascii=False)) if as_json else print_card(card)


@data_app.command("check")
def check_data(
    names: Annotated[list[str] | None, typer.Argument(help="Cards by name or path.")] = None,
    all_cards: Annotated[bool, typer.Option("--all", help="All tasks of the package.")] = False,
    sources: Annotated[
        bool, typer.Option(help="With --all the sources, too; compare sources with the tasks' dev and test parts.")
    ] = False,
    full: Annotated[
        bool, typer.Option("--full", help="Show notes and texts, too; without it --out and --json have no texts.")
    ] = False,
    out: Annotated[Path | None, typer.Option(help="Write the reports here as JSON lines, one a data set.")] = None,
    as_json: JsonFlag = False,
) -> None:
    """Check public data sets for leaks, duplicates, conflicting labels, damage; exit code 1 on a leak.

    Example: trunkline-lab data check banking77 wnut17
    """
    from trunkline.data.checks import exit_code
    from trunkline.training import write_rows
    from trunkline.ui import say
    from trunkline_lab.data.checks import check_data as run
    from trunkline_lab.data.checks import shown
    from trunkline_lab.ui.data import print_reports

    reports = run(names or [], all_cards=all_cards, sources=sources, say=say)
    for finding in (item for report in reports for item in report["findings"]):
        finding["samples"] = finding["samples"] if full else []
    if out is not None:
        write_rows(out, reports)
    if as_json:
        typer.echo(json.dumps(reports, indent=2, ensure_ascii=False))
    else:
        print_reports([shown(report) for report in reports], full=full)
    raise typer.Exit(exit_code(reports))


@data_app.command("where")
def where_data(
    names: Annotated[list[str] | None, typer.Argument(help="Cards by name or path; all by default.")] = None,
    as_json: JsonFlag = False,
) -> None:
    """Say where the files of data sets come from and where they belong, and verify those that are there.

    The files are those that the published numbers came from. Exit code 1 says that a file is there and is another one.

    Example: trunkline-lab data where wnut17 banking77
    """
    import os

    from trunkline_lab.data.cards import DATA_VARIABLE
    from trunkline_lab.data.where import where
    from trunkline_lab.ui.data import print_where

    rows = where(names or ())
    if as_json:
        typer.echo(json.dumps(rows, indent=2, ensure_ascii=False))
    else:
        print_where(rows, DATA_VARIABLE, os.environ.get(DATA_VARIABLE))
    raise typer.Exit(int(any(file["state"] == "differs" for row in rows for file in row["files"])))
