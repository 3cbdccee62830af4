"""Bundles written and changed: a crash at any moment leaves a whole bundle, and of several writers none loses a task.

Files are never written over: another content comes under another name, the manifest that names it replaces the old
one in one step, and only then goes what nothing names any more. Whoever changes a bundle holds its lock.
"""

from __future__ import annotations

import dataclasses
import hashlib
import os
import shutil
from collections.abc import Mapping
from pathlib import Path

from trunkline.atomic import locked, new_folder, write_atomic
from trunkline.bundle.files import file_problems, listed, read_manifest
from trunkline.bundle.manifest import (
    MANIFEST,
    MAX_ADAPTER_BYTES,
    MAX_MANIFEST_BYTES,
    SIGNATURE,
    TOKENIZER,
    FileEntry,
    Manifest,
    TaskEntry,
    check_name,
    parse_manifest,
)
from trunkline.bundle.parts import read_primary, read_task
from trunkline.bundle.signature import sign
from trunkline.bundle.tensors import read_file
from trunkline.errors import DataError, TrunklineError

Source = bytes | Path
"""A file's content, or a file that is copied."""


def write_bundle(
    folder: Path,
    manifest: Manifest,
    *,
    tokenizer: Source,
    graphs: Mapping[str, Source] | None = None,
    checkpoint: Mapping[str, Source] | None = None,
    adapters: Mapping[str, bytes] | None = None,
    tasks: Mapping[str, bytes] | None = None,
    key: str | bytes | None = None,
) -> Manifest:
    """Writes a new bundle, which is there whole or not at all.

    Args:
        folder: A new or empty folder.
        manifest: Name, encoder, backbone, weights, slots, licences and info; what it says of files is replaced.
        tokenizer: tokenizer.json.
        graphs: `trunk`, `branch` and variants -> ONNX file.
        checkpoint: `config` (config.json) and `weights` (model.safetensors) for torch.
        adapters: Family -> bytes from `primary_bytes`.
        tasks: Name -> bytes from `task_bytes`; tasks without LoRA must sit on one of `adapters`.
        key: An Ed25519 private key that signs the bundle.

    Returns:
        The manifest as it was written.

    Raises:
        TrunklineError: The folder is taken or cannot be written to.
        MismatchError: A part does not belong to this backbone.
    """
    graphs, checkpoint = dict(graphs or {}), dict(checkpoint or {})
    places = {"config": "encoder/config.json", "weights": "encoder/model.safetensors"}
    named: dict[str, Source] = {TOKENIZER: tokenizer}
    named |= {f"graphs/{part}.onnx": source for part, source in graphs.items()}
    named |= {places[part]: source for part, source in checkpoint.items()}
    named |= {f"adapters/{check_name(family)}.safetensors": source for family, source in (adapters or {}).items()}
    named |= {f"tasks/{check_name(name)}.safetensors": source for name, source in (tasks or {}).items()}
    with new_folder(folder) as temporary:
        files = {file: _put(temporary / file, source) for file, source in named.items()}
        written = dataclasses.replace(
            manifest,
            graphs={part: f"graphs/{part}.onnx" for part in graphs},
            checkpoint={part: places[part] for part in checkpoint},
            adapters={family: f"adapters/{family}.safetensors" for family in adapters or {}},
            tasks={},
            files=files,
        )
        for family, file in written.adapters.items():
            read_primary(temporary / file, written, family)
        entries = {
            name: TaskEntry(read_task(temporary / f"tasks/{name}.safetensors", written, name).family, file)
            for name in tasks or {}
            for file in [f"tasks/{name}.safetensors"]
        }
        written = dataclasses.replace(written, tasks=entries)
        content = written.to_json()
        parse_manifest(content, folder / MANIFEST)
        write_atomic(temporary / MANIFEST, content)
        if key is not None:
            write_atomic(temporary / SIGNATURE, sign(content, key))
    return written


def with_primaries(manifest: Manifest, adapters: Mapping[str, bytes]) -> Manifest:
    """A manifest that names primary adapters as `write_bundle` will, so that tasks can be written that sit on them."""
    files = {f"adapters/{family}.safetensors": _entry(content) for family, content in adapters.items()}
    places = {family: f"adapters/{family}.safetensors" for family in adapters}
    return dataclasses.replace(manifest, adapters=places, files={**manifest.files, **files})


