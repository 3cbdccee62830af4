"""Fitting one task: a convex head on frozen features, or LoRA and head together from that start."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from trunkline.adapt import fitting
from trunkline.adapt.lora import LoraResult, train_lora
from trunkline.config import AdaptSection
from trunkline.encoder.adapter_file import AdapterFile
from trunkline.encoder.bundle_files import Loaded
from trunkline.encoder.features import Features
from trunkline.errors import TrunklineError
from trunkline.tasks import Family, get_family
from trunkline.tasks.base import Scores


@dataclass(frozen=True)
class TaskData:
    """A task: its family and its labelled parts; `test` may be empty."""

    name: str
    family: str
    train: Sequence[Any]
    dev: Sequence[Any]
    test: Sequence[Any] = ()


@dataclass(frozen=True)
class Adapted:
    """A fitted task: the adapter to save, its scores, and its predictions on test."""

    adapter: AdapterFile
    dev: Scores
    test: Scores
    predictions: Sequence[Any]


FeatureMap = dict[str, Sequence[Features]]


def adapt(
    task: TaskData,
    start: Loaded,
    section: AdaptSection,
    *,
    seed: int = 0,
    features: FeatureMap | None = None,
    bf16: bool = False,
    progress: Callable[[str], None] = lambda text: None,
) -> Adapted:
    """Fits a task on a frozen encoder, from its family's primary adapter where there is one.

    Args:
        task: Its examples. The head's penalty and transitions, and in mode lora the epoch, are chosen on dev.
        start: The encoder, from `load_any`.
        section: Mode and settings.
        seed: Of the LoRA initialisation and the order of batches; a head alone has no randomness.
        features: `train`, `dev` and `test` features where they are known already; computed if not.
        bf16: Whether features that are computed here, by which scores and predictions are made, are in bf16.
        progress: Receives a line of text now and then.

    Raises:
        TrunklineError: No examples to train or choose on.
    """
    if not task.train or not task.dev:
        raise TrunklineError(
            f"task {task.name} has {len(task.train)} train and {len(task.dev)} dev examples",
            expected="both, because settings are chosen on dev",
            todo="Give --dev, or --dev-fraction to set a part of train aside",
        )
    family = get_family(task.family)
    labels = family.labels(task.train)
    primary = start.primary(task.family)
    known = features or task_features(task, start, bf16=bf16)
    head, penalty, dev_score = fitting.fit(
        family, (known["train"], task.train), (known["dev"], task.dev), labels, section.penalties
    )
    progress(f"head: dev {family.main_score} {dev_score:.4f} at penalty {penalty}")
    info: dict[str, Any] = {"task": task.name, "mode": section.mode, "penalty": penalty, "n_train": len(task.train)}
    if "quantised" in start.info:
        info["quantised"] = start.info["quantised"]
    lora = None
    if section.mode == "lora":
        tuned = train_lora(task.train, task.dev, start, section, (family, labels, head), seed=seed, progress=progress)
        lora, head, known = tuned.lora, tuned.head, _features_of(tuned, task, start, bf16)
        info |= {"epochs": tuned.epochs, "best_epoch": tuned.best_epoch, "seed": seed}
    dev = fitting.score(family, head, known["dev"], task.dev, labels)
    predictions = fitting.predict(family, head, known["test"], task.test, labels) if task.test else []
    test = family.score(task.test, predictions) if task.test else {}
    adapter = AdapterFile(
        family=task.family,
        backbone=start.backbone,
        fork=start.encoder.fork,
        lora=lora,
        head=head,
        labels=labels,
        info={**info, "dev": dev, "test": test},
    )
    return Adapted(adapter, dev, test, predictions)


def task_features(task: TaskData, start: Loaded, *, bf16: bool = False) -> FeatureMap:
    """Features of all parts of a task through its family's primary adapter, computed once."""
    return _part_features(task, start, start.primary(task.family), get_family(task.family), bf16)


def _features_of(tuned: LoraResult, task: TaskData, start: Loaded, bf16: bool) -> FeatureMap:
    scored = TaskData(task.name, task.family, (), task.dev, task.test)
    return _part_features(scored, start, tuned.lora, get_family(task.family), bf16)


def _part_features(task: TaskData, start: Loaded, deltas: Any, family: Family, bf16: bool) -> FeatureMap:
    parts = {"train": task.train, "dev": task.dev, "test": task.test}
    return {
        name: fitting.example_features(family, part, start.encoder, start.tokenizer, deltas, bf16=bf16) if part else []
        for name, part in parts.items()
    }
