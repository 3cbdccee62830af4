"""What is exported: a bundle with weights for torch, or a plain encoder, with what its graphs must take."""

from __future__ import annotations

import csv
import dataclasses
import json
from dataclasses import dataclass
from functools import cached_property
from itertools import zip_longest
from pathlib import Path

import trunkline.samples
from trunkline import __version__
from trunkline.bundle.files import Bundle, open_bundle
from trunkline.bundle.lora import SLOTS
from trunkline.bundle.manifest import MANIFEST, Licence, Manifest
from trunkline.encoder.adapter_file import primary_in_torch, task_in_torch
from trunkline.encoder.bundle_files import bundle_encoder, cached_bundle
from trunkline.encoder.encoder import Encoder
from trunkline.encoder.lora import LoraAdapter
from trunkline.encoder.storage import load_tokenizer
from trunkline.engine.base import Engine, Predictor
from trunkline.engine.rows import TextReader
from trunkline.engine.torch import TorchEngine
from trunkline.errors import TrunklineError
from trunkline.export.graph import DEFAULT_LORA_TARGETS
from trunkline.export.options import ExportOptions
from trunkline.export.parity import Adapter
from trunkline.export.vocabulary import prune_encoder, prune_vocabulary
from trunkline.text.tokens import TextTokenizer


@dataclass(frozen=True)
class Source:
    """A bundle that was checked and is ready to be exported.

    Attributes:
        bundle: With the tasks that are exported.
        manifest: Of the export, but for weights and files.
        encoder: Its encoder in float32, with the vocabulary that is exported.
        tokenizer: The tokenizer that is exported.
        whole: Encoder and tokenizer with the whole vocabulary.
        texts: For comparison and calibration.
        longer: Tokens of the texts with the smaller vocabulary over tokens with the whole one.
    """

    bundle: Bundle
    manifest: Manifest
    encoder: Encoder
    tokenizer: TextTokenizer
    whole: tuple[Encoder, TextTokenizer]
    texts: tuple[str, ...]
    longer: float = 1.0

    @cached_property
    def adapters(self) -> dict[str, Adapter]:
        """Primary adapters, as `FAMILY adapter`, and tasks in torch, with the float16 values of their files."""
        manifest, config = self.bundle.manifest, self.encoder.config
        found = {
            f"{family} adapter": Adapter(primary_in_torch(primary, manifest, config).lora)
            for family, primary in self.bundle.primaries.items()
        }
        for name, task in sorted(self.bundle.tasks.items()):
            own, shared = task_in_torch(task, manifest, config), found.get(f"{task.family} adapter", Adapter())
            found[name] = Adapter(own.lora if task.own_lora else shared.lora, own.head)
        return found

    @property
    def loras(self) -> list[LoraAdapter]:
        """Every LoRA once."""
        found = {id(adapter.lora): adapter.lora for adapter in self.adapters.values() if adapter.lora is not None}
        return list(found.values())

    def predictor(self, engine: Engine | None = None) -> Predictor:
        """The tasks on an engine of what is exported; by default on torch, with the whole vocabulary."""
        encoder, tokenizer = self.whole if engine is None else (self.encoder, self.tokenizer)
        reader = TextReader(tokenizer, self.bundle.tokenizer)
        primaries = {family: primary.feeds for family, primary in self.bundle.primaries.items()}
        return Predictor(reader, engine or TorchEngine(encoder), primaries, self.bundle.tasks.values())


def load_source(source: str | Path, options: ExportOptions) -> Source:
    """Loads what is exported, and refuses at once what could not be finished.

    Args:
        source: A bundle's folder, or an encoder by folder or name.
        options: What is asked for.

    Raises:
        EncoderError: The encoder is damaged or cannot be found.
        TrunklineError: The bundle has no weights for torch; a task that there is not; tasks, rounded weights and no
            examples to judge them by.
    """
    bundle = _opened(source, options)
    encoder = bundle_encoder(bundle)
    tokenizer = load_tokenizer(bundle.folder, encoder.config, bundle.manifest.encoder.max_length)
    texts = tuple(text for text in options.texts if text.strip())
    small, read, longer = encoder, tokenizer, 1.0
    if options.vocabulary is not None:
        vocabulary = prune_vocabulary(tokenizer, texts, options.vocabulary, (encoder.config.pad_id,))
        small, read, longer = prune_encoder(encoder, vocabulary), vocabulary.tokenizer, vocabulary.longer
    return Source(
        bundle=bundle,
        manifest=_manifest(bundle, small, options),
        encoder=small,
        tokenizer=read,
        whole=(encoder, tokenizer),
        texts=texts or sample_texts(),
        longer=longer,
    )


def _manifest(bundle: Bundle, encoder: Encoder, options: ExportOptions) -> Manifest:
    """The bundle's, with LoRA inputs where its adapters have updates, or by default on query, key and value."""
    adapters = [part.feeds for part in bundle.primaries.values()] + [task.feeds for task in bundle.tasks.values()]
    used = {name.split(".")[2] for feeds in adapters for name in feeds if name.startswith("lora.")}
    targets = tuple(target for target in SLOTS if target in (used | set(options.lora_targets) or DEFAULT_LORA_TARGETS))
    manifest, config = bundle.manifest, encoder.config
    return dataclasses.replace(
        manifest,
        trunkline=__version__,
        encoder=dataclasses.replace(manifest.encoder, vocabulary_size=config.vocab_size, pad_id=config.pad_id),
        slots=targets,
        licences=manifest.licences or (Licence(str(manifest.info.get("encoder", "encoder"))[:1000], "unknown"),),
    )


def sample_texts() -> tuple[str, ...]:
    """Training texts of the shipped samples, of all their tasks in turn."""
    columns: list[list[str]] = []
    for path in sorted(Path(trunkline.samples.__file__).with_name("tasks").glob("*-train.*")):
        lines = path.read_text(encoding="utf-8").splitlines()
        rows = csv.DictReader(lines) if path.suffix == ".csv" else map(json.loads, lines)
        columns.append([row["text"] for row in rows])
    return tuple(text for row in zip_longest(*columns) for text in row if text)


def _opened(source: str | Path, options: ExportOptions) -> Bundle:
    """The bundle with the chosen tasks."""
    folder = Path(source).expanduser()
    bundle = open_bundle(folder if (folder / MANIFEST).is_file() else cached_bundle(str(source)))
    names = set(bundle.tasks if options.tasks is None else options.tasks)
    for asked, what in ((names, "to export"), (set(options.examples), "to judge weights by")):
        unknown = sorted(asked - (bundle.tasks.keys() if what == "to export" else names))
        if unknown:
            known = ", ".join(sorted(bundle.tasks if what == "to export" else names)) or "(none)"
            raise TrunklineError(f"{source} has no task {', '.join(unknown)} {what}", expected=f"some of {known}")
    if names and options.gate and not options.exact and not options.examples:
        what = "a smaller vocabulary" if options.weights == "float32" else f"{options.weights} weights"
        raise TrunklineError(
            f"{what} and {len(names)} tasks without examples to judge them by",
            expected="labelled examples of at least one task",
            todo="Give `--dev NAME=FILE`, or `--no-gate` to go without",
        )
    return dataclasses.replace(bundle, tasks={name: bundle.tasks[name] for name in sorted(names)})
