"""Deployed bundles of tiny encoders, put together by hand from the parts that the export consists of."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch

import tiny_models
from trunkline.bundle.edit import write_bundle
from trunkline.bundle.files import open_bundle
from trunkline.bundle.manifest import LORA_TARGETS, Manifest
from trunkline.bundle.parts import Head, read_task, task_bytes
from trunkline.encoder.bundle_files import Loaded, adapter_files, manifest_of, save_bundle
from trunkline.encoder.lora import LoraAdapter, adapter_arrays
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
        family: half_adapter(config, layers, seed=seed)
        for seed, family in enumerate(("ner", "classification"), start=1)
    }
    if qa:
        del primaries["classification"]
    tasks, loaded = {}, dataclasses.replace(loaded, primaries=primaries)
    manifest = manifest_of(loaded)

    def add(name: str, family: str, labels: Sequence[str], seed: int, lora: Any = None) -> None:
        moves = family == "ner" and seed % 2 == 1
        own = head(len(labels), seed, config.hidden_size, moves)
        tasks[name] = read_task(task_file(manifest, family, labels, own, lora), manifest, name)

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
    return dataclasses.replace(loaded, tasks=tasks)


def task_file(
    manifest: Manifest, family: str, labels: Sequence[str], own: Head, lora: Any = None, **more: Any
) -> bytes:
    """The file of a task with a head and, if any, LoRA in torch."""
    units = more.pop("units", {"ner": "words", "qa": "question"}.get(family, "text"))
    arrays, alpha = (None, 0.0) if lora is None else (adapter_arrays(lora), lora.config.alpha)
    return task_bytes(manifest, family, tuple(labels), own, units=units, lora=arrays, alpha=alpha, **more)


def deploy(loaded: Loaded, folder: Path, bank: bool = True, lora_targets: Sequence[str] = tuple(LORA_TARGETS)) -> Path:
    """Writes a bundle with graphs and without a checkpoint."""
    weights = take_weights(loaded.encoder)
    graphs = {"trunk": trunk_graph(weights), "branch": branch_graph(weights, lora_targets=lora_targets)}
    if bank:
        graphs["branch-bank"] = branch_graph(weights, "bank", lora_targets)
    places = {name: f"graphs/{name}.onnx" for name in graphs}
    manifest = dataclasses.replace(manifest_of(loaded, "tiny"), lora_targets=tuple(lora_targets), graphs=places)
    files = {places[name]: graph for name, graph in graphs.items()} | adapter_files(loaded)
    files["tokenizer.json"] = loaded.tokenizer.tokenizer.to_str().encode()
    write_bundle(folder, manifest, files, {name: task.content for name, task in loaded.tasks.items()})
    return folder


def with_both(loaded: Loaded, folder: Path, **options: Any) -> Path:
    """Writes a bundle with graphs and with weights for torch."""
    graphs, weights = open_bundle(deploy(loaded, folder / "graphs", **options)), folder / "weights"
    save_bundle(loaded, weights)
    opened = open_bundle(weights)
    one, other = opened.manifest, graphs.manifest
    files = {file: weights / file for file in one.files if not file.startswith("tasks/")}
    files |= {file: graphs.folder / file for file in other.graphs.values()}
    write_bundle(
        folder / "both",
        dataclasses.replace(one, lora_targets=other.lora_targets, graphs=other.graphs),
        files,
        {name: task.content for name, task in opened.tasks.items()},
    )
    return folder / "both"


def predictor(folder: Path, **options: Any) -> Predictor:
    """What predicts with a bundle, beneath `Model`."""
    return load(folder, **options)._predictor
