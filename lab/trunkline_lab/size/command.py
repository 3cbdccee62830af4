"""The command `trunkline-lab size`."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

import typer

from trunkline.cli.base import JsonFlag


def size(
    bundles: Annotated[list[Path], typer.Argument(help="Folders of bundles with graphs.")],
    task: Annotated[list[str] | None, typer.Option(help="Only this task; repeatable.")] = None,
    length: Annotated[
        list[int] | None, typer.Option(help="Tokens of a text; repeatable. 16, 32, 64 and 128 by default.")
    ] = None,
    separate: Annotated[
        bool, typer.Option("--separate/--no-separate", help="Open as many models as there are tasks, to compare.")
    ] = True,
    plot: Annotated[Path | None, typer.Option(help="PNG to draw the bundles in, by what they cost.")] = None,
    scores: Annotated[
        Path | None, typer.Option(help="JSON file, BUNDLE -> score in [0, 1], for the plot; the gate's by default.")
    ] = None,
    report: Annotated[Path | None, typer.Option(help="Write the records as JSON here.")] = None,
    as_json: JsonFlag = False,
) -> None:
    """Measure bytes, memory and milliseconds of bundles, beside separate models.

    Example: trunkline-lab size deployed
    """
    from trunkline.atomic import write_atomic
    from trunkline_lab.size.report import LENGTHS, SizeOptions, pareto, read_scores, report_size
    from trunkline_lab.size.show import pareto_plot, print_sizes

    options = SizeOptions(tuple(task) if task else None, tuple(length or LENGTHS), separate=separate)
    known = read_scores(scores) if scores is not None else None
    records = [report_size(bundle, options) for bundle in bundles]
    if report is not None:
        write_atomic(report, json.dumps(records, indent=2) + "\n")
    if plot is not None:
        shared = [n for n in options.lengths if all(str(n) in record["times"] for record in records)]
        chosen = shared[0] if shared and 32 not in shared else 32
        pareto_plot(pareto(records, chosen, known), chosen, plot)
    if as_json:
        typer.echo(json.dumps(records, indent=2))
        return
    for record in records:
        print_sizes(record)
