"""The application that the commands join; the commands of the main job: fit, predict, evaluate, check; and the first
ones: quickstart, encoders. Nothing heavy is imported before a command runs.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Collection, Mapping, Sequence
from contextlib import nullcontext
from functools import partial
from gzip import GzipFile
from itertools import tee
from pathlib import Path
from typing import Annotated, Any

import typer
from typer import Argument, Option
from typer.core import TyperGroup

from trunkline import __version__
from trunkline.errors import TrunklineError, nearest

_LEARNING = ("fit", "predict", "evaluate", "check", "demo")
ORDER = (*_LEARNING, "label", "prefinetune", "export", "bundle", "serve", "encoders", "quickstart")
"""Commands in the order in which a user meets them."""


class Ordered(TyperGroup):
    """Lists commands in the order of `ORDER`, and suggests the nearest name for an unknown one."""

    def list_commands(self, ctx: Any) -> list[str]:
        """The names for `--help`."""
        return sorted(super().list_commands(ctx), key=ORDER.index)


app = typer.Typer(
    name="trunkline",
    cls=Ordered,
    no_args_is_help=True,
    rich_markup_mode="markdown",
    pretty_exceptions_enable=False,
    add_completion=False,
    help="One small encoder, many language features. Start with: trunkline quickstart",
)

JsonFlag = Annotated[bool, Option("--json", help="Print JSON for machines.")]
SetOption = Annotated[list[str] | None, Option("--set", metavar="NAME=VALUE", help="A rarer setting, as in Python.")]


@app.callback(invoke_without_command=True)
def options(
    version: Annotated[bool, Option("--version", help="Print the version.")] = False,
    verbose: Annotated[bool, Option("--verbose", "-v", help="Log where things come from.")] = False,
) -> None:
    """Sets up logging, before any command."""
    logging.basicConfig(level=logging.INFO if verbose else logging.WARNING, format="%(name)s: %(message)s")
    if version:
        typer.echo(__version__)
        raise typer.Exit


def print_json(value: Any) -> None:
    """One JSON document on stdout; numbers that are not finite are no JSON and refused."""
    typer.echo(json.dumps(value, indent=2, ensure_ascii=False, allow_nan=False))


def settings_of(given: list[str] | None, known: Collection[str]) -> dict[str, Any]:
    """`--set NAME=VALUE` options, with one of the known names, as a dict.

    Values are read as YAML, so that 3, 0.5 and true are what they look like; who is given them checks them.
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

        found[name] = yaml.safe_load(text)
    return found


_data, _learning, _deciding = (partial(Option, rich_help_panel=panel) for panel in ("Data", "Learning", "Deciding"))
TextColumn = Annotated[str | None, _data(help="Column or key of the text.")]
LabelColumn = Annotated[str | None, _data(help="Column or key of the label; several as food+price.")]
_OF_ONE = "; PART=NAME, as dev=body, for one file."
TextColumns = Annotated[list[str] | None, _data(help=f"Column or key of the text{_OF_ONE}")]
LabelColumns = Annotated[list[str] | None, _data(help=f"Column or key of the label, several as food+price{_OF_ONE}")]
Separator = Annotated[str | None, _data(help="Between labels of a text, which has any number of them.")]
Delimiter = Annotated[str | None, _data(help="Between columns: , ; or tab.")]
FamilyOption = Annotated[str | None, _data(help="ner, classification, multilabel or qa, where the data does not tell.")]
BundleName = Annotated[str, Argument(help="A bundle's folder, or OWNER/NAME of the hub.")]


