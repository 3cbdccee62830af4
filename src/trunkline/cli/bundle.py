"""The commands on bundles: export, and show, add, remove, sign, verify, and PEFT adapters in and out."""

from __future__ import annotations

import re
import secrets
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Annotated, Any, Literal

import typer
from typer import Argument, Option

from trunkline.cli.tasks import (
    Delimiter,
    JsonFlag,
    LabelColumn,
    Separator,
    SetOption,
    TextColumn,
    app,
    print_json,
    settings_of,
)
from trunkline.errors import DataError, TrunklineError, needs

bundle_app = typer.Typer(
    no_args_is_help=True,
    rich_markup_mode="markdown",
    help="Look at bundles, and change, sign and verify them.",
)
app.add_typer(bundle_app, name="bundle")

BundleArgument = Annotated[Path, Argument(help="A bundle's folder.")]
OutOption = Annotated[Path, Option(help="A new or empty folder.")]


@bundle_app.command("show")
def show(bundle: BundleArgument, as_json: JsonFlag = False) -> None:
    """Show what a bundle holds: encoder, engine, tasks with their scores, licences.

    Example: trunkline bundle show support-bot
    """
    from trunkline.bundle.edit import describe_bundle
    from trunkline.ui import print_bundle

    record = describe_bundle(bundle.expanduser())
    print_json(record) if as_json else print_bundle(record)


@bundle_app.command("add")
def add(
    bundle: BundleArgument,
    name: Annotated[str, Argument(help="The task's name.")],
    file: Annotated[Path, Argument(help="A task's file, of a bundle of the same encoder.")],
    replace: Annotated[bool, Option("--replace", help="Replace a task of this name.")] = False,
) -> None:
    """Add a task's file to a bundle.

    Example: trunkline bundle add support-bot orders other-bot/tasks/orders.safetensors
    """
    from trunkline.bundle.edit import add_task

    after = add_task(bundle, name, file, replace=replace)
    typer.echo(f"{bundle.expanduser() / after.tasks[name].file}")


@bundle_app.command("remove")
def remove(bundle: BundleArgument, name: Annotated[str, Argument(help="The task's name.")]) -> None:
    """Take a task out of a bundle.

    Example: trunkline bundle remove support-bot orders
    """
    from trunkline.bundle.files import change_tasks

    after = change_tasks(bundle, {}, [name])
    typer.echo("left: " + (", ".join(sorted(after.tasks)) or "no tasks"))


@bundle_app.command("sign")
def sign_command(
    bundle: BundleArgument,
    key: Annotated[Path, Option(help="File with an Ed25519 private key.")],
    new_key: Annotated[bool, Option("--new-key", help="Make the key; the file must not be there yet.")] = False,
) -> None:
    """Sign a bundle; prints the public key that verifies it.

    Example: trunkline bundle sign support-bot --key private.key --new-key
    """
    from trunkline.bundle.edit import public_half, sign_bundle

    if key.exists() == new_key:
        raise TrunklineError(
            f"the key's file {key} is {'there already' if new_key else 'missing'}",
            todo="Leave --new-key out to sign with it" if new_key else "Check the name, or make a key with --new-key",
        )
    if new_key:
        key.touch(mode=0o600)
        # A private key is random bytes (RFC 8032, 5.1.5).
        key.write_text(secrets.token_hex(32) + "\n", encoding="ascii")
    private = _key(key)
    sign_bundle(bundle, private)
    typer.echo(public_half(private))


@bundle_app.command("verify")
def verify(
    bundle: BundleArgument,
    public_key: Annotated[str | None, Option(help="Ed25519 public key in hexadecimal digits, or its file.")] = None,
) -> None:
    """Check every file of a bundle, and its signature if a key is given; else say whether there is one.

    Example: trunkline bundle verify support-bot
    """
    from trunkline.bundle.files import open_bundle
    from trunkline.bundle.manifest import SIGNATURE
    from trunkline.engine.onnx import open_session

    key: Any = public_key
    if public_key is not None and not re.fullmatch("[0-9a-fA-F]{64}", public_key):
        try:
            key = _key(Path(public_key).expanduser())
        except DataError as error:
            raise TrunklineError(
                f"--public-key {error.given}", expected="64 hexadecimal digits or a file with them"
            ) from error
    opened = open_bundle(bundle, public_key=key)
    for graph in opened.graphs.values():
        open_session(graph)
    signed = "not signed"
    if (opened.folder / SIGNATURE).exists():
        signed = "signature good" if key is not None else "signed, check by whom with --public-key"
    typer.echo(f"{bundle}: {len(opened.manifest.files)} files good, {signed}")


@bundle_app.command("import-peft")
def import_peft_command(
    bundle: BundleArgument,
    family: Annotated[str, Argument(help="The family that the adapter is for.")],
    folder: Annotated[Path, Argument(help="The folder of a PEFT LoRA adapter of the bundle's encoder.")],
    out: OutOption,
) -> None:
    """Copy a bundle with a PEFT adapter as a family's primary adapter; needs the extra [train].

    Example: trunkline bundle import-peft base ner my-peft-adapter --out tuned
    """
    with needs("train", "bundle import-peft"):
        from trunkline.encoder.peft_format import with_peft
    typer.echo(f"{with_peft(bundle.expanduser(), family, folder, out)}")


