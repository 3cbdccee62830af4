"""The command `check-data`: a user's own files, checked before anything is learnt from them."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Annotated

import typer

from trunkline.cli.base import JsonFlag, app
from trunkline.errors import EncoderError


@app.command("check-data")
def check_data(
    train: Annotated[str | None, typer.Option(help="A file, or hub:NAME@SPLIT.")] = None,
    dev: Annotated[str | None, typer.Option(help="As --train.")] = None,
    test: Annotated[str | None, typer.Option(help="As --train.")] = None,
    family: Annotated[str, typer.Option(help="ner, classification, pairs or plain.")] = "classification",
    encoder: Annotated[str, typer.Option(help="Whose tokens are counted; none estimates them.")] = "default",
    full: Annotated[
        bool, typer.Option("--full", help="Show notes and texts, too; without it --out and --json have no texts.")
    ] = False,
    out: Annotated[Path | None, typer.Option(help="Write the report here as one JSON line.")] = None,
    as_json: JsonFlag = False,
) -> None:
    """Check data for leaks, duplicates, conflicting labels, truncation and damage; exit code 1 on a leak.

    Example: trunkline check-data --train train.csv --test test.csv
    """
    from trunkline.data.checks.command import check_files, exit_code
    from trunkline.training.log import write_rows
    from trunkline.ui import say
    from trunkline.ui.checks import print_checks

    parts = {"train": train, "dev": dev, "test": test}
    reports = [check_files(parts, family, count_tokens=token_counter(encoder, say), say=say)]
    for finding in (item for report in reports for item in report["findings"]):
        finding["samples"] = finding["samples"] if full else []
    if out is not None:
        write_rows(out, reports)
    typer.echo(json.dumps(reports, indent=2, ensure_ascii=False)) if as_json else print_checks(reports, full=full)
    raise typer.Exit(exit_code(reports))


def token_counter(encoder: str, say: Callable[[str], None]) -> Callable[[str], int] | None:
    """Counts the tokens of a text as an encoder sees it; none where its tokenizer is not here, or for `none`."""
    from trunkline.encoder.resolve import resolve
    from trunkline.text.tokens import TextTokenizer

    if encoder == "none":
        return None
    try:
        tokenizer = TextTokenizer.from_folder(resolve(encoder).folder, 10**9)
    except EncoderError as error:
        say(f"tokens are estimated from words: {error}")
        return None
    return lambda text: tokenizer.encode([text])[0].windows[0].ids.size
