"""A deployed bundle's folder, read and checked: the graphs' files, primary adapters and tasks ready to be fed."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path
from typing import Any

from trunkline.bundle.lora import HEAD, Feeds, FloatArray, check_feeds, fuse
from trunkline.bundle.manifest import (
    MANIFEST,
    MAX_ADAPTER_BYTES,
    MAX_MANIFEST_BYTES,
    MAX_SHOWN,
    TOKENIZER,
    Manifest,
    limit_of,
    parse_manifest,
)
from trunkline.bundle.schema import ADAPTER_SCHEMA, TASK_SCHEMA, problems_of
from trunkline.bundle.signature import check_signature
from trunkline.bundle.tensors import TensorFile, open_plain, read_file, read_tensors
from trunkline.errors import DataError, MismatchError, TrunklineError

TRANSITIONS = "head.transitions"


@dataclass(frozen=True, slots=True)
class DeployedTask:
    """A task as the branch graph is fed with it.

    Attributes:
        name: In the bundle.
        family: Whose units and decoding apply.
        labels: The head's outputs.
        feeds: `head.weight` [hidden, labels], `head.bias` [labels] and the task's own `lora.*`, without its family's.
        transitions: [labels + 1, labels] float32, as in `LinearHead`; None for all zero.
        own_lora: Whether it has LoRA of its own; otherwise it sits on its family's primary adapter.
        info: How it was made; nothing depends on it.
    """

    name: str
    family: str
    labels: tuple[str, ...]
    feeds: Feeds
    transitions: FloatArray | None = None
    own_lora: bool = False
    info: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Deployed:
    """An open bundle.

    Attributes:
        folder: Where it lies.
        manifest: What it holds.
        graphs: The graphs' files: `trunk`, `branch` and the variants.
        primaries: Feeds of the primary adapters, by family.
        tasks: By name.
    """

    folder: Path
    manifest: Manifest
    graphs: Mapping[str, Path]
    primaries: Mapping[str, Feeds]
    tasks: Mapping[str, DeployedTask]

    @property
    def tokenizer(self) -> Path:
        """The tokenizer's file."""
        return self.folder / TOKENIZER

    def feeds(self, name: str) -> Feeds:
        """What the branch graph is fed with for a task: its head, and LoRA of its own or of its family."""
        task = self.tasks[name]
        return {**({} if task.own_lora else self.primaries.get(task.family, {})), **task.feeds}


def open_bundle(folder: str | Path, verify: bool = True, public_key: str | bytes | None = None) -> Deployed:
    """Opens a deployed bundle.

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
    manifest = read_manifest(folder, public_key)
    problems = file_problems(folder, manifest, verify)
    if problems:
        raise DataError(
            listed(f"{len(problems)} of {len(manifest.files)} files of the bundle cannot be used", problems),
            path=folder,
            expected="the files that its manifest names",
            todo="Fetch or export the bundle again",
        )
    primaries = {family: read_primary(folder / file, family, manifest) for family, file in manifest.adapters.items()}
    tasks = {name: read_task(folder / task.file, manifest, name) for name, task in manifest.tasks.items()}
    graphs = {name: folder / file for name, file in manifest.graphs.items()}
    return Deployed(folder, manifest, graphs, primaries, tasks)


def read_manifest(folder: Path, public_key: str | bytes | None = None) -> Manifest:
    """The manifest of a bundle's folder; with a key, only if it is signed. Errors as for `open_bundle`."""
    path = folder / MANIFEST
    if not path.exists():
        raise TrunklineError(
            f"{folder} has no {MANIFEST}", expected="a bundle's folder", todo="`trunkline export` makes one"
        )
    content = read_file(path, MAX_MANIFEST_BYTES)
    if public_key is not None:
        check_signature(folder, content, public_key)
    return parse_manifest(content, path)


def read_task(path: str | Path, manifest: Manifest, name: str | None = None) -> DeployedTask:
    """Reads a task's file for a bundle.

    Args:
        path: The file.
        manifest: The bundle's.
        name: The task's; by default the file's name, or what the manifest says of it.

    Raises:
        DataError: The file is damaged, or no task's.
        MismatchError: It belongs to another backbone or primary adapter, or does not fit the graphs.
    """
    path = Path(path)
    file = read_tensors(path, MAX_ADAPTER_BYTES)
    raw = _description(file, path, "task")
    name = path.stem if name is None else name
    entry = manifest.tasks.get(name)
    if entry is not None and entry.family != raw["family"]:
        raise MismatchError(f"{path} is of family {raw['family']}", expected=f"{entry.family}, as the manifest says")
    _check_backbone(raw, path, manifest)
    found = file.tensors.get(TRANSITIONS)
    transitions = None if found is None else _owned(found)
    feeds = _feeds(file, path, manifest)
    own_lora = any(key.startswith("lora.") for key in feeds)
    expected = "" if own_lora else primary_of(raw["family"], manifest)
    if raw["primary"] != expected:
        raise MismatchError(
            f"{path} sits on the adapter {raw['primary'][:40] or 'none'}",
            expected=f"{expected[:40] or 'none'}, that of this bundle",
            todo="Adapt the task again on the training bundle that this bundle was exported from",
        )
    _check_head(feeds, transitions, len(raw["labels"]), manifest.encoder.hidden_size, path)
    return DeployedTask(
        name=name,
        family=raw["family"],
        labels=tuple(raw["labels"]),
        feeds=feeds,
        transitions=transitions,
        own_lora=own_lora,
        info=raw["info"],
    )


