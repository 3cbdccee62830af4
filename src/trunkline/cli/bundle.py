"""The commands on bundles: show, add, remove, sign, verify, convert, and PEFT adapters in and out."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Annotated, Any

import typer
from typer import Argument, Option

from trunkline.cli.tasks import JsonFlag, app, print_json
from trunkline.errors import TrunklineError, needs

bundle_app = typer.Typer(
    no_args_is_help=True,
    rich_markup_mode="markdown",
    help="Look at bundles, and change, sign, verify and convert them.",
)
app.add_typer(bundle_app, name="bundle")

BundleArgument = Annotated[Path, Argument(help="A bundle's folder.")]
SignOption = Annotated[Path | None, Option(help="File with an Ed25519 private key; signs the bundle again.")]
OutOption = Annotated[Path, Option(help="A new or empty folder.")]


@bundle_app.command("show")
def show(bundle: BundleArgument, as_json: JsonFlag = False) -> None:
    """Show what a bundle holds: encoder, engine, tasks with their scores, licences.

    Example: trunkline bundle show support-bot
    """
    from trunkline.bundle.files import describe_bundle
    from trunkline.ui import print_bundle

    record = describe_bundle(bundle.expanduser())
    print_json(record) if as_json else print_bundle(record)


@bundle_app.command("add")
def add(
    bundle: BundleArgument,
    name: Annotated[str, Argument(help="The task's name.")],
    file: Annotated[Path, Argument(help="A task's file, of a bundle of the same encoder.")],
    replace: Annotated[bool, Option("--replace", help="Replace a task of this name.")] = False,
    sign: SignOption = None,
) -> None:
    """Add a task's file to a bundle.

    Example: trunkline bundle add support-bot orders other-bot/tasks/orders.safetensors
    """
    from trunkline.bundle.edit import add_task

    after = add_task(bundle, name, file, replace=replace, key=_key(sign))
    typer.echo(f"{bundle.expanduser() / after.tasks[name].file}")


@bundle_app.command("remove")
def remove(
    bundle: BundleArgument, name: Annotated[str, Argument(help="The task's name.")], sign: SignOption = None
) -> None:
    """Take a task out of a bundle.

    Example: trunkline bundle remove support-bot orders
    """
    from trunkline.bundle.edit import remove_task

    after = remove_task(bundle, name, key=_key(sign))
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
    from trunkline.bundle.edit import sign_bundle
    from trunkline.bundle.files import new_private_key, public_half

    if key.exists() == new_key:
        raise TrunklineError(
            f"the key's file {key} is {'there already' if new_key else 'missing'}",
            todo="Leave --new-key out to sign with it" if new_key else "Check the name, or make a key with --new-key",
        )
    if new_key:
        made = new_private_key()
        key.touch(mode=0o600)
        key.write_text(made + "\n", encoding="ascii")
    private = _key(key) or b""
    sign_bundle(bundle, private)
    typer.echo(public_half(private))


@bundle_app.command("verify")
def verify(
    bundle: BundleArgument,
    public_key: Annotated[str | None, Option(help="Ed25519 public key in hexadecimal digits, or its file.")] = None,
) -> None:
    """Check every file of a bundle, and its signature if a key is given.

    Example: trunkline bundle verify support-bot
    """
    from trunkline.bundle.files import open_bundle
    from trunkline.engine.onnx import open_session

    key: Any = public_key
    if public_key is not None and not re.fullmatch("[0-9a-fA-F]{64}", public_key):
        key = _key(Path(public_key))
    opened = open_bundle(bundle, public_key=key)
    for graph in opened.graphs.values():
        open_session(graph)
    signed = ", signature good" if key is not None else ""
    typer.echo(f"{opened.manifest.name}: {len(opened.manifest.files)} files good{signed}")


@bundle_app.command("convert")
def convert(
    bundle: Annotated[Path, Argument(help="The folder of a bundle of an earlier format.")], out: OutOption
) -> None:
    """Make a bundle of this version's format out of one of an earlier one.

    Example: trunkline bundle convert old-bundle --out new-bundle
    """
    from trunkline.bundle.convert import convert_bundle

    typer.echo(f"{convert_bundle(bundle.expanduser(), out)}")


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


def _key(path: Path | None) -> bytes | None:
    from trunkline.bundle.tensors import read_file

    return None if path is None else read_file(path, 2**16)
