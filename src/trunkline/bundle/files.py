"""A bundle's folder: opened, checked, and changed so that readers, crashes and other writers see it before or after.

Files are never written over: another content comes under another name, the manifest that names it replaces the old
one in one step, and only then goes what nothing names any more. Whoever changes a bundle holds its lock, so that of
several writers none loses a task.
"""

from __future__ import annotations

import dataclasses
import hashlib
import itertools
import logging
import os
import secrets
import tempfile
from collections.abc import Collection, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import IO

from trunkline.bundle.manifest import (
    AGAIN,
    MANIFEST,
    MAX_MANIFEST_BYTES,
    SIGNATURE,
    TOKENIZER,
    FileEntry,
    Inputs,
    Manifest,
    TaskEntry,
    branch_of,
    check_name,
    listed,
    open_plain,
    parse_manifest,
    read_file,
)
from trunkline.bundle.parts import PrimaryAdapter, Task, read_primary, read_task
from trunkline.errors import DataError, MismatchError, TrunklineError

log = logging.getLogger(__name__)

LOCK = ".trunkline.lock"


@dataclass(frozen=True, slots=True)
class Bundle:
    """An open bundle: where it lies, what it holds, primary adapters by family, and tasks by name."""

    folder: Path
    manifest: Manifest
    primaries: Mapping[str, PrimaryAdapter]
    tasks: Mapping[str, Task]

    @property
    def tokenizer(self) -> Path:
        """The tokenizer's file."""
        return self.folder / TOKENIZER

    @property
    def graphs(self) -> dict[str, Path]:
        """The graphs' files: `trunk`, `branch` and the variants."""
        return {name: self.folder / file for name, file in self.manifest.graphs.items()}

    def inputs(self, name: str) -> Inputs:
        """The inputs of the branch graph for a task: its head, and LoRA of its own or of its family."""
        task = self.tasks[name]
        primary = self.primaries.get(branch_of(task.family))
        return {**({} if task.own_lora or primary is None else primary.inputs), **task.inputs}


def open_bundle(folder: str | Path, verify: bool = True, public_key: str | bytes | None = None) -> Bundle:
    """Opens a bundle.

    Args:
        folder: Its folder.
        verify: Whether the SHA-256 of every file is compared with the manifest's; sizes always are.
        public_key: An Ed25519 key, under which the manifest must be signed.

    Raises:
        DataError: A file is missing, damaged, too large or outside of the folder; lists every such file.
        MismatchError: A part belongs to another bundle or a later version, or the signature is not right.
        TrunklineError: This is no folder of a bundle.
    """
    folder = Path(folder).expanduser()
    tried: list[Manifest] = []
    while True:
        manifest = read_manifest(folder, public_key)
        try:
            problems = file_problems(folder, manifest, verify)
            if problems:
                given = listed(f"{len(problems)} of {len(manifest.files)} files of the bundle cannot be used", problems)
                raise DataError(given, path=folder, expected="the files that its manifest names", todo=AGAIN)
            primaries = {name: read_primary(folder / file, manifest, name) for name, file in manifest.adapters.items()}
            tasks = {name: read_task(folder / task.file, manifest, name) for name, task in manifest.tasks.items()}
            return Bundle(folder, manifest, primaries, tasks)
        except TrunklineError:
            # Who replaces a task meanwhile removes its old file after the manifest that named it. A task that is
            # removed and added again makes the same manifest once more, hence two more looks.
            if tried.count(manifest) == 2:
                raise
            tried.append(manifest)


def is_bundle(folder: Path) -> bool:
    """Whether a bundle lies here."""
    try:
        return (folder / MANIFEST).is_file()
    except OSError:
        return False


@contextmanager
def unless_bundle(folder: Path) -> Iterator[None]:
    """Passes over an error of writing a new bundle if one is here: another process came first."""
    try:
        yield
    except TrunklineError:
        if not is_bundle(folder):
            raise


def read_manifest(folder: Path, public_key: str | bytes | None = None) -> Manifest:
    """The manifest of a bundle's folder; with a key, only if it is signed. Errors as for `open_bundle`."""
    path = folder / MANIFEST
    if not path.exists():
        todo = "`trunkline fit --out DIR` makes one"
        raise TrunklineError(f"{folder} has no {MANIFEST}", expected="a bundle's folder", todo=todo)
    content = read_file(path, MAX_MANIFEST_BYTES)
    if public_key is not None:
        from trunkline.bundle.edit import check_signature

        check_signature(folder, content, public_key)
    return parse_manifest(content, path)


