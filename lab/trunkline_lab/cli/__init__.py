"""The command line of the research: public data sets, benchmark suites."""

from __future__ import annotations

import typer

from trunkline.cli import run_app
from trunkline_lab.cli.benchmark import benchmark_app
from trunkline_lab.cli.data import data_app

app = typer.Typer(
    name="trunkline-lab",
    no_args_is_help=True,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
    add_completion=False,
    help="The research beside trunkline.",
)
app.add_typer(data_app, name="data")
app.add_typer(benchmark_app, name="benchmark")


def main() -> None:
    """Entry point of `trunkline-lab`."""
    run_app(app)
