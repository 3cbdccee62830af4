"""Bundles written and changed: a crash at any moment leaves a whole bundle, and of several writers none loses a task.

Files are never written over: another content comes under another name, the manifest that names it replaces the old
one in one step, and only then goes what nothing names any more. Whoever changes a bundle holds its lock.
"""

from __future__ import annotations

import dataclasses
import hashlib
import itertools
import os
import shutil
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from trunkline.atomic import check_free, check_writable, locked, new_folder, unwritable, write_atomic
from trunkline.bundle.files import file_problems, is_bundle, listed, read_manifest, sign
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
from trunkline.bundle.tensors import read_file
from trunkline.errors import DataError, MismatchError, TrunklineError

_CHECKPOINT = {"config": "encoder/config.json", "weights": "encoder/model.safetensors"}

Source = bytes | Path
"""A file's content, or a file that is copied."""


@dataclass(frozen=True)
class Parts:
    """What goes into a bundle, as in `Manifest`; tasks without LoRA must sit on one of `adapters`."""

    tokenizer: Source
    graphs: Mapping[str, Source] = field(default_factory=dict)
    checkpoint: Mapping[str, Source] = field(default_factory=dict)
    adapters: Mapping[str, bytes] = field(default_factory=dict)
    tasks: Mapping[str, bytes] = field(default_factory=dict)


def write_bundle(folder: Path, manifest: Manifest, parts: Parts, key: str | bytes | None = None) -> Manifest:
    """Writes a bundle into a new or empty folder, whole or not at all; returns the manifest as it was written.

    What the manifest says of files is replaced; `key` is an Ed25519 private key that signs the bundle.

    Raises:
        TrunklineError: The folder is taken or cannot be written to.
        MismatchError: A part does not belong to this backbone.
    """
    graphs = {part: f"graphs/{part}.onnx" for part in parts.graphs}
    checkpoint = {part: _CHECKPOINT[part] for part in parts.checkpoint}
    adapters = {check_name(family): _adapter_file(family) for family in parts.adapters}
    named: dict[str, Source] = {TOKENIZER: parts.tokenizer}
    for places, sources in ((graphs, parts.graphs), (checkpoint, parts.checkpoint), (adapters, parts.adapters)):
        named |= {places[part]: source for part, source in sources.items()}
    tasks: dict[str, str] = {}
    for name, content in parts.tasks.items():
        taken = dict.fromkeys(named, FileEntry("", 0))
        tasks[check_name(name)] = file = _free_name(taken, name, _entry(content), None)
        named[file] = content
    with new_folder(folder) as temporary:
        files = {file: _put(temporary / file, source) for file, source in named.items()}
        written = dataclasses.replace(
            manifest, graphs=graphs, checkpoint=checkpoint, adapters=adapters, tasks={}, files=files
        )
        for family, file in adapters.items():
            read_primary(temporary / file, written, family)
        families = {name: read_task(temporary / file, written, name).family for name, file in tasks.items()}
        entries = {name: TaskEntry(families[name], file) for name, file in tasks.items()}
        written = dataclasses.replace(written, tasks=entries)
        content = written.to_json()
        parse_manifest(content, folder / MANIFEST)
        write_atomic(temporary / MANIFEST, content)
        if key is not None:
            write_atomic(temporary / SIGNATURE, sign(content, key))
    return written


def with_primaries(manifest: Manifest, adapters: Mapping[str, bytes]) -> Manifest:
    """A manifest that names primary adapters as `write_bundle` will, so that tasks can be written that sit on them."""
    places = {family: _adapter_file(family) for family in adapters}
    files = {places[family]: _entry(content) for family, content in adapters.items()}
    return dataclasses.replace(manifest, adapters=places, files={**manifest.files, **files})


def _adapter_file(family: str) -> str:
    return f"adapters/{family}.safetensors"


def add_task(
    folder: str | Path, name: str, source: str | Path | bytes, *, replace: bool = False, key: str | bytes | None = None
) -> Manifest:
    """Adds a task, by its file or bytes, to a bundle, or replaces it; returns the bundle's manifest.

    `key` is an Ed25519 private key that signs the bundle again; without it a signature goes, as it would be wrong.

    Raises:
        TrunklineError: There is such a task already, or the name is none.
        DataError: A file is damaged.
        MismatchError: The task belongs to another backbone or primary adapter, or does not fit the encoder.
    """
    content = source if isinstance(source, bytes) else read_file(Path(source).expanduser(), MAX_ADAPTER_BYTES)
    return change_tasks(folder, {name: content}, replace=(name,) if replace else (), key=key)


def remove_task(folder: str | Path, name: str, *, key: str | bytes | None = None) -> Manifest:
    """Takes a task out of a bundle; arguments and errors as for `add_task`."""
    return change_tasks(folder, {}, (name,), key=key)


