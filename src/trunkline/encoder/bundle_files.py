"""A bundle on disk: one backbone, the families' primary adapters, task adapters, and a manifest that ties them.

manifest.json
backbone/   config.json, model.safetensors, tokenizer.json   (Hugging Face layout)
adapters/   FAMILY.safetensors                               (primary adapters)
tasks/      TASK.safetensors                                 (task adapters)
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from trunkline.encoder.adapter_file import AdapterFile, load_adapter, lora_hash, save_adapter
from trunkline.encoder.architectures import EncoderConfig, read_config
from trunkline.encoder.encoder import Encoder
from trunkline.encoder.lora import LoraAdapter
from trunkline.encoder.resolve import resolve
from trunkline.encoder.storage import backbone_hash, load_encoder, load_tokenizer, read_json, save_encoder, write_json
from trunkline.errors import MismatchError, TrunklineError
from trunkline.text.tokens import TextTokenizer

FORMAT = 1
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,99}")


@dataclass(frozen=True)
class Loaded:
    """An encoder with whatever came with it: a bundle's adapters, or nothing for a plain encoder."""

    encoder: Encoder
    tokenizer: TextTokenizer
    config: Mapping[str, Any]
    backbone: str
    primaries: Mapping[str, AdapterFile]
    tasks: Mapping[str, AdapterFile]
    info: Mapping[str, Any]

    def primary(self, family: str) -> LoraAdapter | None:
        """The family's primary adapter, if there is one."""
        return self.primaries[family].lora if family in self.primaries else None


def load_any(name: str, *, fork: int | None = None, max_length: int = 256) -> Loaded:
    """Loads a bundle's folder, or a plain encoder by folder or name.

    Args:
        name: A folder, a hub id or `default`.
        fork: First layer of the branches for a plain encoder; a bundle has its own.
        max_length: Longest window in tokens for a plain encoder.

    Raises:
        EncoderError: Not found, not supported, or damaged.
        MismatchError: The parts of a bundle do not belong together.
    """
    folder = Path(name).expanduser()
    if (folder / "manifest.json").is_file():
        return load_bundle(folder)
    found = resolve(name)
    encoder = load_encoder(found.folder, fork)
    return Loaded(
        encoder=encoder,
        tokenizer=load_tokenizer(found.folder, encoder.config, max_length),
        config=read_json(found.folder / "config.json"),
        backbone=backbone_hash(encoder),
        primaries={},
        tasks={},
        info={"encoder": found.name, "origin": found.origin},
    )


def load_bundle(folder: Path) -> Loaded:
    """Loads a bundle and checks that its parts belong together."""
    manifest = _manifest(folder)
    encoder = load_encoder(folder / "backbone", manifest["fork"])
    backbone = backbone_hash(encoder)
    if backbone != manifest["backbone"]:
        raise MismatchError(
            f"{folder}: the backbone's hash is {backbone[:12]}",
            expected=f"{str(manifest['backbone'])[:12]}, as the manifest says",
            todo="The file was changed or belongs to another bundle; make or fetch the bundle again",
        )
    primaries = {name: _primary(folder, name, encoder.config, backbone) for name in manifest["adapters"]}
    tasks = {name: load_adapter(_inside(folder, "tasks", name), encoder.config, backbone) for name in manifest["tasks"]}
    for name, task in tasks.items():
        check_task(name, task, primaries.get(task.family), encoder.fork)
    return Loaded(
        encoder=encoder,
        tokenizer=load_tokenizer(folder / "backbone", encoder.config, manifest["max_length"]),
        config=read_json(folder / "backbone" / "config.json"),
        backbone=backbone,
        primaries=primaries,
        tasks=tasks,
        info=manifest.get("info", {}),
    )


