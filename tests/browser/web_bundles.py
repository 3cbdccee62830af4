"""Bundles for the tests of the npm package: tiny ones with the default encoder's vocabulary, and the default model."""

from __future__ import annotations

import dataclasses
import shutil
from pathlib import Path
from typing import Literal

import torch
import transformers as hf

import tiny_models
from deployed import QUESTIONS, deploy, head, whole
from trunkline import samples
from trunkline.bundle.edit import Parts, write_bundle
from trunkline.bundle.files import open_bundle
from trunkline.bundle.manifest import TOKENIZER
from trunkline.data.load import load_examples
from trunkline.encoder.bundle_files import Loaded, load_any
from trunkline.encoder.resolve import find_embedded
from trunkline.export.bundle import export_bundle
from trunkline.export.graph import branch_graph, trunk_graph
from trunkline.export.options import ExportOptions
from trunkline.export.quantise import Plan, calibrate, quantised
from trunkline.export.weights import take_weights
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
    everything = whole(loaded, qa=True)
    parts = dataclasses.replace(everything.tasks["names"], head=head(5, 11, transitions=True), units="pieces")
    everything = dataclasses.replace(everything, tasks={**everything.tasks, "parts": parts})
    opened = open_bundle(deploy(everything, folder / f"{kind}-plain", bank=False))
    weights = take_weights(loaded.encoder)
    if kind == "int8":
        texts = (*tiny_models.SENTENCES, *QUESTIONS)
        weights = quantised(weights, Plan(kind, embedding=kind), calibrate(loaded.encoder, loaded.tokenizer, texts))
    targets = opened.manifest.lora_targets
    graphs = {"trunk": trunk_graph(weights), "branch": branch_graph(weights, lora_targets=targets)}
    graphs["branch-required"] = branch_graph(weights, "required", targets)
    adapters = {family: adapter.content for family, adapter in opened.primaries.items()}
    tasks = {name: task.content for name, task in opened.tasks.items()}
    manifest = dataclasses.replace(opened.manifest, weights={"kind": kind})
    write_bundle(folder / kind, manifest, Parts(opened.tokenizer, graphs, adapters=adapters, tasks=tasks))
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