def file_problems(folder: Path, manifest: Manifest, verify: bool = True) -> list[str]:
    """Every file of a bundle that is missing, outside, no plain file, or not the one that the manifest means."""
    root = Path(os.path.realpath(folder))
    # Snapshots in the hub's cache link to files in `blobs`.
    blobs = root.parent.parent / "blobs"
    roots = [root, blobs] if root.parent.name == "snapshots" and blobs.is_dir() else [root]
    problems = []
    for file, entry in manifest.files.items():
        if not any(Path(os.path.realpath(folder / file)).is_relative_to(root) for root in roots):
            problems.append(f"{file} is a link out of the folder")
            continue
        try:
            with open_plain(folder / file) as stream:
                size = os.fstat(stream.fileno()).st_size
                if size != entry.bytes:
                    problems.append(f"{file} has {size} bytes, not {entry.bytes}")
                elif verify and hashlib.file_digest(stream, "sha256").hexdigest() != entry.sha256:
                    problems.append(f"{file} has another SHA-256 than the manifest says: it was changed")
        except DataError as error:
            problems.append(f"{file}: {error.given.removeprefix(f'{error.path}: ')}")
    return problems


def change_tasks(
    folder: str | Path, added: Mapping[str, bytes], removed: Collection[str] = (), *, replace: Collection[str] = ()
) -> Manifest:
    """Adds and removes tasks in one step, all or none; returns the bundle's manifest. A signature goes, with a warning.

    Args:
        folder: The bundle.
        added: Tasks' files by name. One that is there already with the same bytes stays.
        removed: Names.
        replace: Names of tasks that may be there already with other bytes.

    Raises:
        TrunklineError: There is such a task already, or none to remove; a name is none.
        DataError: A file is damaged.
        MismatchError: A task belongs to another backbone or primary adapter, or does not fit the encoder.
    """
    path = Path(folder).expanduser()
    with changing(path) as before:
        _check_names(path, before, added, removed, replace)
        tasks = {name: task for name, task in before.tasks.items() if name not in removed and name not in added}
        without = dataclasses.replace(before, tasks=tasks)
        files, new = dict(before.files), dict[str, bytes]()
        for name, content in added.items():
            family, entry = read_task(content, without, name).family, entry_of(content)
            file = _file_of(files, name, entry, before.tasks.get(name))
            tasks = {**tasks, name: TaskEntry(family, file)}
            if file not in files:
                files[file], new[file] = entry, content
        gone = {task.file for task in before.tasks.values()} - {task.file for task in tasks.values()}
        files = {file: entry for file, entry in files.items() if file not in gone}
        after = dataclasses.replace(before, tasks=tasks, files=files)
        _replace_manifest(path, after, new, gone)
    return after


@contextmanager
def changing(folder: Path) -> Iterator[Manifest]:
    """The manifest of a bundle whose lock is held; nothing is left where there is no bundle."""
    read_manifest(folder)
    with locked(folder):
        yield read_manifest(folder)


def check_target(folder: Path, manifest: Manifest, names: Collection[str], replace: bool = False) -> None:
    """Raises TrunklineError unless tasks fitted on the model of a manifest can be saved here: asked before long work.

    `folder` is a bundle, or where a new one is to be.
    """
    if not is_bundle(folder):
        with unless_bundle(folder):
            return check_free(folder)
    there = read_sibling(folder, manifest)
    _check_names(folder, there, dict.fromkeys(names, b""), (), names if replace else ())
    check_writable(folder / MANIFEST)
    check_writable(folder / "tasks" / "task.safetensors")


def read_sibling(folder: Path, manifest: Manifest) -> Manifest:
    """The manifest of a folder; raises MismatchError unless it is of the same encoder as `manifest`."""
    there = read_manifest(folder)
    if there.backbone != manifest.backbone:
        given, wanted = f"{folder} is a bundle of backbone {there.backbone[:12]}", manifest.backbone[:12]
        raise MismatchError(given, expected=f"a new folder, or a bundle of {wanted}", todo="Choose another folder")
    return there


def _check_names(
    folder: Path, before: Manifest, added: Mapping[str, bytes], removed: Collection[str], replace: Collection[str]
) -> None:
    for name, content in added.items():
        task = before.tasks.get(check_name(name))
        if task is not None and name not in replace and before.files[task.file] != entry_of(content):
            todo = "Replace it with `--replace` (replace=True), or take another name"
            raise TrunklineError(f"{folder} has a task {name} already", todo=todo)
    for name in removed:
        if name not in before.tasks:
            known = ", ".join(sorted(before.tasks)) or "(none)"
            raise TrunklineError(f"{folder} has no task {name}", expected=f"one of {known}")


def entry_of(content: bytes) -> FileEntry:
    """What a manifest says of a file of this content."""
    return FileEntry(hashlib.sha256(content).hexdigest(), len(content))


def _file_of(files: Mapping[str, FileEntry], name: str, entry: FileEntry, now: TaskEntry | None) -> str:
    """Where a task's file goes: where it lies already if the content is the same, otherwise where nothing is named."""
    if now is not None and files[now.file] == entry:
        return now.file
    taken = {file.lower() for file in files}
    # A name may be as long as a part of a path, which must hold the rest besides.
    marked = (f"tasks/{name[:80]}.{entry.sha256[:16]}{n or ''}.safetensors" for n in itertools.count())
    return next(file for file in itertools.chain((f"tasks/{name}.safetensors",), marked) if file.lower() not in taken)