@bundle_app.command("export-peft")
def export_peft_command(
    bundle: BundleArgument,
    family: Annotated[str, Argument(help="The family whose primary adapter is written.")],
    out: OutOption,
) -> None:
    """Write a family's primary adapter as PEFT reads it; needs the extra [train].

    Example: trunkline bundle export-peft tuned ner --out my-peft-adapter
    """
    with needs("train", "bundle export-peft"):
        from trunkline.encoder.peft_format import primary_to_peft
    typer.echo(f"{primary_to_peft(bundle.expanduser(), family, out)}")


def _key(path: Path) -> bytes:
    from trunkline.bundle.manifest import read_file

    return read_file(path, 2**16)


_gate, _graphs = (partial(Option, rich_help_panel=panel) for panel in ("Gate", "Graphs"))
Dev = Annotated[
    list[str] | None, _gate(metavar="NAME=FILE", help="Examples that a task was not fitted on; repeatable.")
]
Gate = Annotated[bool, _gate("--gate/--no-gate", help="Refuse weights that cost a task too much.")]
Drop = Annotated[float, _gate(min=0, help="Points of a hundred that a task's score may drop.")]
Variants = Annotated[list[str] | None, _graphs("--variant", help="required: for browsers; bank: for mixed batches.")]
Pieces = Annotated[int | None, _graphs(min=1, help="Keep this many pieces of the vocabulary, by --texts.")]


@app.command()
def export(
    source: Annotated[str, Argument(help="The folder of a bundle with weights for torch, or an encoder.")],
    out: Annotated[Path, Option(help="A new or empty folder.")],
    weights: Annotated[Literal["float32", "int8", "int4"], Option(help="How weights are stored.")] = "float32",
    task: Annotated[list[str] | None, Option(help="Only this task; repeatable.")] = None,
    name: Annotated[str, Option(help="The bundle's name; that of the source's folder else.")] = "",
    texts: Annotated[Path | None, Option(help="Texts as `predict` reads them; the samples' else.")] = None,
    dev: Dev = None,
    text_column: TextColumn = None,
    label_column: LabelColumn = None,
    label_separator: Separator = None,
    delimiter: Delimiter = None,
    gate: Gate = True,
    max_drop: Drop = 0.5,
    variant: Variants = None,
    vocabulary: Pieces = None,
    settings: SetOption = None,
    as_json: JsonFlag = False,
) -> None:
    """Write what devices run: graphs, adapters and tasks, compared with torch; needs the extra [train].

    Weights of 8 or 4 bits are judged by the tasks' scores on --dev. A rarer setting: lora_targets=qkv,out,up,down, for
    the LoRA of tasks that are added later.

    Example: trunkline export support-bot --weights int8 --dev intents=dev.csv --out deployed
    """
    from trunkline.data.stream import load_texts

    with needs("train", "export"):
        from trunkline.export.bundle import ExportOptions, export_bundle
    targets = str(settings_of(settings, ("lora_targets",)).get("lora_targets", ""))
    columns = {"text_column": text_column, "label_column": label_column, "delimiter": delimiter}
    columns["label_separator"] = label_separator
    read = load_texts(texts, text_column=text_column, delimiter=delimiter) if texts is not None else ()
    options = ExportOptions(
        name=name,
        weights=weights,
        variants=tuple(variant or ()),  # type: ignore[arg-type]  # checked by the options
        lora_targets=tuple(filter(None, targets.split(","))),
        tasks=tuple(task) if task else None,
        texts=tuple(text for text, _ in read),
        vocabulary=vocabulary,
        examples=_examples(source, dev or (), columns),
        gate=gate,
        max_drop=max_drop,
    )
    record = export_bundle(source, out, options)
    print_json(record) if as_json else typer.echo(_said(record, out))


def _examples(source: str, given: Sequence[str], columns: dict[str, str | None]) -> dict[str, Any]:
    """Task -> examples; refused before anything is loaded where the bundle has no such task."""
    from trunkline.bundle.files import read_manifest
    from trunkline.data.load import load_examples

    found: dict[str, Any] = {}
    for pair in given:
        name, equals, place = pair.partition("=")
        if not (name and equals and place) or name in found:
            raise TrunklineError(f"--dev {pair}", expected="--dev NAME=FILE, each name once")
        tasks = read_manifest(Path(source).expanduser()).tasks
        if name not in tasks:
            raise TrunklineError(f"--dev {name}", expected="a task of the bundle: " + (", ".join(tasks) or "(none)"))
        found[name] = load_examples(place, tasks[name].family, **columns)[1]
    return found


def _said(record: dict[str, Any], out: Path) -> str:
    from trunkline.export.parity import task_line

    lines = [f"{file}: {size} bytes" for file, size in record["files"].items()]
    for graph, found in record.get("parity", {}).items():
        said = ", ".join(
            f"{key.replace('_', ' ')} {value:.3g}" for key, value in found.items() if isinstance(value, float)
        )
        lines.append(f"{graph} beside torch, {found['runs']} runs with {', '.join(found['adapters'])}: {said}")
    for name, row in ((record.get("gate") or {}).get("tasks", {})).items():
        lines.append(task_line(name, row))
    return "\n".join([*lines, f"{record['bytes'] / 1e6:.2f} MB in {out}"])
