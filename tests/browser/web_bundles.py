"""Bundles for the tests of the npm package: tiny ones with the default encoder's vocabulary, and the default model."""

from __future__ import annotations

import dataclasses
import shutil
from pathlib import Path
from typing import Literal

import torch
import transformers as hf

import tiny_models
from deployed import NER_LABELS, QUESTIONS, deploy, head, task_file, whole
from trunkline import samples
from trunkline.bundle.edit import write_bundle
from trunkline.bundle.files import open_bundle
from trunkline.bundle.manifest import SHAPES, TOKENIZER
from trunkline.data.load import load_examples
from trunkline.encoder.bundle_files import Loaded, load_any
from trunkline.encoder.resolve import find_embedded
from trunkline.export.bundle import ExportOptions, export_bundle
from trunkline.export.graph import branch_graph, trunk_graph
from trunkline.export.weights import Plan, calibrate, quantised, take_weights
from trunkline.model import load

TASKS = ("events", "intents", "orders", "triage")
LAYERS = 4


def tiny_encoder(folder: Path) -> Loaded:
    """Four layers of 32 numbers, random, and the tokenizer of the default encoder."""
    source, reason = find_embedded()
    assert source is not None, reason
    torch.manual_seed(0)
    sizes = {"hidden_size": tiny_models.WIDTH, "num_attention_heads": 4, "intermediate_size": 48}
    model = hf.BertModel(hf.BertConfig(**sizes, num_hidden_layers=LAYERS, max_position_embeddings=64))
    with torch.no_grad():
        for parameter in model.parameters():
            parameter += 0.1 * torch.randn_like(parameter)
    model.eval().save_pretrained(str(folder))
    shutil.copy(source / TOKENIZER, folder / TOKENIZER)
    return load_any(str(folder), fork=2, max_length=64)


def tiny_bundle(loaded: Loaded, folder: Path, kind: Literal["float32", "int8"]) -> Path:
    """Tasks of all families, with and without adapters, on words and pieces, and the graph for browsers."""
    opened = open_bundle(deploy(whole(loaded, qa=True), folder / f"{kind}-plain", bank=False))
    weights = take_weights(loaded.encoder)
    if kind == "int8":
        texts = (*tiny_models.SENTENCES, *QUESTIONS)
        weights = quantised(weights, Plan(kind, embedding=kind), calibrate(loaded.encoder, loaded.tokenizer, texts))
    manifest, targets = opened.manifest, opened.manifest.lora_targets
    graphs = {
        "trunk": trunk_graph(weights),
        "branch": branch_graph(weights, lora_targets=targets),
        "branch-required": branch_graph(weights, "required", targets),
    }
    places = {name: f"graphs/{name}.onnx" for name in graphs}
    files: dict[str, bytes | Path] = {file: opened.folder / file for file in (TOKENIZER, *manifest.adapters.values())}
    files |= {places[name]: graph for name, graph in graphs.items()}
    tasks = {name: task.content for name, task in opened.tasks.items()}
    tasks["parts"] = task_file(manifest, "ner", NER_LABELS, head(5, 11, transitions=True), units="pieces")
    said = dataclasses.replace(head(3, 12), decisions={"thresholds": {"a": 0.25, "ü": 0.75}})
    tasks["kinds"] = task_file(manifest, "multilabel", ("a", "b", "ü"), said, units="text")
    held_out = {"a": {"true": [0.2, 0.5, 0.9]}, "b": {"true": [0.3, 0.6]}, "ü": {"true": [0.1]}}
    decisions = {"min_score": 0.5, "other": "ü", "held_out": held_out}
    said = dataclasses.replace(head(3, 13), decisions=decisions)
    tasks["sure"] = task_file(manifest, "classification", ("a", "b", "ü"), said, units="text")
    wide = head(5, 14, width=tiny_models.WIDTH + SHAPES, transitions=True)
    tasks["shapes"] = task_file(manifest, "ner", NER_LABELS, wide, units="words")
    changed = dataclasses.replace(manifest, weights={"kind": kind}, graphs=places)
    write_bundle(folder / kind, changed, files, tasks)
    return folder / kind


def default_bundle(folder: Path) -> Path:
    """The default model in 8 bits with the graph for browsers, and tasks that were fitted on the samples."""
    export_bundle("default", folder, ExportOptions(name="default", weights="int8", variants=("required",), gate=False))
    model = load(folder)
    for name in TASKS:
        _, examples = load_examples(sample(name, "train"))
        model.fit(name, examples)
    model.save(folder)
    return folder


def sample(name: str, part: str) -> Path:
    """A file of the samples."""
    return next((samples.FOLDER / "tasks").glob(f"{name}-{part}.*"))