def _replace_manifest(folder: Path, manifest: Manifest, new: Mapping[str, bytes], gone: Collection[str]) -> None:
    """Writes new files and then the manifest, or takes back the files; in the end goes what nothing names any more."""
    content = manifest.to_json()
    parse_manifest(content, folder / MANIFEST)
    with writing(folder):
        try:
            for file, tensors in new.items():
                write_atomic(folder / file, tensors)
            if (folder / SIGNATURE).exists():
                (folder / SIGNATURE).unlink()
                log.warning("the signature of %s is gone, sign it again with `trunkline bundle sign`", folder)
            write_atomic(folder / MANIFEST, content)
        except OSError:
            for file in new:
                (folder / file).unlink(missing_ok=True)
            raise
    # Only whoever holds the lock writes here, so what is half done was left by a process that was killed.
    for left in (*(folder / file for file in gone), *folder.glob(".*.part"), *folder.glob("tasks/.*.part")):
        left.unlink(missing_ok=True)


def write_atomic(path: str | Path, content: str | bytes) -> None:
    """Writes bytes, or text as UTF-8, to a file whole or not at all; its folder is made if it is missing.

    The file has the mode of the one that it replaces, or the one that the umask leaves.
    """
    with open_atomic(Path(path)) as stream:
        stream.write(content.encode("utf-8") if isinstance(content, str) else content)


@contextmanager
def open_atomic(target: Path) -> Iterator[IO[bytes]]:
    """A file to write to, which takes its name when the block ends; an error leaves what was there."""
    target.parent.mkdir(parents=True, exist_ok=True)
    temporary = beside(target)
    try:
        with temporary.open("xb") as stream:
            yield stream
            stream.flush()
            os.fsync(stream.fileno())
        if target.exists():
            temporary.chmod(target.stat().st_mode & 0o777)
        temporary.replace(target)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise


def beside(path: Path) -> Path:
    """A new name beside a path; files of `tempfile` do not have the mode that the umask leaves."""
    return path.parent / f".{path.name}.{secrets.token_hex(6)}.part"


def check_free(folder: Path) -> None:
    """Raises TrunklineError unless a new folder can be written here: nothing there yet, or an empty folder.

    Asked before long work, so that nobody waits for a result that has no place.
    """
    folder, reason = folder.absolute(), ""
    with writing(folder):
        if folder.exists() and not folder.is_dir():
            reason = "is a file"
        elif folder.is_dir() and any(folder.iterdir()):
            reason = "has files already"
        # A new folder takes the place of an empty one, which neither of these lets go.
        elif folder.is_mount():
            reason = "is a mount point"
        elif folder.exists() and folder.samefile(Path.cwd()):
            reason = "is the working directory"
        if reason:
            todo = f"Choose another folder, such as {(folder if folder.is_dir() else folder.parent) / 'bundle'}"
            raise TrunklineError(f"{folder} {reason}", expected="a new or empty folder", todo=todo)
        _try_writing(folder)


def check_writable(path: Path) -> None:
    """Raises TrunklineError unless a file can be written here; makes its folder."""
    with writing(path):
        if path.exists() and not path.is_file():
            kind = "a folder" if path.is_dir() else "no plain file"
            raise TrunklineError(f"{path} is {kind}", expected="a new or a plain file")
        _try_writing(path)
        path.parent.mkdir(parents=True, exist_ok=True)


def _try_writing(path: Path) -> None:
    """Writes a file and removes it, in the nearest folder above that there is: rights alone do not tell everything."""
    tempfile.TemporaryFile(dir=next(parent for parent in path.absolute().parents if parent.exists())).close()


@contextmanager
def locked(folder: Path) -> Iterator[None]:
    """Holds the lock of a folder, waiting for whoever holds it; the system frees it when a process dies.

    Raises TrunklineError if the folder cannot be written to.
    """
    with writing(folder):
        handle = os.open(folder / LOCK, os.O_RDWR | os.O_CREAT, 0o666)
    try:
        if os.name == "nt":
            import msvcrt

            while True:
                # It gives up after ten seconds.
                with suppress(OSError):
                    msvcrt.locking(handle, msvcrt.LK_LOCK, 1)  # type: ignore[attr-defined]
                    break
        else:
            import fcntl

            fcntl.flock(handle, fcntl.LOCK_EX)
        yield
    finally:
        os.close(handle)


@contextmanager
def writing(path: Path) -> Iterator[None]:
    """Makes errors of the system into one that says which place cannot be written to."""
    try:
        yield
    except OSError as error:
        given = f"{path} cannot be written to ({error.strerror or error})"
        raise TrunklineError(given, expected="a place with write permission", todo="Choose another") from error
