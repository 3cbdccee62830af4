"""A bundle's folder, read and checked: what its manifest names, primary adapters and tasks ready for an engine."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from trunkline.bundle.lora import Inputs
from trunkline.bundle.manifest import (
    MANIFEST,
    MAX_MANIFEST_BYTES,
    MAX_SHOWN,
    TOKENIZER,
    Manifest,
    limit_of,
    parse_manifest,
)
from trunkline.bundle.parts import PrimaryAdapter, Task, read_primary, read_task
from trunkline.bundle.signature import check_signature
from trunkline.bundle.tensors import open_plain, read_file
from trunkline.errors import DataError, TrunklineError


@dataclass(frozen=True, slots=True)
class Bundle:
    """An open bundle.

    Attributes:
        folder: Where it lies.
        manifest: What it holds.
        primaries: Primary adapters, by family.
        tasks: By name.
    """

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
        primary = self.primaries.get(task.family)
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
    while True:
        manifest = read_manifest(folder, public_key)
        try:
            return _opened(folder, manifest, verify)
        except TrunklineError:
            # Somebody who replaces a task meanwhile removes its old file after the manifest that named it.
            if read_manifest(folder, public_key) == manifest:
                raise


def _opened(folder: Path, manifest: Manifest, verify: bool) -> Bundle:
    problems = file_problems(folder, manifest, verify)
    if problems:
        raise DataError(
            listed(f"{len(problems)} of {len(manifest.files)} files of the bundle cannot be used", problems),
            path=folder,
            expected="the files that its manifest names",
            todo="Fetch or export the bundle again",
        )
    primaries = {family: read_primary(folder / file, manifest, family) for family, file in manifest.adapters.items()}
    tasks = {name: read_task(folder / task.file, manifest, name) for name, task in manifest.tasks.items()}
    return Bundle(folder, manifest, primaries, tasks)


def is_bundle(folder: Path) -> bool:
    """Whether a bundle lies here."""
    try:
        return (folder / MANIFEST).is_file()
    except OSError:
        return False


def read_manifest(folder: Path, public_key: str | bytes | None = None) -> Manifest:
    """The manifest of a bundle's folder; with a key, only if it is signed. Errors as for `open_bundle`."""
    path = folder / MANIFEST
    if not path.exists():
        raise TrunklineError(
            f"{folder} has no {MANIFEST}", expected="a bundle's folder", todo="`trunkline fit --out DIR` makes one"
        )
    content = read_file(path, MAX_MANIFEST_BYTES)
    if public_key is not None:
        check_signature(folder, content, public_key)
    return parse_manifest(content, path)


def file_problems(folder: Path, manifest: Manifest, verify: bool = True) -> list[str]:
    """Every file of a bundle that is missing, outside, no plain file, or not the one that the manifest means."""
    roots = _roots(folder)
    problems = []
    for file, entry in manifest.files.items():
        if not any(Path(os.path.realpath(folder / file)).is_relative_to(root) for root in roots):
            problems.append(f"{file} is a link out of the folder")
            continue
        if entry.bytes > limit_of(file, manifest):
            problems.append(f"{file} has {entry.bytes} bytes, more than {limit_of(file, manifest)}")
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
        except OSError as error:
            problems.append(f"{file} cannot be read ({error.strerror})")
    return problems


def _roots(folder: Path) -> list[Path]:
    """Where files of a bundle may lie: in its folder; in the hub's cache, whose snapshots link there, in `blobs`."""
    root = Path(os.path.realpath(folder))
    blobs = root.parent.parent / "blobs"
    return [root, blobs] if root.parent.name == "snapshots" and blobs.is_dir() else [root]


def listed(what: str, problems: list[str]) -> str:
    """A sentence with its problems below it."""
    shown = "".join(f"\n  - {problem}" for problem in problems[:MAX_SHOWN])
    return f"{what}:{shown}" + (f"\n  - and {len(problems) - MAX_SHOWN} more\n" if len(problems) > MAX_SHOWN else "\n")
