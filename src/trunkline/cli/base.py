"""The application that the commands join, and what they share. Nothing heavy is imported before a command runs."""

from __future__ import annotations

import logging
from typing import Annotated

import typer

from trunkline import __version__

app = typer.Typer(
    name="trunkline",
    no_args_is_help=True,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
    add_completion=False,
    help="One small encoder, many language features. Start with: trunkline quickstart",
)

JsonFlag = Annotated[bool, typer.Option("--json", help="Print JSON for machines.")]


@app.callback(invoke_without_command=True)
def options(
    version: Annotated[bool, typer.Option("--version", help="Print the version.")] = False,
    verbose: Annotated[bool, typer.Option("--verbose", "-v", help="Log where things come from.")] = False,
) -> None:
    """Sets up logging, before any command."""
    logging.basicConfig(level=logging.INFO if verbose else logging.WARNING, format="%(name)s: %(message)s")
    if version:
        typer.echo(__version__)
        raise typer.Exit
