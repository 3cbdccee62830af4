"""The command line of the research: public data sets, pre-finetuning on them, benchmarks."""

from __future__ import annotations

import typer

from trunkline.cli import main as run
from trunkline_lab.cli.benchmark import benchmark_app
from trunkline_lab.cli.data import data_app
from trunkline_lab.cli.few_labels import few_labels_app
from trunkline_lab.cli.measure import (
    ARGUMENTS,
    conflict,
    decisions,
    litert,
    prefinetune,
    quantisation,
    speed_app,
    strategies,
)

app = typer.Typer(
    name="trunkline-lab",
    no_args_is_help=True,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
    add_completion=False,
    help="The research beside trunkline.",
)
app.add_typer(data_app, name="data")
app.command()(prefinetune)
app.add_typer(few_labels_app, name="few-labels")
app.command(context_settings=ARGUMENTS)(strategies)
app.command()(decisions)
app.command()(conflict)
app.add_typer(benchmark_app, name="benchmark")
app.add_typer(speed_app, name="speed")
app.command(context_settings=ARGUMENTS)(quantisation)
app.command()(litert)


def main() -> None:
    """Entry point of `trunkline-lab`."""
    run(app)
