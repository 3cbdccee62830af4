"""Makes `src/trunkline/engine/template`: `python -m trunkline_lab.default_template`.

The graphs of the default encoder as an export in int8 makes them, without their weights, and the largest inputs of
linear layers on the texts of the shipped samples. To be run again, and its files committed, whenever graphs change.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import typer

from trunkline.engine import default
from trunkline.export.graph import DEFAULT_SLOTS, branch_graph, trunk_graph
from trunkline.export.layers import Attention
from trunkline.export.options import ExportOptions
from trunkline.export.quantise.kernels import quantised_kernels
from trunkline.export.quantise.plan import PLANS
from trunkline.export.quantise.smooth import Calibration, calibrate
from trunkline.export.source import Prepared, prepare, with_attention

FORK = 3
PLAN = PLANS["int8"]


def prepared() -> Prepared:
    """The default encoder, forked as the default model is."""
    return prepare("default", ExportOptions(weights="int8", fork=FORK))


def seen(source: Prepared) -> Calibration:
    """What a calibration on the samples sees, in the precision in which it is stored."""
    found = calibrate(source.encoder, source.loaded.tokenizer, list(source.texts))
    largest = {name: value.astype(np.float16).astype(np.float32) for name, value in found.largest.items()}
    return Calibration(largest, {}, found.tokens)


def stored(folder: Path = default.TEMPLATE) -> Calibration:
    """The calibration of a template."""
    with np.load(folder / default.CALIBRATION, allow_pickle=False) as file:
        return Calibration({name: file[name].astype(np.float32) for name in file.files}, {}, 0)


def graphs(
    source: Prepared, calibration: Calibration, slots: tuple[str, ...], attention: Attention
) -> dict[str, bytes]:
    """The whole graphs, weights and all, as an export makes them."""
    weights, kernels = quantised_kernels(source.weights, PLAN, calibration)
    kernels = with_attention(kernels, attention)
    return {
        "trunk": trunk_graph(weights, kernels),
        "branch": branch_graph(weights, "optional", slots, kernels),
        "branch-bank": branch_graph(weights, "bank", slots, kernels),
    }


def stripped(model: bytes) -> bytes:
    """A model without the initializers that `engine.default` makes of weights: all that belong to a layer."""
    import onnx

    found = onnx.load_from_string(model)
    kept = [item for item in found.graph.initializer if not item.name.startswith(("layers.", "embeddings."))]
    del found.graph.initializer[:]
    found.graph.initializer.extend(kept)
    return bytes(found.SerializeToString(deterministic=True))


def write(folder: Path, slots: tuple[str, ...] = DEFAULT_SLOTS, attention: Attention = "fast") -> dict[str, int]:
    """Writes a template into a folder; gives the bytes of its files."""
    source = prepared()
    calibration = seen(source)
    config, facts = source.encoder.config, PLAN.facts()
    record: dict[str, Any] = {
        "backbone": source.weights.hash,
        "fork": FORK,
        "max_length": source.loaded.tokenizer.max_length,
        "slots": list(slots),
        "attention": attention,
        "alpha": PLAN.alpha,
        "per_token": list(PLAN.per_token),
        "weights": {"kind": facts.pop("weights"), **facts},
        "calibration_tokens": calibration.tokens,
        "hidden_size": config.hidden_size,
    }
    folder.mkdir(parents=True, exist_ok=True)
    for name, model in graphs(source, calibration, slots, attention).items():
        (folder / f"{name}.onnx").write_bytes(stripped(model))
    (folder / default.FACTS).write_text(json.dumps(record, indent=1) + "\n", encoding="utf-8")
    halves: dict[str, Any] = {name: value.astype(np.float16) for name, value in calibration.largest.items()}
    np.savez_compressed(folder / default.CALIBRATION, allow_pickle=False, **halves)
    return {path.name: path.stat().st_size for path in sorted(folder.iterdir())}


def main(
    slots: Annotated[str, typer.Option(help="LoRA inputs of the branch, divided by commas.")] = ",".join(DEFAULT_SLOTS),
    attention: Annotated[str, typer.Option(help="fast, for ONNX Runtime alone, or portable.")] = "fast",
) -> None:
    """Makes the template of the default model."""
    chosen: Attention = "fast" if attention == "fast" else "portable"
    for name, size in write(default.TEMPLATE, tuple(slots.split(",")), chosen).items():
        typer.echo(f"{size:8} {name}")


if __name__ == "__main__":
    typer.run(main)
