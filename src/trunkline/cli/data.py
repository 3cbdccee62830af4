"""The command `check`: a user's own files, before anything is learnt from them."""

from __future__ import annotations

from typing import Annotated

import typer

from trunkline.cli.base import JsonFlag, app, print_json
from trunkline.cli.tasks import Delimiter, FamilyOption, LabelColumn, TextColumn


@app.command()
def check(
    train: Annotated[str | None, typer.Option(help="Labelled examples, as for `fit`.")] = None,
    dev: Annotated[str | None, typer.Option(help="As --train.")] = None,
    test: Annotated[str | None, typer.Option(help="As --train.")] = None,
    family: FamilyOption = None,
    text_column: TextColumn = None,
    label_column: LabelColumn = None,
    delimiter: Delimiter = None,
    full: Annotated[bool, typer.Option("--full", help="Show notes, and some of the texts.")] = False,
    as_json: JsonFlag = False,
) -> None:
    """Check data for leaks, duplicates, conflicting and rare labels, and damage.

    The exit code is 1 if a text of dev or test is in train, or a file has no example.

    Example: trunkline check --train train.csv --test test.csv
    """
    from trunkline.data import checks
    from trunkline.ui.checks import print_checks

    columns = {"text_column": text_column, "label_column": label_column, "delimiter": delimiter}
    report = checks.check(train, dev, test, family=family, **columns)
    print_json(report) if as_json else print_checks([report], full=full)
    raise typer.Exit(checks.exit_code([report]))
