"""Whole bundles written, described and signed, and single tasks added and removed.

A signature (Ed25519, RFC 8032; extra `[sign]`) is over the manifest's bytes, which cover every other file by its
SHA-256. Keys are 32 bytes, as they are or as 64 hexadecimal digits.
"""

from __future__ import annotations

import dataclasses
import json
import os
import re
import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from trunkline.bundle.files import (
    LOCK,
    beside,
    change_tasks,
    changing,
    check_free,
    entry_of,
    file_problems,
    open_bundle,
    write_atomic,
    writing,
)
from trunkline.bundle.manifest import MANIFEST, SIGNATURE, Manifest, listed, parse_manifest, read_file
from trunkline.bundle.parts import read_primary
from trunkline.errors import DataError, MismatchError, TrunklineError, needs

ALGORITHM, MAX_SIGNATURE_BYTES = "ed25519", 2**16


def write_bundle(
    folder: Path, manifest: Manifest, files: Mapping[str, bytes | Path], tasks: Mapping[str, bytes] | None = None
) -> Manifest:
    """Writes a bundle into a new or empty folder, whole or not at all.

    Args:
        folder: The place.
        manifest: Names the bundle's graphs, checkpoint and adapters; what it says of files and tasks is replaced.
        files: Every file but the tasks', by its place in the bundle: its content, or where that is read.
        tasks: Tasks' files by name; those without LoRA must sit on one of the adapters.

    Returns:
        The manifest as it was written.

    Raises:
        TrunklineError: The folder is taken or cannot be written to.
        MismatchError: A part does not belong to this backbone.
    """
    bare = dataclasses.replace(manifest, tasks={}, files=dict.fromkeys(files, entry_of(b"not yet")))
    parse_manifest(bare.to_json(), folder / MANIFEST)
    with new_folder(folder) as temporary:
        entries = {}
        for file, part in files.items():
            content = part if isinstance(part, bytes) else part.read_bytes()
            write_atomic(temporary / file, content)
            entries[file] = entry_of(content)
        bare = dataclasses.replace(bare, files=entries)
        write_atomic(temporary / MANIFEST, bare.to_json())
        for family, file in bare.adapters.items():
            read_primary(temporary / file, bare, family)
        written = change_tasks(temporary, tasks or {})
        (temporary / LOCK).unlink()
    return written


@contextmanager
def new_folder(final: Path) -> Iterator[Path]:
    """A temporary folder beside `final` that takes its place when the block ends without an error.

    Raises TrunklineError if the place is taken by something else than an empty folder, or cannot be written to.
    """
    check_free(final)
    temporary = beside(final)
    with writing(final):
        temporary.mkdir(parents=True)
    try:
        yield temporary
        # Another process may have come first.
        check_free(final)
        with writing(final):
            # Elsewhere a folder takes the place of an empty one in one step, so that others never see it missing.
            if os.name == "nt" and final.is_dir():
                final.rmdir()
            temporary.rename(final)
    except BaseException:
        shutil.rmtree(temporary, ignore_errors=True)
        raise


def add_task(folder: str | Path, name: str, source: str | Path | bytes, *, replace: bool = False) -> Manifest:
    """Adds a task, by its file or bytes, to a bundle, or replaces it; result and errors as for `change_tasks`."""
    content = source if isinstance(source, bytes) else read_file(Path(source).expanduser())
    return change_tasks(folder, {name: content}, replace=(name,) if replace else ())


