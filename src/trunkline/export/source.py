"""What is exported: a training bundle or an encoder, with the adapters, slots, weights and texts that it needs."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from trunkline.bundle.lora import SLOTS, Shapes, lora_shapes
from trunkline.encoder.adapter_file import AdapterFile
from trunkline.encoder.bundle_files import Loaded, check_name, check_task, load_any
from trunkline.encoder.encoder import Encoder
from trunkline.encoder.lora import LoraAdapter
from trunkline.encoder.peft_format import import_peft
from trunkline.errors import MismatchError, TrunklineError
from trunkline.export.adapters import adapter_feeds
from trunkline.export.graph import DEFAULT_SLOTS
from trunkline.export.layers import Attention, Kernels
from trunkline.export.options import ExportOptions
from trunkline.export.vocabulary import prune_bundle, prune_vocabulary, shorten_positions
from trunkline.export.weights import BackboneWeights, take_weights
from trunkline.text.examples import NerExample, TextExample
from trunkline_lab.data.cards import load_card

SAMPLES = ("sample_events", "sample_intents", "sample_orders", "sample_triage")
"""Texts of the sample."""


@dataclass(frozen=True)
class Prepared:
    """A source, checked and ready to be exported.

    Attributes:
        loaded: The training bundle, its encoder forked where the export wants it.
        primaries: Family -> primary adapter.
        tasks: By name, those that are exported.
        slots: LoRA inputs of the branch.
        texts: For comparison and calibration.
        start: The same with the whole vocabulary.
        longer: Tokens of the texts with the smaller vocabulary over tokens with the whole one.
    """

    loaded: Loaded
    primaries: Mapping[str, AdapterFile]
    tasks: Mapping[str, AdapterFile]
    slots: tuple[str, ...]
    texts: tuple[str, ...]
    start: Loaded
    longer: float = 1.0

    @property
    def encoder(self) -> Encoder:
        """The encoder, forked where the export wants it."""
        return self.loaded.encoder

    @cached_property
    def weights(self) -> BackboneWeights:
        """The backbone's weights, without positions that no window reaches."""
        return shorten_positions(self.taken(), self.loaded.tokenizer.max_length)

    def taken(self, lora: LoraAdapter | None = None) -> BackboneWeights:
        """The backbone's weights, with an adapter merged into them."""
        return dataclasses.replace(take_weights(self.encoder, lora), hash=self.start.backbone)

    @property
    def loras(self) -> list[LoraAdapter]:
        """The primary adapters, and those of tasks that have their own."""
        return [
            adapter.lora for adapter in (*self.primaries.values(), *self.tasks.values()) if adapter.lora is not None
        ]

    @property
    def shapes(self) -> Shapes:
        """The LoRA inputs of the branch."""
        config = self.encoder.config
        layers = range(self.encoder.fork, config.n_layers)
        return lora_shapes(layers, config.hidden_size, config.intermediate_size, self.slots)

    def lora(self, task: AdapterFile) -> LoraAdapter | None:
        """The LoRA that a task runs through: its own, or its family's."""
        if task.lora is not None or task.family not in self.primaries:
            return task.lora
        return self.primaries[task.family].lora


def prepare(source: str, options: ExportOptions) -> Prepared:
    """Loads what is exported.

    Args:
        source: A training bundle, or an encoder by folder or name.
        options: What is asked for.

    Raises:
        EncoderError: The encoder is damaged or cannot be found.
        MismatchError: Adapters that do not fit the encoder, the fork or each other.
        TrunklineError: A task or slot that there is not.
    """
    loaded = _forked(load_any(source), options.fork)
    primaries = {**loaded.primaries, **{name: _peft(name, path, loaded) for name, path in options.peft.items()}}
    unknown = sorted(set(options.tasks or ()) - loaded.tasks.keys())
    if unknown:
        raise TrunklineError(
            f"{source} has no task {', '.join(unknown)}", expected="some of " + (", ".join(loaded.tasks) or "(none)")
        )
    chosen = sorted(loaded.tasks if options.tasks is None else set(options.tasks))
    tasks = {name: loaded.tasks[name] for name in chosen}
    fork = loaded.encoder.fork
    for name, task in tasks.items():
        check_task(name, task, primaries.get(task.family), fork)
    for adapter in primaries.values():
        if adapter.lora is not None:
            adapter.lora.config.check(loaded.encoder.config, fork)
    start = dataclasses.replace(loaded, primaries=primaries, tasks=tasks)
    texts = tuple(text for text in options.texts if text.strip())
    pruned = prune_vocabulary(loaded.tokenizer, texts, options.vocabulary) if options.vocabulary is not None else None
    return Prepared(
        loaded=start if pruned is None else prune_bundle(start, pruned),
        primaries=primaries,
        tasks=tasks,
        slots=_slots([*primaries.values(), *tasks.values()], options.slots),
        texts=texts or sample_texts(),
        start=start,
        longer=1.0 if pruned is None else pruned.longer,
    )


def with_attention(kernels: Kernels, attention: Attention) -> Kernels:
    """The kernels with the other attention."""
    return dataclasses.replace(kernels, attention=attention)


def sample_texts() -> tuple[str, ...]:
    """Texts of the shipped sample, of all its tasks in turn."""
    parts = (load_card(name).load("train") for name in SAMPLES)
    columns = [[example.text for example in part if isinstance(example, NerExample | TextExample)] for part in parts]
    return tuple(text for row in zip(*columns, strict=False) for text in row)


def _forked(loaded: Loaded, fork: int | None) -> Loaded:
    encoder = loaded.encoder
    if fork is None or fork == encoder.fork:
        return loaded
    if not 0 <= fork <= encoder.config.n_layers:
        raise MismatchError(f"fork at layer {fork}", expected=f"0 to {encoder.config.n_layers}, the number of layers")
    moved = Encoder(encoder.config, fork)
    moved.load_state_dict(encoder.state_dict())
    return dataclasses.replace(loaded, encoder=moved.eval())


def _peft(family: str, folder: Path, loaded: Loaded) -> AdapterFile:
    check_name(family)
    encoder = loaded.encoder
    lora = import_peft(folder, encoder.config)
    lora.config.check(encoder.config, encoder.fork)
    return AdapterFile(family, loaded.backbone, encoder.fork, lora)


def _slots(adapters: Sequence[AdapterFile], wanted: Sequence[str]) -> tuple[str, ...]:
    unknown = sorted(set(wanted) - SLOTS.keys())
    if unknown:
        raise TrunklineError(f"LoRA slots {', '.join(unknown)}", expected="some of " + ", ".join(SLOTS))
    names = {name for adapter in adapters for name in adapter_feeds(adapter.lora)}
    used = {name.split(".")[2] for name in names if name.startswith("lora.")} | set(wanted)
    return tuple(slot for slot in SLOTS if slot in (used or DEFAULT_SLOTS))