def add_task(
    folder: str | Path, name: str, source: str | Path | bytes, *, replace: bool = False, key: str | bytes | None = None
) -> Manifest:
    """Adds a task to a bundle, or replaces it.

    Args:
        folder: The bundle.
        name: The task's name.
        source: A task's file, or its bytes.
        replace: Whether a task of this name may be there already.
        key: An Ed25519 private key that signs the bundle again; without it a signature goes, as it would be wrong.

    Returns:
        The bundle's manifest.

    Raises:
        TrunklineError: There is such a task already, or the name is none.
        DataError: A file is damaged.
        MismatchError: The task belongs to another backbone or primary adapter, or does not fit the encoder.
    """
    folder = _existing(folder)
    check_name(name)
    content = source if isinstance(source, bytes) else read_file(Path(source), MAX_ADAPTER_BYTES)
    with locked(folder):
        before = read_manifest(folder)
        if name in before.tasks and not replace:
            raise TrunklineError(
                f"{folder} has a task {name} already", todo="Replace it with `--replace`, or take another name"
            )
        without = dataclasses.replace(before, tasks={key: task for key, task in before.tasks.items() if key != name})
        task = read_task(content, without, name)
        digest = hashlib.sha256(content).hexdigest()
        file = _free_name(folder, before, name, digest)
        write_atomic(folder / file, content)
        after = _with_files(
            before,
            {**without.tasks, name: TaskEntry(task.family, file)},
            {file: _entry(content)},
        )
        _replace_manifest(folder, before, after, key)
    return after


def remove_task(folder: str | Path, name: str, *, key: str | bytes | None = None) -> Manifest:
    """Takes a task out of a bundle; arguments and errors as for `add_task`."""
    folder = _existing(folder)
    with locked(folder):
        before = read_manifest(folder)
        if name not in before.tasks:
            raise TrunklineError(
                f"{folder} has no task {name}", expected="one of " + (", ".join(sorted(before.tasks)) or "(none)")
            )
        after = _with_files(before, {key: task for key, task in before.tasks.items() if key != name}, {})
        _replace_manifest(folder, before, after, key)
    return after


def sign_bundle(folder: str | Path, key: str | bytes) -> Path:
    """Signs a bundle's manifest with an Ed25519 private key, after comparing every file with it.

    Raises:
        DataError: A file is not as the manifest says.
        TrunklineError: The key is none, or `cryptography` is not installed.
    """
    folder = _existing(folder)
    with locked(folder):
        problems = file_problems(folder, read_manifest(folder))
        if problems:
            raise DataError(listed("a bundle that is not whole is not signed", problems), path=folder)
        write_atomic(folder / SIGNATURE, sign(read_file(folder / MANIFEST, MAX_MANIFEST_BYTES), key))
    return folder / SIGNATURE


def _existing(folder: str | Path) -> Path:
    path = Path(folder).expanduser()
    read_manifest(path)
    return path


def _put(path: Path, source: Source) -> FileEntry:
    if isinstance(source, bytes):
        write_atomic(path, source)
        return _entry(source)
    path.parent.mkdir(parents=True, exist_ok=True)
    shutil.copyfile(source, path)
    with path.open("rb") as stream:
        digest = hashlib.file_digest(stream, "sha256").hexdigest()
        os.fsync(stream.fileno())
    return FileEntry(digest, path.stat().st_size)


def _entry(content: bytes) -> FileEntry:
    return FileEntry(hashlib.sha256(content).hexdigest(), len(content))


def _free_name(folder: Path, manifest: Manifest, name: str, digest: str) -> str:
    """Where a task's file goes: where it lies already if the content is the same, otherwise where nothing is named."""
    now = manifest.tasks[name].file if name in manifest.tasks else None
    if now is not None and manifest.files[now].sha256 == digest:
        return now
    plain = f"tasks/{name}.safetensors"
    named = manifest.files.get(plain)
    taken = {file.lower() for file in manifest.files if file != plain}
    if named is None and plain.lower() not in taken:
        return plain
    return f"tasks/{name}.{digest[:16]}.safetensors"


def _with_files(manifest: Manifest, tasks: dict[str, TaskEntry], new: dict[str, FileEntry]) -> Manifest:
    """A manifest with other tasks, and without the files that only they named."""
    old, used = ({task.file for task in part.values()} for part in (manifest.tasks, tasks))
    files = {file: entry for file, entry in {**manifest.files, **new}.items() if file in used or file not in old}
    return dataclasses.replace(manifest, tasks=tasks, files=files)


def _replace_manifest(folder: Path, before: Manifest, after: Manifest, key: str | bytes | None) -> None:
    """Writes the manifest, or takes back the files that it would have named; then goes what nothing names."""
    try:
        content = after.to_json()
        parse_manifest(content, folder / MANIFEST)
        signature = sign(content, key) if key is not None else None
        (folder / SIGNATURE).unlink(missing_ok=True)
        write_atomic(folder / MANIFEST, content)
    except (TrunklineError, OSError):
        for file in after.files.keys() - before.files.keys():
            (folder / file).unlink(missing_ok=True)
        raise
    if signature is not None:
        write_atomic(folder / SIGNATURE, signature)
    for file in before.files.keys() - after.files.keys():
        (folder / file).unlink(missing_ok=True)
