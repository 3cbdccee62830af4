"""A bundle's tasks in two more formats: one task merged into an ordinary ONNX model, and `.onnx_adapter` files."""

from __future__ import annotations

import copy
import dataclasses
import json
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch

from trunkline.bundle.edit import new_folder
from trunkline.bundle.files import check_free, write_atomic
from trunkline.bundle.manifest import TOKENIZER, FloatArray, Inputs
from trunkline.bundle.parts import Head, fuse
from trunkline.encoder.encoder import Encoder
from trunkline.encoder.lora import LoraAdapter, adapter_arrays
from trunkline.engine.onnx import open_session
from trunkline.errors import TrunklineError
from trunkline.export.bundle import (
    COMPARED_TEXTS,
    QUANTISED_TOLERANCE,
    ExportOptions,
    load_source,
    prepare_weights,
    spread,
)
from trunkline.export.graph import EncoderGraph
from trunkline.export.parity import Run, check_parity
from trunkline.export.weights import BackboneWeights


def adapter_inputs(lora: LoraAdapter | None, head: Head | None = None) -> Inputs:
    """The inputs of the branch graph for an adapter and a head, in full float32 precision."""
    found = {} if lora is None else fuse(adapter_arrays(lora))
    if head is not None:
        found |= {"head.weight": np.asarray(head.weight, np.float32), "head.bias": np.asarray(head.bias, np.float32)}
    return found


def write_onnx_adapter(path: Path, inputs: Mapping[str, FloatArray], model_version: int = 1) -> None:
    """Writes inputs of the branch graph as an `.onnx_adapter` file; raises TrunklineError if there are none."""
    import onnxruntime

    # A tensor without elements cannot be stored, and left out it means the same.
    kept = {name: value for name, value in sorted(inputs.items()) if value.size}
    if not kept:
        raise TrunklineError("an adapter without any update and without a head", expected="at least one of them")
    adapter = onnxruntime.AdapterFormat()
    adapter.set_adapter_version(1)
    adapter.set_model_version(model_version)
    adapter.set_parameters(
        {name: onnxruntime.OrtValue.ortvalue_from_numpy(np.ascontiguousarray(v)) for name, v in kept.items()}
    )
    with tempfile.TemporaryDirectory() as folder:
        temporary = Path(folder) / "adapter"
        adapter.export_adapter(str(temporary))
        write_atomic(path, temporary.read_bytes())


def merged_encoder(encoder: Encoder, lora: LoraAdapter | None) -> Encoder:
    """An encoder with an adapter in its weights, `W + alpha / rank * B A` (Hu et al. 2022, section 4.1)."""
    other = copy.deepcopy(encoder)
    if lora is None:
        return other
    lora.config.check(encoder.config, 0)
    with torch.no_grad():
        for layer in lora.config.layers:
            for target in lora.config.targets:
                part = lora.part(layer, target)
                getattr(other.layers[layer], target).weight += part.scale * (part.b @ part.a)
    return other


def merged_graph(weights: BackboneWeights, head: Head, labels: Sequence[str] = ()) -> bytes:
    """One task as an ordinary model: `ids`, `mask` and `pool` in, `logits` out.

    Args:
        weights: The backbone with the task's adapter in its weights.
        head: The head, `weight` [hidden, labels].
        labels: Names of the outputs, for the model's metadata.

    Raises:
        TrunklineError: The head does not fit the backbone or the labels.
    """
    hidden, n_labels = weights.config.hidden_size, head.weight.shape[-1]
    fits = head.weight.shape == (hidden, n_labels) and head.bias.shape == (n_labels,)
    if not fits or (labels and len(labels) != n_labels):
        raise TrunklineError(
            f"a head of {head.weight.shape} with bias {head.bias.shape} and {len(labels)} labels",
            expected=f"({hidden}, labels), (labels,) and a name for each label",
        )
    graph = EncoderGraph(weights)
    graph.inputs("ids", "mask", "pool")
    weight, bias = (graph.constant(f"head.{part}", getattr(head, part), np.float32) for part in ("weight", "bias"))
    graph.branch(graph.trunk(), weight, bias)
    graph.output("logits", ["rows", "units", n_labels], "outputs of the head")
    doc = "An encoder with one task merged into it"
    return graph.model("merged", doc, labels=json.dumps(list(labels), ensure_ascii=False))


def merged(session: Any) -> Run:
    """A session of a merged graph for `check_parity`; it has one adapter, that of the task, and gives no features."""
    return lambda rows, names: {"logits": session.run(["logits"], dict(rows))[0]}


def export_merged(source: str | Path, task: str, out: str | Path, options: ExportOptions) -> dict[str, Any]:
    """Writes one task as an ordinary model: `model.onnx` with its adapter merged in, and `tokenizer.json`.

    The model is compared with torch by the probabilities of its labels, as it gives no features.

    Args:
        source: A bundle's folder.
        task: The task's name.
        out: A new or empty folder.
        options: What is asked for; variants and LoRA inputs do not matter here, and nothing judges rounded weights.

    Raises:
        TrunklineError: There is no such task, `out` is taken, or the model differs from torch.
    """
    out = Path(out).expanduser()
    check_free(out)
    options = dataclasses.replace(options, tasks=(task,), examples={}, gate=False)
    found = load_source(source, options)
    own, adapter = found.bundle.tasks[task], found.adapters[task]
    bare = dataclasses.replace(found.bundle, tasks={}, primaries={})
    plain = dataclasses.replace(found, bundle=bare, encoder=merged_encoder(found.encoder, adapter.lora))
    # With the fork behind the last layer, no layer has LoRA inputs to mind.
    plain.encoder.fork = plain.encoder.config.n_layers
    weights, _ = prepare_weights(plain, options)
    weights = dataclasses.replace(weights, fork=found.encoder.fork)
    content = merged_graph(weights, own.head, own.labels)
    run, texts = merged(open_session(content)), spread(found.texts, COMPARED_TEXTS)
    parity = check_parity(
        found.encoder, found.tokenizer, run, texts, {task: adapter}, tolerance=QUANTISED_TOLERANCE[options.weights]
    )
    with new_folder(out) as folder:
        write_atomic(folder / "model.onnx", content)
        write_atomic(folder / TOKENIZER, found.tokenizer.tokenizer.to_str(pretty=False))
    return parity