@app.command()
def fit(
    name: Annotated[str, Argument(help="The task's name.")],
    train: Annotated[str, Option(help="Labelled examples: a file, or hub:NAME@SPLIT.")],
    dev: Annotated[str | None, Option(help="Choose settings on these instead of by cross-validation.")] = None,
    test: Annotated[str | None, Option(help="Only scored.")] = None,
    model: Annotated[str | None, Option(help="A bundle, OWNER/NAME or an encoder; the default model else.")] = None,
    out: Annotated[Path | None, Option(help="The task's bundle; else --model if it is one, or bundles/NAME.")] = None,
    replace: Annotated[bool, Option("--replace", help="Replace a task of this name.")] = False,
    family: FamilyOption = None,
    text_column: TextColumns = None,
    label_column: LabelColumns = None,
    label_separator: Separator = None,
    delimiter: Delimiter = None,
    mode: Annotated[str, _learning(help="head (no torch), or with [train] lora or auto.")] = "head",
    seed: Annotated[int, _learning(min=0, max=2**32 - 1, help="Of the folds.")] = 0,
    class_weight: Annotated[str | None, _learning(help="balanced: every label counts alike.")] = None,
    precision: Annotated[float | None, _deciding(help="Share of right ones among what is said, 0 to 1.")] = None,
    other: Annotated[float | None, _deciding(help="Share of texts that may be none of the labels, as 0.05.")] = None,
    unlabelled: Annotated[Path | None, _deciding(help="Texts, some with none of the labels, as --train.")] = None,
    rank: Annotated[int | None, _learning(min=1, help="Of LoRA.")] = None,
    steps: Annotated[int | None, _learning(min=1, help="Of training LoRA.")] = None,
    settings: SetOption = None,
    html: Annotated[Path | None, Option(help="Write a page on heads from ever more of the labels here.")] = None,
    as_json: JsonFlag = False,
) -> None:
    """Learn a task from labelled examples and put it into a bundle.

    Example: trunkline fit intents --train train.csv --out support-bot
    """
    from trunkline.bundle.files import check_target, is_bundle
    from trunkline.model import load
    from trunkline.ui import print_fit

    source, target = _places(name, model, out)
    opened = load(source)
    check_target(target, opened.bundle.manifest, [name], replace)
    files = {"train": train, "dev": dev, "test": test}
    given = {"text_column": text_column, "label_column": label_column}
    columns = _columns((*files, "unlabelled"), **given, label_separator=label_separator, delimiter=delimiter)
    parts, found, notes = _parts(files, family, columns)
    named: dict[str, Any] = {"seed": seed, "class_weight": class_weight, "rank": rank, "steps": steps}
    named |= {"precision": precision, "other": other}
    named["unlabelled"] = unlabelled and _texts(unlabelled, columns["unlabelled"])
    lora = {key: value for key, value in named.items() if value is not None}
    lora |= settings_of(settings, ("targets", "rate", "batch", "dropout", "contrast"))
    if "targets" in lora:
        lora["targets"] = str(lora["targets"]).replace(" ", "").split(",")
    _check_page(html, replace)
    train_rows = parts.pop("train")
    report = opened.fit(name, train_rows, family=found, mode=mode, replace=replace, **parts, **lora)
    # Of a bundle that is there, only this task changes, wherever the model is from.
    folder = opened.save(target, tasks=[name] if is_bundle(target) else None, replace_tasks=replace)
    record = {**report.to_dict(), "bundle": str(folder)}
    record["warnings"] = [*notes, *record["warnings"]]
    print_json(record) if as_json else print_fit(record)
    if html is not None:
        from trunkline import curve

        found_curve = curve.learning_curve(opened, train_rows, family=found, seed=seed, class_weight=class_weight)
        _write_page(html, found_curve.held_out.to_dict(), curve=found_curve.to_dict(), title=f"{name} of {folder.name}")