def describe_bundle(folder: Path) -> dict[str, Any]:
    """What a bundle holds, as plain data: its manifest's fields, and `folder`; errors as for `open_bundle`.

    Instead of files there are `bytes` in all, `engines` (what it can run on) and the `precision` of its graphs; of
    adapters there are the families; of tasks: family, labels, units, bytes, mode, examples, cross-validated scores.
    """
    bundle = open_bundle(folder, verify=False)
    manifest, tasks = bundle.manifest, {}
    for name, task in sorted(bundle.tasks.items()):
        said = {key: task.info.get(key) for key in ("mode", "examples")}
        said["scores"] = task.info.get("cross_validation", {}).get("scores")
        shown = {"family": task.family, "labels": task.types, "units": task.units, "lora": task.own_lora}
        tasks[name] = {**shown, "bytes": len(task.content), **said}
    record = dataclasses.asdict(manifest)
    return {
        **{key: record[key] for key in ("name", "trunkline", "encoder", "backbone", "licences", "info")},
        "folder": str(folder),
        "engines": [name for name, there in (("onnx", manifest.graphs), ("torch", manifest.checkpoint)) if there],
        "precision": manifest.weights["kind"],
        "bytes": sum(file.bytes for file in manifest.files.values()),
        "adapters": sorted(manifest.adapters),
        "tasks": tasks,
    }


def sign_bundle(folder: str | Path, key: str | bytes) -> Path:
    """Signs a bundle's manifest with a private key, after comparing every file with it.

    Raises:
        DataError: A file is not as the manifest says.
        TrunklineError: The key is none, or `cryptography` is not installed.
    """
    folder, private = Path(folder).expanduser(), _key(key, "private")
    with changing(folder) as manifest:
        problems = file_problems(folder, manifest)
        if problems:
            raise DataError(listed("a bundle that is not whole is not signed", problems), path=folder)
        signature = private.sign(read_file(folder / MANIFEST)).hex()
        record = {"algorithm": ALGORITHM, "public_key": public_half(key), "signature": signature}
        write_atomic(folder / SIGNATURE, json.dumps(record, indent=1, sort_keys=True) + "\n")
    return folder / SIGNATURE


def check_signature(folder: Path, content: bytes, public_key: str | bytes) -> None:
    """Checks that a manifest's bytes were signed with the private half of a key.

    Raises:
        MismatchError: They were not signed, or with another key, or were changed afterwards.
        TrunklineError: The key is none, or `cryptography` is not installed.
    """
    key, path = _key(public_key, "public"), folder / SIGNATURE
    from cryptography.exceptions import InvalidSignature

    if not path.exists():
        raise MismatchError(f"{folder} is not signed", expected=f"{SIGNATURE} beside the manifest")
    try:
        record = json.loads(read_file(path, MAX_SIGNATURE_BYTES))
        if record["algorithm"] != ALGORITHM:
            raise ValueError(f"the algorithm is {str(record['algorithm'])[:40]!r}")
        key.verify(bytes.fromhex(record["signature"]), content)
    except InvalidSignature as error:
        given = f"{folder}: the signature is not that of this manifest under the key given"
        expected = "a bundle signed by the owner of the key, and not changed since"
        todo = "Fetch the bundle again, from somewhere you trust"
        raise MismatchError(given, expected=expected, todo=todo) from error
    except (ValueError, KeyError, TypeError, RecursionError) as error:
        reason = " ".join(str(error).split())[:200]
        raise DataError(f"this is no signature ({reason})", path=path, expected=ALGORITHM) from error


def public_half(private_key: str | bytes) -> str:
    """The public key that belongs to a private one, as 64 hexadecimal digits."""
    return str(_key(private_key, "private").public_key().public_bytes_raw().hex())


def _key(given: str | bytes, half: str) -> Any:
    """The `private` or `public` key."""
    with needs("sign", "a signature"):
        from cryptography.hazmat.primitives.asymmetric import ed25519
    text = given.decode("latin-1") if isinstance(given, bytes) else given
    raw = bytes.fromhex(text) if re.fullmatch(r"\s*[0-9a-fA-F]{64}\s*", text) else given
    try:
        return getattr(getattr(ed25519, f"Ed25519{half.title()}Key"), f"from_{half}_bytes")(raw)
    except (ValueError, TypeError) as error:
        # The key itself stays out of the message.
        expected = f"an Ed25519 {half} key: 32 bytes or 64 hexadecimal digits"
        raise TrunklineError(f"the {half} key cannot be used", expected=expected) from error
