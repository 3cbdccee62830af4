"""The commands of the main job: fit, predict, evaluate."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

import typer

from trunkline.cli.base import JsonFlag, SetOption, app, print_json, settings_of, stdin_or_none
from trunkline.errors import TrunklineError

ModelOption = Annotated[
    str | None, typer.Option(help="A bundle's folder, OWNER/NAME of the hub, or an encoder; the default model else.")
]
TextColumn = Annotated[str | None, typer.Option(help="Column or key of the text.", rich_help_panel="Data")]
LabelColumn = Annotated[str | None, typer.Option(help="Column or key of the label.", rich_help_panel="Data")]
Delimiter = Annotated[str | None, typer.Option(help="Between columns: , ; or tab.", rich_help_panel="Data")]
FamilyOption = Annotated[
    str | None, typer.Option(help="ner, classification or qa, where the data does not tell.", rich_help_panel="Data")
]


@app.command()
def fit(
    name: Annotated[str, typer.Argument(help="The task's name.")],
    train: Annotated[str, typer.Option(help="Labelled examples: a file, or hub:NAME@SPLIT.")],
    dev: Annotated[str | None, typer.Option(help="Choose settings on these instead of by cross-validation.")] = None,
    test: Annotated[str | None, typer.Option(help="Only scored.")] = None,
    model: ModelOption = None,
    out: Annotated[
        Path | None, typer.Option(help="Bundle for the task, new or there; --model if it is one, else bundles/NAME.")
    ] = None,
    replace: Annotated[bool, typer.Option("--replace", help="Replace a task of this name.")] = False,
    family: FamilyOption = None,
    text_column: TextColumn = None,
    label_column: LabelColumn = None,
    delimiter: Delimiter = None,
    mode: Annotated[
        str,
        typer.Option(help="head (no torch), or with [train] lora or auto.", rich_help_panel="Learning"),
    ] = "head",
    seed: Annotated[int, typer.Option(min=0, max=2**32 - 1, help="Of the folds.", rich_help_panel="Learning")] = 0,
    rank: Annotated[int | None, typer.Option(min=1, help="Of LoRA.", rich_help_panel="Learning")] = None,
    steps: Annotated[int | None, typer.Option(min=1, help="Of training LoRA.", rich_help_panel="Learning")] = None,
    settings: SetOption = None,
    as_json: JsonFlag = False,
) -> None:
    """Learn a task from labelled examples and put it into a bundle.

    Example: trunkline fit intents --train train.csv --out support-bot
    """
    from trunkline.bundle.edit import check_target
    from trunkline.bundle.files import is_bundle
    from trunkline.model import load
    from trunkline.ui import print_fit

    source, target = _places(name, model, out)
    opened = load(source)
    check_target(target, opened.bundle.manifest, [name], replace)
    columns = {"text_column": text_column, "label_column": label_column, "delimiter": delimiter}
    parts, found = _parts({"train": train, "dev": dev, "test": test}, family, columns)
    lora = {key: value for key, value in (("seed", seed), ("rank", rank), ("steps", steps)) if value is not None}
    rarer = {"rate": 0.001, "batch": 16, "dropout": 0.1, "contrast": 1.0}
    lora |= settings_of(settings, rarer if mode != "head" else {})
    dev_part, test_part = parts.get("dev"), parts.get("test")
    report = opened.fit(
        name, parts["train"], family=found, mode=mode, dev=dev_part, test=test_part, replace=replace, **lora
    )
    # Of a bundle that is there, only this task changes, wherever the model is from.
    folder = opened.save(target, tasks=[name] if is_bundle(target) else None, replace_tasks=replace)
    record = {**report.to_dict(), "bundle": str(folder)}
    print_json(record) if as_json else print_fit(record)


@app.command()
def predict(
    bundle: Annotated[str, typer.Argument(help="A bundle's folder, or OWNER/NAME of the hub.")],
    texts: Annotated[list[str] | None, typer.Argument(help="Texts; without any, lines of stdin or --file.")] = None,
    file: Annotated[Path | None, typer.Option(help="What `fit` reads, or .txt with a text a line.")] = None,
    task: Annotated[list[str] | None, typer.Option(help="A task; repeatable; all by default.")] = None,
    text_column: TextColumn = None,
    delimiter: Delimiter = None,
    out: Annotated[Path | None, typer.Option(help="Write JSON lines here, as they come.")] = None,
    as_json: JsonFlag = False,
) -> None:
    """Run a bundle's tasks on texts.

    Example: trunkline predict support-bot "Where is my parcel?"
    """
    from trunkline.cli.predicting import predict_rows, rows_of, write_rows
    from trunkline.model import load

    rows = rows_of(texts or [], file, stdin_or_none(), text_column=text_column, delimiter=delimiter)
    found = predict_rows(load(bundle), rows, task or None)
    if out is not None:
        typer.echo(f"{write_rows(out, found)} predictions in {out}")
    elif as_json:
        import json

        for row in found:
            typer.echo(json.dumps(row, ensure_ascii=False, allow_nan=False))
    else:
        from trunkline.ui import print_predictions

        print_predictions(found)


@app.command()
def evaluate(
    bundle: Annotated[str, typer.Argument(help="A bundle's folder, or OWNER/NAME of the hub.")],
    task: Annotated[str, typer.Option(help="The task.")],
    data: Annotated[str, typer.Option(help="Labelled examples, as for `fit --train`.")],
    text_column: TextColumn = None,
    label_column: LabelColumn = None,
    delimiter: Delimiter = None,
    as_json: JsonFlag = False,
) -> None:
    """Score a task on labelled examples: overall, a row a label, what is confused, what is wrong.

    Example: trunkline evaluate support-bot --task intents --data test.csv
    """
    from trunkline.engine.base import chosen_tasks
    from trunkline.model import load
    from trunkline.ui import print_evaluation

    opened = load(bundle)
    chosen_tasks([task], opened.tasks)
    columns = {"text_column": text_column, "label_column": label_column, "delimiter": delimiter}
    parts, _ = _parts({"data": data}, opened.tasks[task], columns)
    record = opened.evaluate(task, parts["data"]).to_dict()
    print_json(record) if as_json else print_evaluation(record)


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


def _parts(
    given: dict[str, str | None], family: str | None, columns: dict[str, str | None]
) -> tuple[dict[str, Sequence[object]], str]:
    from trunkline.data.load import load_examples

    parts: dict[str, Sequence[object]] = {}
    for part, spec in given.items():
        if spec is not None:
            family, parts[part] = load_examples(spec, family, **columns)
    if family is None:
        raise TrunklineError("no data was named", expected="--train FILE")
    return parts, family