def save_bundle(loaded: Loaded, folder: Path) -> None:
    """Writes a bundle; the manifest comes last, so that an unfinished bundle is never taken for one."""
    backbone = folder / "backbone"
    save_encoder(loaded.encoder, backbone, loaded.config)
    loaded.tokenizer.save(backbone)
    for name, adapter in loaded.primaries.items():
        save_adapter(adapter, _inside(folder, "adapters", name))
    for name, adapter in loaded.tasks.items():
        save_adapter(adapter, _inside(folder, "tasks", name))
    write_json(
        {
            "format": FORMAT,
            "backbone": loaded.backbone,
            "fork": loaded.encoder.fork,
            "max_length": loaded.tokenizer.max_length,
            "adapters": sorted(loaded.primaries),
            "tasks": sorted(loaded.tasks),
            "info": dict(loaded.info),
        },
        folder / "manifest.json",
    )


def add_task(folder: Path, name: str, task: AdapterFile) -> Path:
    """Adds a task adapter to a bundle, or replaces it; nothing else of the bundle is touched but the manifest.

    Raises:
        MismatchError: The adapter belongs to another backbone or primary adapter.
    """
    manifest = _manifest(folder)
    if task.backbone != manifest["backbone"]:
        raise MismatchError(
            f"task {name} was adapted on backbone {task.backbone[:12]}",
            expected=f"the bundle's, {str(manifest['backbone'])[:12]}",
            todo="Adapt it on this bundle",
        )
    path = _inside(folder, "tasks", name)
    config = read_config(read_json(folder / "backbone" / "config.json"), str(folder / "backbone" / "config.json"))
    primary = _primary(folder, task.family, config, task.backbone) if task.family in manifest["adapters"] else None
    check_task(name, task, primary, manifest["fork"])
    save_adapter(task, path)
    write_json({**manifest, "tasks": sorted({*manifest["tasks"], name})}, folder / "manifest.json")
    return path


def check_task(name: str, task: AdapterFile, primary: AdapterFile | None, fork: int) -> None:
    """Raises MismatchError unless a task has a head that fits the primary adapter it will run on."""
    if task.head is None:
        raise MismatchError(f"task {name} has no head", expected="a task adapter, not a primary adapter")
    if task.lora is not None and min(task.lora.config.layers, default=fork) < fork:
        raise MismatchError(f"task {name} adapts layers below the fork at {fork}", expected="layers above it")
    if task.lora is None and task.primary != lora_hash(primary.lora if primary else None):
        raise MismatchError(
            f"task {name} sits on {task.family} adapter {task.primary[:12] or 'none'}",
            expected="the bundle's primary adapter of this family",
            todo="Adapt the task again on this bundle",
        )


def _primary(folder: Path, family: str, encoder: EncoderConfig, backbone: str) -> AdapterFile:
    path = _inside(folder, "adapters", family)
    primary = load_adapter(path, encoder, backbone)
    if primary.family != family or primary.lora is None:
        kind = "LoRA" if primary.lora is not None else "no LoRA"
        raise MismatchError(f"{path} holds {kind} of family {primary.family}", expected=f"the LoRA of {family}")
    return primary


def _manifest(folder: Path) -> dict[str, Any]:
    path = folder / "manifest.json"
    manifest = read_json(path)
    required = {"format", "backbone", "fork", "max_length", "adapters", "tasks"}
    if not isinstance(manifest, dict) or not required <= manifest.keys():
        raise TrunklineError(f"{path} is not a bundle's manifest", expected="the keys " + ", ".join(sorted(required)))
    if manifest["format"] != FORMAT:
        raise MismatchError(
            f"{path} has format {manifest['format']}", expected=f"format {FORMAT}", todo="Update trunkline to read it"
        )
    numbers = all(isinstance(manifest[key], int) for key in ("fork", "max_length"))
    if not numbers or not all(isinstance(manifest[key], list) for key in ("adapters", "tasks")):
        raise TrunklineError(f"{path} is damaged", expected="whole numbers fork, max_length and lists adapters, tasks")
    return manifest


def check_name(name: str) -> None:
    """Raises unless a name can be that of a task or adapter; none can lead out of a bundle's folder."""
    if not isinstance(name, str) or not _NAME.fullmatch(name):
        raise TrunklineError(
            f"name {name!r}", expected="letters, digits, '.', '_' and '-', beginning with a letter or digit"
        )


def _inside(folder: Path, part: str, name: str) -> Path:
    check_name(name)
    return folder / part / f"{name}.safetensors"
