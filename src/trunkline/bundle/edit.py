"""Tasks in and out of a deployed bundle. The graphs are not touched, and a crash at any moment leaves a whole bundle.

Files are never written over: another content comes under another name, the manifest that names it replaces the old
one in one step, and only then goes what nothing names any more.
"""

from __future__ import annotations

import dataclasses
import hashlib
from pathlib import Path

from trunkline.atomic import write_atomic
from trunkline.bundle.files import file_problems, listed, read_manifest, read_task
from trunkline.bundle.manifest import (
    MANIFEST,
    MAX_ADAPTER_BYTES,
    MAX_MANIFEST_BYTES,
    SIGNATURE,
    FileEntry,
    Manifest,
    TaskEntry,
    check_name,
    parse_manifest,
)
from trunkline.bundle.signature import sign
from trunkline.bundle.tensors import read_file
from trunkline.errors import DataError, MismatchError, TrunklineError


def add_task(
    folder: str | Path, name: str, source: str | Path | bytes, *, replace: bool = False, key: str | bytes | None = None
) -> Manifest:
    """Adds a task to a bundle, or replaces it.

    Args:
        folder: The bundle.
        name: The task's name.
        source: A task's file of a deployed bundle, or its bytes.
        replace: Whether a task of this name may be there already.
        key: An Ed25519 private key that signs the bundle again; without it a signature goes, as it would be wrong.

    Returns:
        The bundle's manifest.

    Raises:
        TrunklineError: There is such a task already, or the name is none.
        DataError: A file is damaged.
        MismatchError: The task belongs to another backbone or primary adapter, or does not fit the graphs.
    """
    folder, before = _opened(folder)
    check_name(name)
    if name in before.tasks and not replace:
        raise TrunklineError(
            f"{folder} has a task {name} already", todo="Update it with `--replace`, or take another name"
        )
    content = source if isinstance(source, bytes) else read_file(Path(source), MAX_ADAPTER_BYTES)
    digest = hashlib.sha256(content).hexdigest()
    file = _free_name(folder, before, name, digest)
    without = dataclasses.replace(before, tasks={key: task for key, task in before.tasks.items() if key != name})
    fresh = not (folder / file).exists()
    try:
        write_atomic(folder / file, content)
        task = read_task(folder / file, without, name)
        tasks = {**without.tasks, name: TaskEntry(task.family, file)}
        after = _with_files(before, tasks, {file: FileEntry(digest, len(content))})
        _replace_manifest(folder, before, after, key)
    except (TrunklineError, OSError):
        if fresh and not _names(folder, file):
            (folder / file).unlink(missing_ok=True)
        raise
    _clean(folder, before, after)
    return after


def remove_task(folder: str | Path, name: str, *, key: str | bytes | None = None) -> Manifest:
    """Takes a task out of a bundle; arguments and errors as for `add_task`."""
    folder, before = _opened(folder)
    if name not in before.tasks:
        raise TrunklineError(
            f"{folder} has no task {name}", expected="one of " + (", ".join(sorted(before.tasks)) or "(none)")
        )
    after = _with_files(before, {key: task for key, task in before.tasks.items() if key != name}, {})
    _replace_manifest(folder, before, after, key)
    _clean(folder, before, after)
    return after


def sign_bundle(folder: str | Path, key: str | bytes) -> Path:
    """Signs a bundle's manifest with an Ed25519 private key, after comparing every file with it.

    Raises:
        DataError: A file is not as the manifest says.
        TrunklineError: The key is none, or `cryptography` is not installed.
    """
    folder, manifest = _opened(folder)
    problems = file_problems(folder, manifest)
    if problems:
        raise DataError(listed("a bundle that is not whole is not signed", problems), path=folder)
    write_atomic(folder / SIGNATURE, sign(read_file(folder / MANIFEST, MAX_MANIFEST_BYTES), key))
    return folder / SIGNATURE


def _opened(folder: str | Path) -> tuple[Path, Manifest]:
    path = Path(folder).expanduser()
    return path, read_manifest(path)


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
    content = after.to_json()
    parse_manifest(content, folder / MANIFEST)
    signature = sign(content, key) if key is not None else None
    # Whoever changed the bundle in between would lose what they added.
    if read_manifest(folder) != before:
        raise MismatchError(f"{folder} was changed by somebody else meanwhile", todo="Run the command again")
    (folder / SIGNATURE).unlink(missing_ok=True)
    write_atomic(folder / MANIFEST, content)
    if signature is not None:
        write_atomic(folder / SIGNATURE, signature)


def _names(folder: Path, file: str) -> bool:
    return file in read_manifest(folder).files


def _clean(folder: Path, before: Manifest, after: Manifest) -> None:
    for file in before.files.keys() - after.files.keys():
        (folder / file).unlink(missing_ok=True)
