"""Bundles in torch: an encoder with its tokenizer, primary adapters and tasks, from a bundle or a plain encoder."""

from __future__ import annotations

import dataclasses
import hashlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from trunkline import __version__
from trunkline.bundle.edit import write_bundle
from trunkline.bundle.files import LOCK, Bundle, check_writable, entry_of, is_bundle, locked, open_bundle
from trunkline.bundle.manifest import LORA_TARGETS, TOKENIZER, VERSION, Licence, Manifest, check_name, name_of
from trunkline.bundle.parts import PrimaryAdapter, Task, primary_bytes
from trunkline.encoder.architectures import EncoderConfig, encoder_facts
from trunkline.encoder.encoder import Encoder, Features, embed_texts
from trunkline.encoder.lora import LoraAdapter, adapter_arrays, lora_from_arrays
from trunkline.encoder.resolve import resolve
from trunkline.encoder.storage import backbone_hash, checkpoint_files, load_encoder, load_tokenizer, read_json
from trunkline.errors import TrunklineError
from trunkline.text.tokens import TextTokenizer
from trunkline.versions import cache_folder, used

_CHECKPOINT = {"config": "encoder/config.json", "weights": "encoder/model.safetensors"}


@dataclass(frozen=True)
class Loaded:
    """An encoder with whatever came with it: a bundle's primary adapters and tasks, or nothing for a plain encoder."""

    encoder: Encoder
    tokenizer: TextTokenizer
    config: Mapping[str, Any]
    backbone: str
    primaries: Mapping[str, LoraAdapter] = field(default_factory=dict)
    tasks: Mapping[str, Task] = field(default_factory=dict)
    info: Mapping[str, Any] = field(default_factory=dict)
    licences: tuple[Licence, ...] = ()


def load_any(name: str, *, fork: int | None = None, max_length: int = 256) -> Loaded:
    """Loads a bundle's folder, or a plain encoder by folder or name.

    A bundle has its own fork and longest window; without a fork a plain encoder forks in the middle.

    Raises:
        EncoderError: Not found, not supported, or damaged.
        MismatchError: The parts of a bundle do not belong together.
    """
    folder = Path(name).expanduser()
    if is_bundle(folder):
        return load_bundle(folder)
    found = resolve(name)
    encoder = load_encoder(found.folder, fork)
    tokenizer, info = load_tokenizer(found.folder, encoder.config, max_length), {"encoder": found.name}
    config = read_json(found.folder / "config.json")
    return Loaded(encoder, tokenizer, config, backbone_hash(encoder), info=info | {"origin": found.origin})


def load_bundle(folder: Path) -> Loaded:
    """Loads a bundle that has weights for torch; errors as for `bundle_encoder`."""
    bundle = open_bundle(folder, verify=False)
    manifest, encoder = bundle.manifest, bundle_encoder(bundle)
    tokenizer = load_tokenizer(folder, encoder.config, manifest.encoder.max_length)
    config = read_json(folder / manifest.checkpoint["config"])
    primaries = {family: lora_of(primary, encoder.config) for family, primary in bundle.primaries.items()}
    rest = bundle.tasks, manifest.info, manifest.licences
    return Loaded(encoder, tokenizer, config, manifest.backbone, primaries, *rest)


def lora_of(adapter: PrimaryAdapter, encoder: EncoderConfig) -> LoraAdapter:
    """The LoRA of a primary adapter, or of a task that has one of its own, in torch."""
    return lora_from_arrays(adapter.lora_arrays(), adapter.alpha, encoder)


def bundle_encoder(bundle: Bundle) -> Encoder:
    """The encoder of a bundle.

    Raises:
        TrunklineError: The bundle has no weights for torch.
        MismatchError: The weights are not those that its adapters were trained on.
    """
    manifest, folder = bundle.manifest, bundle.folder
    if not manifest.checkpoint:
        given, expected = f"{folder} has graphs for ONNX Runtime alone", "a bundle with weights for torch"
        raise TrunklineError(given, expected=expected, todo="Use the bundle that it was exported from")
    return load_encoder((folder / manifest.checkpoint["weights"]).parent, manifest.encoder.fork, manifest.backbone)


def cached_bundle(name: str) -> Path:
    """The folder of a bundle of a plain encoder, which is made in the cache when it is first asked for.

    One of several processes makes it while the others wait. Raises TrunklineError if the cache cannot be written to.
    """
    loaded = load_any(name)
    key = hashlib.sha256(f"{VERSION} {loaded.backbone} {loaded.tokenizer.fingerprint}".encode()).hexdigest()[:32]
    folder = cache_folder() / "encoders" / key
    if not is_bundle(folder):
        check_writable(folder.parent / LOCK)
        with locked(folder.parent):
            if not is_bundle(folder):
                save_bundle(loaded, folder, name_of(Path(name).absolute(), "encoder"))
    return used(folder)


def save_bundle(loaded: Loaded, folder: Path, name: str = "bundle") -> Manifest:
    """Writes a bundle with a checkpoint into a new folder; errors as for `write_bundle`."""
    checkpoint = checkpoint_files(loaded.encoder, loaded.config)
    files = {_CHECKPOINT[part]: content for part, content in checkpoint.items()} | adapter_files(loaded)
    files[TOKENIZER] = loaded.tokenizer.tokenizer.to_str(pretty=True).encode()
    manifest = dataclasses.replace(manifest_of(loaded, name), checkpoint=_CHECKPOINT)
    return write_bundle(folder, manifest, files, {name: task.content for name, task in loaded.tasks.items()})


def manifest_of(loaded: Loaded, name: str = "bundle") -> Manifest:
    """The manifest of an encoder with its primary adapters; of files it has no others, and no tasks."""
    encoder, tokenizer = loaded.encoder, loaded.tokenizer
    return Manifest(
        name=name,
        trunkline=__version__,
        encoder=encoder_facts(encoder.config, encoder.fork, tokenizer.max_length, tokenizer.overlap),
        backbone=loaded.backbone,
        weights={"kind": "float32"},
        lora_targets=tuple(LORA_TARGETS),
        adapters={family: _place(family) for family in loaded.primaries},
        files={file: entry_of(content) for file, content in adapter_files(loaded).items()},
        licences=loaded.licences,
        info=loaded.info,
    )


def adapter_files(loaded: Loaded) -> dict[str, bytes]:
    """The files of primary adapters by their places; raises MismatchError for values that float16 cannot hold."""
    backbone, fork = loaded.backbone, loaded.encoder.fork
    return {
        _place(family): primary_bytes(family, backbone, fork, adapter_arrays(lora), lora.config.alpha)
        for family, lora in loaded.primaries.items()
    }


def _place(family: str) -> str:
    return f"adapters/{check_name(family)}.safetensors"


def embedder(name: str, max_length: int = 128) -> Callable[[Sequence[str]], Features]:
    """A function that embeds texts by an encoder or bundle; a bundle's classification adapter is used if it has one."""
    loaded = load_any(name, max_length=max_length)
    adapter = loaded.primaries.get("classification")
    return lambda texts: embed_texts(loaded.encoder, loaded.tokenizer, texts, adapter)
