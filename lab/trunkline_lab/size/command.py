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
    report: Annotated[Path | None, typer.Option(help="Write the records as JSON here.")] = None,
    as_json: JsonFlag = False,
) -> None:
    """Measure bytes, memory and milliseconds of bundles, beside separate models.

    Example: trunkline-lab size deployed
    """
    from trunkline.atomic import write_atomic
    from trunkline_lab.size.report import LENGTHS, SizeOptions, report_size
    from trunkline_lab.size.show import print_sizes

    options = SizeOptions(tuple(task) if task else None, tuple(length or LENGTHS), separate=separate)
    records = [report_size(bundle, options) for bundle in bundles]
    if report is not None:
        write_atomic(report, json.dumps(records, indent=2) + "\n")
    if as_json:
        typer.echo(json.dumps(records, indent=2))
        return
    for record in records:
        print_sizes(record)
