"""The application that the commands join, and what they share. Nothing heavy is imported before a command runs."""

from __future__ import annotations

import json
import logging
from typing import Annotated, Any

import typer
from typer.core import TyperGroup

from trunkline import __version__
from trunkline.errors import TrunklineError
from trunkline.problems import nearest

ORDER = ("fit", "predict", "evaluate", "check", "label", "prefinetune", "export", "bundle", "encoders", "quickstart")
"""Commands in the order in which a user meets them."""


class Ordered(TyperGroup):
    """Lists commands in the order of `ORDER`, and suggests the nearest name for an unknown one."""

    def list_commands(self, ctx: Any) -> list[str]:
        """The names for `--help`."""
        names = super().list_commands(ctx)
        return sorted(names, key=lambda name: (ORDER.index(name) if name in ORDER else len(ORDER), name))


app = typer.Typer(
    name="trunkline",
    cls=Ordered,
    no_args_is_help=True,
    rich_markup_mode="markdown",
    pretty_exceptions_enable=False,
    add_completion=False,
    help="One small encoder, many language features. Start with: trunkline quickstart",
)

JsonFlag = Annotated[bool, typer.Option("--json", help="Print JSON for machines.")]
SetOption = Annotated[
    list[str] | None, typer.Option("--set", metavar="NAME=VALUE", help="A rarer setting, by its name in Python.")
]


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


def print_json(value: Any) -> None:
    """One JSON document on stdout; numbers that are not finite are no JSON and refused."""
    typer.echo(json.dumps(value, indent=2, ensure_ascii=False, allow_nan=False))


def settings_of(given: list[str] | None, known: dict[str, Any]) -> dict[str, Any]:
    """`--set NAME=VALUE` options as a dict; values are read as YAML, so that 3, 0.5 and true are what they look like.

    `known` are the settings of the function with their defaults, whose types a value must have.
    """
    found: dict[str, Any] = {}
    for item in given or ():
        name, sign, text = item.partition("=")
        if not sign or name not in known:
            raise TrunklineError(
                f"--set {item}" + (nearest(name, known) if sign else ""),
                expected="NAME=VALUE with one of " + (", ".join(sorted(known)) or "(none)"),
            )
        import yaml

        value, default = yaml.safe_load(text), known[name]
        if isinstance(default, float) and isinstance(value, int) and not isinstance(value, bool):
            value = float(value)
        if default is not None and type(value) is not type(default):
            raise TrunklineError(f"--set {item}", expected=f"{name} as {type(default).__name__}, such as {default!r}")
        found[name] = value
    return found
