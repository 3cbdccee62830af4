"""A tiny training bundle with tasks of every kind, and the deployed bundle made of it."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import numpy as np

import deployed
import tiny_models
from trunkline.bundle.parts import Head, Task, read_task
from trunkline.encoder.bundle_files import Loaded, manifest_of, save_bundle
from trunkline.export.bundle import ExportOptions, export_bundle

TAGS = ("O", "B-person", "I-person")


def head(loaded: Loaded, labels: int, seed: int, transitions: bool = False) -> Head:
    rng = np.random.default_rng(seed)
    weight = rng.normal(size=(labels, loaded.encoder.config.hidden_size)).astype(np.float32)
    worth = rng.normal(size=(labels + 1, labels)).astype(np.float32) if transitions else None
    return Head(np.ascontiguousarray(weight.T), rng.normal(size=labels).astype(np.float32), worth)


def tiny_tasks(loaded: Loaded) -> dict[str, Task]:
    manifest = manifest_of(loaded)
    lora = tiny_models.random_adapter(loaded.encoder.config, (2, 3), rank=2, seed=5, targets=("query", "down"))
    files = {
        "people": deployed.task_file(manifest, "ner", TAGS, head(loaded, 3, 1, True)),
        "topics": deployed.task_file(manifest, "classification", ("work", "rest"), head(loaded, 2, 2)),
        "own": deployed.task_file(manifest, "ner", TAGS, head(loaded, 3, 3), lora),
    }
    return {name: read_task(content, manifest, name) for name, content in files.items()}


def training_bundle(loaded: Loaded, folder: Path) -> Path:
    """A bundle with a primary adapter for ner, a head on it, a head on nothing, and a task with LoRA of its own."""
    lora = tiny_models.random_adapter(loaded.encoder.config, (2, 3), rank=3, seed=4)
    loaded = dataclasses.replace(loaded, primaries={"ner": lora})
    save_bundle(dataclasses.replace(loaded, tasks=tiny_tasks(loaded)), folder)
    return folder


def exported(loaded: Loaded, folder: Path, **options: Any) -> dict[str, Any]:
    """The deployed bundle, `folder / "deployed"`, of the training bundle `folder / "training"`."""
    source = training_bundle(loaded, folder / "training")
    chosen = ExportOptions(**{"texts": tuple(tiny_models.SENTENCES), "name": "tiny", **options})
    return export_bundle(str(source), folder / "deployed", chosen)
