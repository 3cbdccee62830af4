"""A tiny training bundle with tasks of every kind, and the deployed bundle made of it."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import numpy as np

import tiny_models
from trunkline.bundle.parts import Head
from trunkline.encoder.bundle_files import AdapterFile, Loaded, save_bundle
from trunkline.export.bundle import ExportOptions, ExportReport, export_bundle

TAGS = ("O", "B-person", "I-person")


def head(loaded: Loaded, labels: int, seed: int, transitions: bool = False) -> Head:
    rng = np.random.default_rng(seed)
    weight = rng.normal(size=(labels, loaded.encoder.config.hidden_size)).astype(np.float32)
    worth = rng.normal(size=(labels + 1, labels)).astype(np.float32) if transitions else None
    return Head(np.ascontiguousarray(weight.T), rng.normal(size=labels).astype(np.float32), worth)


def adapter(loaded: Loaded, family: str, seed: int = 0, **parts: Any) -> AdapterFile:
    return AdapterFile(family, loaded.backbone, loaded.encoder.fork, **parts, info={"task": f"made up, seed {seed}"})


def tiny_tasks(loaded: Loaded) -> dict[str, AdapterFile]:
    config = loaded.encoder.config
    own = tiny_models.random_adapter(config, (2, 3), rank=2, seed=5, targets=("query", "down"))
    return {
        "people": adapter(loaded, "ner", 1, head=head(loaded, 3, 1, True), labels=TAGS),
        "topics": adapter(loaded, "classification", 2, head=head(loaded, 2, 2), labels=("work", "rest")),
        "own": adapter(loaded, "ner", 3, head=head(loaded, 3, 3), labels=TAGS, lora=own),
    }


def training_bundle(loaded: Loaded, folder: Path) -> Path:
    """A bundle with a primary adapter for ner, a head on it, a head on nothing, and a task with LoRA of its own."""
    lora = tiny_models.random_adapter(loaded.encoder.config, (2, 3), rank=3, seed=4)
    primary = adapter(loaded, "ner", 4, lora=lora)
    save_bundle(dataclasses.replace(loaded, primaries={"ner": primary}, tasks=tiny_tasks(loaded)), folder)
    return folder


def exported(loaded: Loaded, folder: Path, **options: Any) -> ExportReport:
    """The deployed bundle, `folder / "deployed"`, of the training bundle `folder / "training"`."""
    source = training_bundle(loaded, folder / "training")
    chosen = ExportOptions(**{"texts": tuple(tiny_models.SENTENCES), "name": "tiny", **options})
    return export_bundle(str(source), folder / "deployed", chosen)
