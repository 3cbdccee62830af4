"""Bundles in torch: an encoder with its tokenizer, primary adapters and tasks, from a bundle or a plain encoder."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from trunkline import __version__
from trunkline.bundle.edit import Parts, with_primaries, write_bundle
from trunkline.bundle.files import Bundle, open_bundle
from trunkline.bundle.lora import LORA_TARGETS
from trunkline.bundle.manifest import MANIFEST, Licence, Manifest
from trunkline.bundle.parts import Head, PrimaryAdapter, Task, primary_bytes, task_bytes
from trunkline.cache import cache_folder
from trunkline.encoder.architectures import EncoderConfig, encoder_facts
from trunkline.encoder.encoder import Encoder
from trunkline.encoder.features import Features, embed_texts
from trunkline.encoder.lora import LoraAdapter, adapter_arrays, lora_from_arrays
from trunkline.encoder.resolve import resolve
from trunkline.encoder.storage import backbone_hash, checkpoint_files, load_encoder, load_tokenizer, read_json
from trunkline.errors import MismatchError, TrunklineError
from trunkline.text.tokens import TextTokenizer


@dataclass(frozen=True)
class AdapterFile:
    """A primary adapter (LoRA only) or a task (a head, with LoRA of its own or on its family's primary adapter).

    `backbone` is the hash of the backbone that it was trained on, `labels` are the head's outputs, `units` as in
    `trunkline.bundle.parts.Task`; `info` says how it was made, for people.
    """

    family: str
    backbone: str
    fork: int
    lora: LoraAdapter | None = None
    head: Head | None = None
    labels: tuple[str, ...] = ()
    units: str = "words"
    info: Mapping[str, Any] = field(default_factory=dict)


def primary_file(adapter: AdapterFile) -> bytes:
    """The file of a primary adapter; raises MismatchError if it has no LoRA, or values that float16 cannot hold."""
    if adapter.lora is None:
        raise MismatchError(f"a primary adapter of {adapter.family} without LoRA", expected="one with LoRA")
    arrays = adapter_arrays(adapter.lora)
    return primary_bytes(adapter.family, adapter.backbone, adapter.fork, arrays, adapter.lora.config.alpha)


def task_file(task: AdapterFile, manifest: Manifest) -> bytes:
    """The file of a task for a bundle; raises MismatchError if it has no head, or values that float16 cannot hold."""
    if task.head is None:
        raise MismatchError(f"a task of {task.family} without a head", expected="a task, not a primary adapter")
    lora = None if task.lora is None else adapter_arrays(task.lora)
    alpha = 0.0 if task.lora is None else task.lora.config.alpha
    return task_bytes(
        manifest, task.family, task.labels, task.head, units=task.units, lora=lora, alpha=alpha, info=task.info
    )


def primary_in_torch(primary: PrimaryAdapter, manifest: Manifest, encoder: EncoderConfig) -> AdapterFile:
    """A bundle's primary adapter in torch."""
    lora = lora_from_arrays(primary.lora_arrays(), primary.alpha, encoder)
    return AdapterFile(primary.family, manifest.backbone, manifest.encoder.fork, lora)


def task_in_torch(task: Task, manifest: Manifest, encoder: EncoderConfig) -> AdapterFile:
    """A bundle's task in torch."""
    lora = lora_from_arrays(task.lora_arrays(), task.alpha, encoder) if task.own_lora else None
    fork = manifest.encoder.fork
    return AdapterFile(task.family, manifest.backbone, fork, lora, task.head, task.labels, task.units, task.info)


@dataclass(frozen=True)
class Loaded:
    """An encoder with whatever came with it: a bundle's adapters and tasks, or nothing for a plain encoder."""

    encoder: Encoder
    tokenizer: TextTokenizer
    config: Mapping[str, Any]
    backbone: str
    primaries: Mapping[str, AdapterFile] = field(default_factory=dict)
    tasks: Mapping[str, AdapterFile] = field(default_factory=dict)
    info: Mapping[str, Any] = field(default_factory=dict)
    licences: tuple[Licence, ...] = ()

    def primary(self, family: str) -> LoraAdapter | None:
        """The family's primary adapter, if there is one."""
        return self.primaries[family].lora if family in self.primaries else None


def load_any(name: str, *, fork: int | None = None, max_length: int = 256) -> Loaded:
    """Loads a bundle's folder, or a plain encoder by folder or name.

    A bundle has its own fork and longest window; without a fork a plain encoder forks in the middle.

    Raises:
        EncoderError: Not found, not supported, or damaged.
        MismatchError: The parts of a bundle do not belong together.
    """
    folder = Path(name).expanduser()
    if (folder / MANIFEST).is_file():
        return load_bundle(folder)
    found = resolve(name)
    encoder = load_encoder(found.folder, fork)
    return Loaded(
        encoder=encoder,
        tokenizer=load_tokenizer(found.folder, encoder.config, max_length),
        config=read_json(found.folder / "config.json"),
        backbone=backbone_hash(encoder),
        info={"encoder": found.name, "origin": found.origin},
    )


def load_bundle(folder: Path) -> Loaded:
    """Loads a bundle that has weights for torch; errors as for `bundle_encoder`."""
    bundle = open_bundle(folder, verify=False)
    manifest, encoder = bundle.manifest, bundle_encoder(bundle)
    config = encoder.config
    return Loaded(
        encoder=encoder,
        tokenizer=load_tokenizer(folder, config, manifest.encoder.max_length),
        config=read_json(folder / manifest.checkpoint["config"]),
        backbone=manifest.backbone,
        primaries={name: primary_in_torch(part, manifest, config) for name, part in bundle.primaries.items()},
        tasks={name: task_in_torch(task, manifest, config) for name, task in bundle.tasks.items()},
        info=manifest.info,
        licences=manifest.licences,
    )


def bundle_encoder(bundle: Bundle) -> Encoder:
    """The encoder of a bundle.

    Raises:
        TrunklineError: The bundle has no weights for torch.
        MismatchError: The weights are not those that its adapters were trained on.
    """
    manifest, folder = bundle.manifest, bundle.folder
    if not manifest.checkpoint:
        raise TrunklineError(
            f"{folder} has graphs for ONNX Runtime alone",
            expected="a bundle with weights for torch, as pre-finetuning writes it",
            todo="Use the bundle that it was exported from",
        )
    encoder = load_encoder((folder / manifest.checkpoint["weights"]).parent, manifest.encoder.fork)
    backbone = backbone_hash(encoder)
    if backbone != manifest.backbone:
        raise MismatchError(
            f"{folder}: the backbone's hash is {backbone[:12]}",
            expected=f"{manifest.backbone[:12]}, as the manifest says",
            todo="The file was changed or belongs to another bundle; make or fetch the bundle again",
        )
    return encoder


def cached_bundle(name: str) -> Path:
    """The folder of a bundle of a plain encoder, which is made in the cache when it is first asked for."""
    loaded = load_any(name)
    key = hashlib.sha256(f"{loaded.backbone} {loaded.tokenizer.fingerprint}".encode()).hexdigest()[:32]
    folder = cache_folder() / "encoders" / key
    if not (folder / MANIFEST).is_file():
        save_bundle(loaded, folder, Path(name).name)
    return folder


def save_bundle(loaded: Loaded, folder: Path, name: str = "bundle") -> Manifest:
    """Writes a bundle with a checkpoint into a new folder; errors as for `write_bundle`."""
    manifest = manifest_of(loaded, name)
    adapters = {family: primary_file(adapter) for family, adapter in loaded.primaries.items()}
    with_adapters = with_primaries(manifest, adapters)
    return write_bundle(
        folder,
        manifest,
        Parts(
            tokenizer=loaded.tokenizer.tokenizer.to_str(pretty=True).encode(),
            checkpoint=checkpoint_files(loaded.encoder, loaded.config),
            adapters=adapters,
            tasks={name: task_file(task, with_adapters) for name, task in loaded.tasks.items()},
        ),
    )


def manifest_of(loaded: Loaded, name: str = "bundle") -> Manifest:
    """The manifest of an encoder, without files."""
    encoder, tokenizer = loaded.encoder, loaded.tokenizer
    return Manifest(
        name=name,
        trunkline=__version__,
        encoder=encoder_facts(encoder.config, encoder.fork, tokenizer.max_length, tokenizer.overlap),
        backbone=loaded.backbone,
        weights={"kind": "float32"},
        lora_targets=tuple(LORA_TARGETS),
        licences=loaded.licences,
        info=loaded.info,
    )


def embedder(name: str, max_length: int = 128) -> Callable[[Sequence[str]], Features]:
    """A function that embeds texts by an encoder or bundle; a bundle's classification adapter is used if it has one."""
    loaded = load_any(name, max_length=max_length)
    return lambda texts: embed_texts(loaded.encoder, loaded.tokenizer, texts, loaded.primary("classification"))