@app.command()
def predict(
    bundle: BundleName,
    texts: Annotated[list[str] | None, Argument(help="Texts; without any, lines of stdin or --file.")] = None,
    file: Annotated[Path | None, Option(help="What `fit` reads, or .txt with a text a line.")] = None,
    task: Annotated[list[str] | None, Option(help="A task; repeatable; all by default.")] = None,
    top_k: Annotated[int | None, _deciding(min=1, help="Show the probabilities of so many labels.")] = None,
    min_score: Annotated[
        list[str] | None, _deciding(metavar="[TASK=]NUMBER", help="Say nothing that scores lower; repeatable.")
    ] = None,
    coverage: Annotated[float | None, _deciding(help="Give sets that hold the right label in this share.")] = None,
    text_column: TextColumn = None,
    delimiter: Delimiter = None,
    out: Annotated[Path | None, Option(help="Write JSON lines here, gzipped if it ends in .gz.")] = None,
    replace: Annotated[bool, Option("--replace", help="Replace the file of --out.")] = False,
    as_json: JsonFlag = False,
) -> None:
    """Run a bundle's tasks on texts.

    Example: trunkline predict support-bot "Where is my parcel?"
    """
    from trunkline.cli.given import least_scores, texts_of
    from trunkline.model import load
    from trunkline.ui import counted, print_predictions

    if out is not None:
        if file is not None and out.exists() and file.expanduser().exists() and out.samefile(file.expanduser()):
            raise TrunklineError(f"--out {out} is the file that is read", expected="another file")
        if out.is_file() and out.stat().st_size and not replace:
            raise TrunklineError(f"--out {out} is there and not empty", todo="Name another file, or add --replace")
    asked, kept = tee(texts_of(texts or [], file, text_column, delimiter))
    decisions: dict[str, Any] = {"top_k": top_k, "min_score": least_scores(min_score), "coverage": coverage}
    predictions = load(bundle).predict_iter((text for text, _ in asked), task or None, **decisions)
    pairs = zip(kept, predictions, strict=True)
    found = ({**other, "text": text, "tasks": prediction} for (text, other), prediction in pairs)
    if out is None and not as_json:
        print_predictions(found, chances=top_k is not None)
        return
    lines = (json.dumps(row, ensure_ascii=False, allow_nan=False) for row in found)
    if out is None:
        for line in lines:
            typer.echo(line)
        return
    from trunkline.bundle.files import check_writable, open_atomic

    check_writable(out)
    number, gz = 0, out.suffix.lower() == ".gz"
    with open_atomic(out) as plain, GzipFile("", "wb", 9, plain, 0) if gz else nullcontext(plain) as stream:
        for number, line in enumerate(counted(lines, "predicting"), start=1):  # noqa: B007
            stream.write(f"{line}\n".encode())
    typer.echo(f"{number} predictions in {out}")


def _texts(file: Path, columns: Mapping[str, str | None]) -> list[str]:
    from trunkline.data.stream import load_texts

    return [text for text, _ in load_texts(file, **{name: columns[name] for name in ("text_column", "delimiter")})]


@app.command()
def evaluate(
    bundle: BundleName,
    task: Annotated[str, Option(help="The task.")],
    data: Annotated[str, Option(help="Labelled examples, as for `fit --train`.")],
    text_column: TextColumn = None,
    label_column: LabelColumn = None,
    label_separator: Separator = None,
    delimiter: Delimiter = None,
    against: Annotated[str | None, Option(help="Compare with the task of another bundle.")] = None,
    against_task: Annotated[str | None, Option(help="Compare with a task of another name.")] = None,
    html: Annotated[Path | None, Option(help="Write a page with plots and wrong examples here.")] = None,
    replace: Annotated[bool, Option("--replace", help="Replace the file of --html.")] = False,
    as_json: JsonFlag = False,
) -> None:
    """Score a task on labelled examples: a row a label, what is confused, how far scores can be trusted, what is wrong.

    Example: trunkline evaluate support-bot --task intents --data test.csv --html report.html
    """
    from trunkline.engine.base import chosen_tasks
    from trunkline.model import load
    from trunkline.ui import print_evaluation

    opened = load(bundle)
    chosen_tasks([task], opened.tasks)
    columns = {"text_column": text_column, "label_column": label_column, "delimiter": delimiter}
    columns["label_separator"] = label_separator
    _check_page(html, replace)
    other, name = load(against) if against else opened, against_task or task
    chosen_tasks([name], other.tasks)
    if other.tasks[name] != opened.tasks[task]:
        raise TrunklineError(f"{name} is a task of {other.tasks[name]}", expected=opened.tasks[task])
    parts, _, notes = _parts({"data": data}, opened.tasks[task], {"data": columns})
    result = opened.evaluate(task, parts["data"])
    record, comparison = result.to_dict(), None
    record["warnings"] = [*notes, *record["warnings"]]
    if against or against_task:
        record["comparison"] = comparison = result.against(other.evaluate(name, parts["data"])).to_dict()
    print_json(record) if as_json else print_evaluation(record)
    if html is not None:
        _write_page(html, record, comparison)


def _check_page(html: Path | None, replace: bool) -> None:
    """Refuses a page that cannot be written, before anything is computed."""
    if html is not None:
        from trunkline.bundle.files import check_writable

        if html.is_dir() or (html.is_file() and html.stat().st_size and not replace):
            raise TrunklineError(f"--html {html} is there", todo="Name another file, or add --replace")
        check_writable(html)


