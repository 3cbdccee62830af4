"""Deployed bundles of tiny encoders, put together by hand from the parts that the export consists of."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch

import tiny_models
from trunkline.bundle.edit import Parts, with_primaries, write_bundle
from trunkline.bundle.files import open_bundle
from trunkline.bundle.lora import LORA_TARGETS
from trunkline.bundle.parts import Head
from trunkline.encoder.bundle_files import AdapterFile, Loaded, manifest_of, primary_file, save_bundle, task_file
from trunkline.encoder.lora import LoraAdapter
from trunkline.engine.base import Predictor
from trunkline.export.graph import branch_graph, trunk_graph
from trunkline.export.weights import take_weights
from trunkline.model import load

NER_LABELS = ("O", "B-person", "I-person", "B-place", "I-place")
QA_LABELS = ("O", "start", "end", "single", "no answer")
TEXTS = [
    *tiny_models.SENTENCES,
    "",
    " ",
    "\x00\x01\x02",
    "a\u0301 \ufffd 北京",
    " ".join(["berlin", "and", "ann"] * 60),
]
QUESTIONS = [
    "where is ann\nann lives in berlin, near the river",
    "what\n",
    "\n",
    "who met bob\n" + " ".join(tiny_models.WORDS[:150]),
]


def head(labels: int, seed: int, width: int = tiny_models.WIDTH, transitions: bool = False) -> Head:
    rng = np.random.default_rng(seed)
    weight, bias = rng.normal(size=(labels, width)), rng.normal(size=labels)
    moves = rng.normal(size=(labels + 1, labels)) if transitions else None
    return Head(half(weight.T), half(bias), None if moves is None else half(moves))


def half(values: Any) -> Any:
    """Values that float16 holds, so that what is stored in it is not the cause of any difference."""
    return values.astype(np.float16).astype(np.float32)


def half_adapter(*arguments: Any, **options: Any) -> LoraAdapter:
    """A random adapter of such values; its factor, alpha by rank, is a power of two."""
    adapter = tiny_models.random_adapter(*arguments, **options)
    with torch.no_grad():
        for parameter in adapter.parameters():
            parameter.copy_(parameter.half().float())
    return adapter


def whole(loaded: Loaded, qa: bool = False) -> Loaded:
    """Primary adapters of two families, heads on them, tasks with LoRA of their own, and a head on the backbone."""
    config, fork = loaded.encoder.config, loaded.encoder.fork
    layers = range(fork, config.n_layers)
    primaries = {
        family: AdapterFile(family, loaded.backbone, fork, lora=half_adapter(config, layers, seed=seed))
        for seed, family in enumerate(("ner", "classification"), start=1)
    }
    if qa:
        del primaries["classification"]
    tasks = {}

    def add(name: str, family: str, labels: Sequence[str], seed: int, lora: Any = None) -> None:
        moves = family == "ner" and seed % 2 == 1
        tasks[name] = AdapterFile(
            family,
            loaded.backbone,
            fork,
            lora=lora,
            head=head(len(labels), seed, config.hidden_size, moves),
            labels=tuple(labels),
            units={"ner": "words", "classification": "text", "qa": "question"}[family],
        )

    add("names", "ner", NER_LABELS, 3)
    add("more.names-2", "ner", NER_LABELS[:3], 4)
    own = {"layers": [config.n_layers - 1], "rank": 2, "seed": 5, "targets": ("out", "up")}
    add("tuned", "ner", NER_LABELS, 5, half_adapter(config, **own))
    add("topic", "classification", ("a", "b", "ü"), 6)
    add("tone", "classification", ("good", "bad"), 7)
    wide = {"layers": list(layers), "rank": 8, "seed": 8, "targets": ("query", "value", "down")}
    add("topic.tuned", "classification", ("a", "b"), 8, half_adapter(config, **wide))
    if qa:
        add("answers", "qa", QA_LABELS, 9)
        add("answers.tuned", "qa", QA_LABELS[:4], 10, half_adapter(config, list(layers), seed=10))
    return dataclasses.replace(loaded, primaries=primaries, tasks=tasks)


def deploy(loaded: Loaded, folder: Path, bank: bool = True, lora_targets: Sequence[str] = tuple(LORA_TARGETS)) -> Path:
    """Writes a bundle with graphs and without a checkpoint."""
    weights = take_weights(loaded.encoder)
    graphs = {"trunk": trunk_graph(weights), "branch": branch_graph(weights, lora_targets=lora_targets)}
    if bank:
        graphs["branch-bank"] = branch_graph(weights, "bank", lora_targets)
    manifest = dataclasses.replace(manifest_of(loaded, "tiny"), lora_targets=tuple(lora_targets))
    adapters = {family: primary_file(adapter) for family, adapter in loaded.primaries.items()}
    on_these = with_primaries(manifest, adapters)
    write_bundle(
        folder,
        manifest,
        Parts(
            tokenizer=loaded.tokenizer.tokenizer.to_str().encode(),
            graphs=graphs,
            adapters=adapters,
            tasks={name: task_file(task, on_these) for name, task in loaded.tasks.items()},
        ),
    )
    return folder


def with_both(loaded: Loaded, folder: Path, **options: Any) -> Path:
    """Writes a bundle with graphs and with weights for torch."""
    graphs, weights = open_bundle(deploy(loaded, folder / "graphs", **options)), folder / "weights"
    save_bundle(loaded, weights)
    opened = open_bundle(weights)
    write_bundle(
        folder / "both",
        dataclasses.replace(opened.manifest, lora_targets=graphs.manifest.lora_targets),
        Parts(
            tokenizer=opened.tokenizer,
            graphs=graphs.graphs,
            checkpoint={part: weights / file for part, file in opened.manifest.checkpoint.items()},
            adapters={family: adapter.content for family, adapter in opened.primaries.items()},
            tasks={name: task.content for name, task in opened.tasks.items()},
        ),
    )
    return folder / "both"


def predictor(folder: Path, **options: Any) -> Predictor:
    """What predicts with a bundle, beneath `Model`."""
    return load(folder, **options)._predictor
