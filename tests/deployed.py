"""Deployed bundles of tiny encoders, put together by hand from the parts that the export consists of."""

from __future__ import annotations

import dataclasses
import hashlib
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.numpy import save

import tiny_models
from trunkline.bundle.lora import SLOTS
from trunkline.bundle.manifest import EncoderFacts, FileEntry, Manifest, TaskEntry
from trunkline.encoder.adapter_file import AdapterFile, lora_hash
from trunkline.encoder.bundle_files import Loaded
from trunkline.encoder.lora import LoraAdapter
from trunkline.export.adapters import adapter_tensors, to_half
from trunkline.export.graph import branch_graph, trunk_graph
from trunkline.export.weights import take_weights
from trunkline.heads.linear import LinearHead

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


def head(labels: int, seed: int, width: int = tiny_models.WIDTH, transitions: bool = False) -> LinearHead:
    rng = np.random.default_rng(seed)
    weight, bias = rng.normal(size=(labels, width)), rng.normal(size=labels)
    moves = rng.normal(size=(labels + 1, labels)) if transitions else None
    return LinearHead(half(weight), half(bias), None if moves is None else half(moves))


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
        primary = primaries[family].lora if family in primaries and lora is None else None
        moves = family == "ner" and seed % 2 == 1
        tasks[name] = AdapterFile(
            family,
            loaded.backbone,
            fork,
            lora=lora,
            head=head(len(labels), seed, config.hidden_size, moves),
            labels=tuple(labels),
            primary=lora_hash(primary),
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


def task_bytes(task: AdapterFile, primary: str = "") -> bytes:
    tensors = to_half(adapter_tensors(task.lora, task.head))
    record = {
        "format": 1,
        "kind": "task",
        "family": task.family,
        "backbone": task.backbone,
        "fork": task.fork,
        "labels": list(task.labels),
        "primary": primary,
        "info": {},
    }
    return save(tensors, {"trunkline": json.dumps(record)})


def primary_bytes(adapter: AdapterFile) -> bytes:
    record = {
        "format": 1,
        "kind": "adapter",
        "family": adapter.family,
        "backbone": adapter.backbone,
        "fork": adapter.fork,
        "lora": lora_hash(adapter.lora),
    }
    return save(to_half(adapter_tensors(adapter.lora)), {"trunkline": json.dumps(record)})


def deploy(loaded: Loaded, folder: Path, bank: bool = True, slots: Sequence[str] = tuple(SLOTS)) -> Path:
    """Writes a deployed bundle."""
    weights, config = take_weights(loaded.encoder), loaded.encoder.config
    graphs = {"trunk": trunk_graph(weights), "branch": branch_graph(weights, slots=slots)}
    if bank:
        graphs["branch-bank"] = branch_graph(weights, "bank", slots)
    content = {f"{name}.onnx": graph for name, graph in graphs.items()}
    content["tokenizer.json"] = loaded.tokenizer.tokenizer.to_str().encode()
    content |= {f"adapters/{family}.safetensors": primary_bytes(a) for family, a in loaded.primaries.items()}
    for name, task in loaded.tasks.items():
        primary = ""
        if task.lora is None and task.family in loaded.primaries:
            adapter = content[f"adapters/{task.family}.safetensors"]
            primary = f"{task.family}@{hashlib.sha256(adapter).hexdigest()}"
        content[f"tasks/{name}.safetensors"] = task_bytes(task, primary)
    tokenizer = loaded.tokenizer
    facts = EncoderFacts(
        model_type=config.model_type,
        hidden_size=config.hidden_size,
        intermediate_size=config.intermediate_size,
        n_layers=config.n_layers,
        n_heads=config.n_heads,
        fork=loaded.encoder.fork,
        max_length=tokenizer.max_length,
        overlap=tokenizer.overlap,
        pad_id=config.pad_id,
        activation=config.activation,
        vocabulary_size=config.vocab_size,
    )
    manifest = Manifest(
        name="tiny",
        trunkline="0",
        encoder=facts,
        backbone=loaded.backbone,
        weights={"kind": "float32"},
        slots=tuple(slots),
        graphs={name: f"{name}.onnx" for name in graphs},
        adapters={family: f"adapters/{family}.safetensors" for family in loaded.primaries},
        tasks={name: TaskEntry(task.family, f"tasks/{name}.safetensors") for name, task in loaded.tasks.items()},
        files={name: FileEntry(hashlib.sha256(data).hexdigest(), len(data)) for name, data in content.items()},
    )
    for name, data in {**content, "manifest.json": manifest.to_json()}.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data)
    return folder