def is_task_file(path: Path) -> bool:
    """Whether a file says that it is a deployed bundle's task; one of a training bundle does not. Errors as above."""
    file = read_tensors(path, MAX_ADAPTER_BYTES)
    try:
        raw = json.loads(file.metadata.get("trunkline", ""))
    except (ValueError, RecursionError):
        return False
    return isinstance(raw, dict) and "kind" in raw


def read_primary(path: Path, family: str, manifest: Manifest) -> Feeds:
    """The feeds of a primary adapter; errors as for `read_task`."""
    file = read_tensors(path, MAX_ADAPTER_BYTES)
    raw = _description(file, path, "adapter")
    _check_backbone(raw, path, manifest)
    if raw["family"] != family:
        raise MismatchError(f"{path} is of family {raw['family']}", expected=family)
    feeds = _feeds(file, path, manifest)
    if not all(name.startswith("lora.") for name in feeds):
        raise MismatchError(f"{path} has a head", expected="a primary adapter, which is LoRA alone")
    return feeds


def primary_of(family: str, manifest: Manifest) -> str:
    """What a task without LoRA of its own must sit on: FAMILY@SHA256 of the family's adapter, or nothing."""
    file = manifest.adapters.get(family)
    return "" if file is None else f"{family}@{manifest.files[file].sha256}"


def file_problems(folder: Path, manifest: Manifest, verify: bool = True) -> list[str]:
    """Every file of a bundle that is missing, outside, no plain file, or not the one that the manifest means."""
    root = os.path.realpath(folder)
    problems = []
    for file, entry in manifest.files.items():
        if os.path.commonpath([root, os.path.realpath(folder / file)]) != root:
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


def listed(what: str, problems: list[str]) -> str:
    """A sentence with its problems below it."""
    shown = "".join(f"\n  - {problem}" for problem in problems[:MAX_SHOWN])
    return f"{what}:{shown}" + (f"\n  - and {len(problems) - MAX_SHOWN} more\n" if len(problems) > MAX_SHOWN else "\n")


def _description(file: TensorFile, path: Path, kind: str) -> Mapping[str, Any]:
    try:
        return _parsed(file.metadata.get("trunkline", ""), kind)
    except (ValueError, RecursionError) as error:
        training = any(name.startswith("lora.parts.") for name in file.tensors) or '"primary"' in str(file.metadata)
        raise DataError(
            f"this is no {kind} of a deployed bundle ({' '.join(str(error).split())[:300]})",
            path=path,
            expected=f"a file of kind {kind} that `trunkline export` wrote",
            todo="`trunkline bundle add` takes those of training bundles" if training else "Export it again",
        ) from error


@lru_cache(maxsize=256)
def _parsed(text: str, kind: str) -> Mapping[str, Any]:
    raw = json.loads(text)
    problems = list(problems_of(raw, TASK_SCHEMA if kind == "task" else ADAPTER_SCHEMA, "its description"))
    if problems:
        raise ValueError("; ".join(problems[:MAX_SHOWN]))
    if kind == "task" and len(set(raw["labels"])) < len(raw["labels"]):
        raise ValueError("a label stands there twice")
    return dict(raw)


def _check_backbone(raw: Mapping[str, Any], path: Path, manifest: Manifest) -> None:
    if raw["backbone"] != manifest.backbone:
        raise MismatchError(
            f"{path} was trained on backbone {raw['backbone'][:12]}",
            expected=f"{manifest.backbone[:12]}, the bundle's",
            todo="Adapt the task again on the backbone of this bundle",
        )


def _feeds(file: TensorFile, path: Path, manifest: Manifest) -> Feeds:
    unknown = [name for name in file.tensors if name.startswith("head.") and name not in _HEAD_TENSORS]
    if unknown:
        raise MismatchError(f"{path} has the tensor {unknown[0][:60]}", expected=", ".join(_HEAD_TENSORS))
    try:
        feeds = fuse(file.tensors)
        check_feeds(feeds, manifest.shapes)
    except MismatchError as error:
        raise MismatchError(f"{path}: {error.given}", expected=error.expected, todo=error.todo) from error
    return {name: _owned(tensor) for name, tensor in feeds.items()}


def _owned(tensor: FloatArray) -> FloatArray:
    """A tensor that does not keep the whole file's numbers, of which it is a part, in memory."""
    return tensor if tensor.base is None else tensor.copy()


_HEAD_TENSORS = (*HEAD, TRANSITIONS)


def _check_head(feeds: Feeds, transitions: FloatArray | None, labels: int, hidden: int, path: Path) -> None:
    found: dict[str, tuple[int, ...]] = {name: feeds[name].shape for name in HEAD if name in feeds}
    wanted: dict[str, tuple[int, ...]] = {"head.weight": (hidden, labels), "head.bias": (labels,)}
    if transitions is not None:
        found[TRANSITIONS], wanted[TRANSITIONS] = transitions.shape, (labels + 1, labels)
    if found != wanted:
        raise MismatchError(f"{path} has a head of {found}", expected=f"{wanted}, for its {labels} labels")