def _write_page(html: Path, *records: Any, **more: Any) -> None:
    from trunkline.bundle.files import open_atomic
    from trunkline.results.page import page

    with open_atomic(html) as stream:
        stream.write(page(*records, **more).encode())
    typer.echo(f"page {html}", err=True)


def _places(name: str, model: str | None, out: Path | None) -> tuple[str | None, Path]:
    """What is opened and where the task goes."""
    from trunkline.bundle.files import is_bundle
    from trunkline.bundle.manifest import check_name

    check_name(name)
    if out is None:
        own = model is not None and is_bundle(Path(model).expanduser())
        out = Path(model) if own and model is not None else Path("bundles") / name
    out = out.expanduser()
    return model or (str(out) if is_bundle(out) else None), out


def _columns(parts: Collection[str], **given: list[str] | str | None) -> dict[str, dict[str, str | None]]:
    """The columns of each part: PART=NAME is for one alone, a name by itself for the others."""
    found: dict[str, dict[str, str | None]] = {part: {} for part in parts}
    for option, values in given.items():
        named: dict[str, str] = {}
        for value in [values] if isinstance(values, str) else values or ():
            own, sign, name = value.partition("=")
            own, name = (own, name) if sign and own in parts else ("", value)
            if (first := named.setdefault(own, name)) != name:
                flag = f"--{option.replace('_', '-')}"
                todo = f"Join columns of texts with --text-column {f'{first}+{name}'!r}"
                expected = f"one name, or PART=NAME for one of {', '.join(parts)}"
                raise TrunklineError(f"{flag} {first} and {flag} {name}", expected=expected, todo=todo)
        for part, columns in found.items():
            columns[option] = named.get(part, named.get(""))
    return found


def _parts(
    given: Mapping[str, str | None], family: str | None, columns: Mapping[str, Mapping[str, str | None]]
) -> tuple[dict[str, Sequence[object]], str, list[str]]:
    """The examples of files, their family, and what their readers left out or repaired."""
    from trunkline.data.load import read_examples

    parts: dict[str, Sequence[object]] = {}
    notes: list[str] = []
    for part, spec in given.items():
        if spec is not None:
            loaded = read_examples(spec, family, **columns[part])
            family, parts[part] = loaded.family, loaded.examples
            notes += [f"{spec}: {note}" for note in loaded.notes]
    return parts, family or "", notes


@app.command()
def check(
    train: Annotated[str | None, Option(help="Labelled examples, as for `fit`.")] = None,
    dev: Annotated[str | None, Option(help="As --train.")] = None,
    test: Annotated[str | None, Option(help="As --train.")] = None,
    family: FamilyOption = None,
    text_column: TextColumns = None,
    label_column: LabelColumns = None,
    label_separator: Separator = None,
    delimiter: Delimiter = None,
    full: Annotated[bool, Option("--full", help="Show notes, and some of the texts.")] = False,
    as_json: JsonFlag = False,
) -> None:
    """Check data for leaks, duplicates, conflicting and rare labels, and damage.

    The exit code is 1 if a text of dev or test is in train, a file has no example, or train teaches nothing.

    Example: trunkline check --train train.csv --test test.csv
    """
    from trunkline.data import checks
    from trunkline.ui import print_checks

    files = {"train": train, "dev": dev, "test": test}
    given = {"text_column": text_column, "label_column": label_column}
    columns = _columns(files, **given, label_separator=label_separator, delimiter=delimiter)
    report = checks.check(files, family, columns=columns)
    print_json(report) if as_json else print_checks(report, full=full)
    raise typer.Exit(checks.exit_code([report]))


@app.command()
def encoders(as_json: JsonFlag = False) -> None:
    """List the encoders that are usable here without a network.

    Example: trunkline encoders
    """
    from trunkline.encoder.resolve import usable_here
    from trunkline.ui import encoder_table

    rows = [{"name": item.name, "origin": item.origin, "folder": str(item.folder)} for item in usable_here()]
    print_json(rows) if as_json else encoder_table(rows)


@app.command()
def quickstart(
    out: Annotated[Path, Option(help="Folder of the bundles and of the run.")] = Path("runs/quickstart"),
) -> None:
    """Learn four tasks of the shipped sample, pre-finetune on it, learn them again, and show predictions.

    Example: trunkline quickstart
    """
    from trunkline.quickstart import quickstart as run

    run(out)
