"""Commands of the study of few labels: run cells, make the table."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

few_labels_app = typer.Typer(
    no_args_is_help=True, rich_markup_mode=None, help="Tasks from 8 and 16 labels a class in all, beside others."
)
Repeated = list[str] | None


@few_labels_app.command("run")
def run(
    out: Annotated[Path, typer.Option(help="Folder of the cells.")],
    task: Annotated[Repeated, typer.Option(help="A card; repeatable. All spare and judging ones by default.")] = None,
    method: Annotated[Repeated, typer.Option(help="head, auto, build, regression ...; repeatable.")] = None,
    kind: Annotated[Repeated, typer.Option(help="balanced or natural; repeatable. Both by default.")] = None,
    size: Annotated[list[int] | None, typer.Option(min=1, help="Labels a class; repeatable. 8 and 16.")] = None,
    seeds: Annotated[int, typer.Option(min=1, help="Draws of each kind and size.")] = 5,
    encoder: Annotated[
        str | None, typer.Option(help="A bundle or folder instead of the default, as NAME=PATH.")
    ] = None,
    build: Annotated[Path | None, typer.Option(help="A checkout of build d62e5f2, for the method build.")] = None,
    python: Annotated[Repeated, typer.Option(help="METHOD=PATH of a peer's interpreter; repeatable.")] = None,
    again: Annotated[bool, typer.Option("--again", help="Replace cells that are there.")] = False,
) -> None:
    """Run the cells that are missing; stop at any time and run it again to go on. One thread.

    Example: trunkline-lab few-labels run --out lab/results/few-labels --task cr --method head --method setfit
    """
    from trunkline_lab.few_labels.draws import JUDGES, KINDS, NER, SIZES, SPARE
    from trunkline_lab.few_labels.methods import METHODS, Options
    from trunkline_lab.few_labels.run import Plan
    from trunkline_lab.few_labels.run import run as run_cells

    name, _, source = (encoder or "default=").partition("=")
    pythons = dict(pair.split("=", 1) for pair in python or ())
    tasks, methods = task or [*JUDGES, *SPARE, *NER], method or list(METHODS)
    plan = Plan(tasks, methods, kind or KINDS, size or SIZES, seeds, again)
    run_cells(out, plan, Options(name, source or None, build, pythons), typer.echo)


@few_labels_app.command("report")
def report(
    cells: Annotated[Path, typer.Argument(help="Folder of the cells.")],
    page: Annotated[Path | None, typer.Option(help="A page whose report is replaced.")] = None,
) -> None:
    """Make the tables of cells: targets, means, differences draw by draw.

    Example: trunkline-lab few-labels report lab/results/few-labels --page lab/docs/few-labels.md
    """
    from trunkline_lab.few_labels.report import report as make
    from trunkline_lab.few_labels.report import write_page
    from trunkline_lab.few_labels.run import read_all

    text = make(read_all(cells))
    typer.echo(text) if page is None else write_page(page, text)