def change_tasks(
    folder: str | Path,
    added: Mapping[str, bytes],
    removed: Collection[str] = (),
    *,
    replace: Collection[str] = (),
    key: str | bytes | None = None,
) -> Manifest:
    """Adds and removes tasks in one step, all of them or none; key, results and errors as for `add_task`.

    One that is there already with the bytes that are added stays; those of `replace` may be there with others.
    """
    path = _existing(folder)
    with locked(path):
        before = read_manifest(path)
        _check_names(path, before, added, removed, replace)
        kept = {name: task for name, task in before.tasks.items() if name not in removed and name not in added}
        without = dataclasses.replace(before, tasks=kept)
        families = {name: read_task(content, without, name).family for name, content in added.items()}
        tasks, new = dict(before.tasks), dict[str, FileEntry]()
        for name in removed:
            del tasks[name]
        for name, content in added.items():
            entry = _entry(content)
            file = _free_name({**before.files, **new}, name, entry, before.tasks.get(name))
            tasks[name], new[file] = TaskEntry(families[name], file), entry
        old, used = ({task.file for task in part.values()} for part in (before.tasks, tasks))
        files = {file: entry for file, entry in {**before.files, **new}.items() if file in used or file not in old}
        after = dataclasses.replace(before, tasks=tasks, files=files)
        contents = {tasks[name].file: content for name, content in added.items()}
        _replace_manifest(path, before, after, contents, key)
    return after


def check_target(folder: Path, manifest: Manifest, names: Collection[str], replace: bool = False) -> None:
    """Raises TrunklineError unless tasks of these names can be saved here: asked before long work.

    `folder` is a bundle, or where a new one is to be; `manifest` is of the model that the tasks are fitted on.
    """
    if not is_bundle(folder):
        check_free(folder)
        return
    there = read_manifest(folder)
    check_backbone(folder, there, manifest)
    _check_names(folder, there, dict.fromkeys(names, b""), (), names if replace else ())
    check_writable(folder / MANIFEST)
    check_writable(folder / "tasks" / "task.safetensors")


def check_backbone(folder: Path, there: Manifest, manifest: Manifest) -> None:
    """Raises MismatchError unless two bundles have one encoder; `there` is the manifest of `folder`."""
    if there.backbone != manifest.backbone:
        raise MismatchError(
            f"{folder} is a bundle of backbone {there.backbone[:12]}",
            expected=f"a new folder, or a bundle of {manifest.backbone[:12]}",
            todo="Choose another folder",
        )


def _check_names(
    folder: Path, before: Manifest, added: Mapping[str, bytes], removed: Collection[str], replace: Collection[str]
) -> None:
    for name, content in added.items():
        check_name(name)
        task = before.tasks.get(name)
        if task is not None and name not in replace and before.files[task.file] != _entry(content):
            raise TrunklineError(
                f"{folder} has a task {name} already",
                todo="Replace it with `--replace` (replace=True), or take another name",
            )
    for name in removed:
        if name not in before.tasks:
            raise TrunklineError(
                f"{folder} has no task {name}", expected="one of " + (", ".join(sorted(before.tasks)) or "(none)")
            )


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


def _free_name(files: Mapping[str, FileEntry], name: str, entry: FileEntry, now: TaskEntry | None) -> str:
    """Where a task's file goes: where it lies already if the content is the same, otherwise where nothing is named."""
    if now is not None and files[now.file] == entry:
        return now.file
    taken = {file.lower() for file in files}
    # A name may be as long as a part of a path, which must hold the rest besides.
    marked = (f"tasks/{name[:80]}.{entry.sha256[:16]}{n or ''}.safetensors" for n in itertools.count())
    return next(file for file in itertools.chain((f"tasks/{name}.safetensors",), marked) if file.lower() not in taken)


def _replace_manifest(
    folder: Path, before: Manifest, after: Manifest, contents: Mapping[str, bytes], key: str | bytes | None
) -> None:
    """Writes new files and then the manifest, or takes back the files; in the end goes what nothing names any more."""
    content = after.to_json()
    parse_manifest(content, folder / MANIFEST)
    signature = sign(content, key) if key is not None else None
    try:
        for file in after.files.keys() - before.files.keys():
            write_atomic(folder / file, contents[file])
        (folder / SIGNATURE).unlink(missing_ok=True)
        write_atomic(folder / MANIFEST, content)
    except OSError as error:
        for file in after.files.keys() - before.files.keys():
            (folder / file).unlink(missing_ok=True)
        raise unwritable(folder, error) from error
    if signature is not None:
        write_atomic(folder / SIGNATURE, signature)
    for file in before.files.keys() - after.files.keys():
        (folder / file).unlink(missing_ok=True)
    # Only whoever holds the lock writes here, so what is half done was left by a process that was killed.
    for left in (*folder.glob(".*.part"), *folder.glob("tasks/.*.part")):
        left.unlink(missing_ok=True)
