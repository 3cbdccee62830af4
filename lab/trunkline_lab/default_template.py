"""Makes `src/trunkline/engine/template`: `python -m trunkline_lab.default_template`.

The graphs of the default encoder as an export in int8 makes them, without their weights, and the largest inputs of
linear layers on the texts of the shipped samples. To be run again, and its files committed, whenever graphs change.
"""

from __future__ import annotations

import csv
import dataclasses
import json
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal

import numpy as np
import numpy.typing as npt
import torch
import typer

from trunkline import samples
from trunkline.bundle.files import Bundle, open_bundle
from trunkline.encoder.encoder import Encoder
from trunkline.encoder.resolve import resolve
from trunkline.encoder.storage import load_encoder, load_tokenizer
from trunkline.engine import default
from trunkline.engine.onnx import open_session
from trunkline.export.graph import DEFAULT_LORA_TARGETS, Attention, branch_graph, trunk_graph
from trunkline.export.weights import (
    PLANS,
    BackboneWeights,
    Calibration,
    calibrate,
    quantised,
    shorten_positions,
    take_weights,
)
from trunkline.text.tokens import TextTokenizer, text_unit

FORK = 3
PLAN = PLANS["int8"]


@dataclass(frozen=True, slots=True)
class Source:
    """The default encoder in torch, forked as the default model is, and its weights without unreachable positions."""

    encoder: Encoder
    tokenizer: TextTokenizer
    weights: BackboneWeights


def load_source() -> Source:
    """Loads the default encoder."""
    folder = resolve("default").folder
    encoder = load_encoder(folder, FORK)
    tokenizer = load_tokenizer(folder, encoder.config)
    return Source(encoder, tokenizer, shorten_positions(take_weights(encoder), tokenizer.max_length))


def sample_texts(part: Literal["train", "test"]) -> list[str]:
    """The texts of one part of the shipped samples; the calibration reads `train`, so `test` is there to judge it."""
    folder = samples.FOLDER / "tasks"
    texts: list[str] = []
    for path in folder.glob(f"*-{part}.jsonl"):
        texts += [json.loads(line)["text"] for line in path.read_text("utf-8").splitlines()]
    for path in folder.glob(f"*-{part}.csv"):
        with path.open(encoding="utf-8", newline="") as stream:
            texts += [row["text"] for row in csv.DictReader(stream)]
    return sorted(texts)


def seen(source: Source) -> Calibration:
    """What a calibration on the samples sees, in the precision in which it is stored."""
    found = calibrate(source.encoder, source.tokenizer, sample_texts("train"))
    largest = {name: value.astype(np.float16).astype(np.float32) for name, value in found.largest.items()}
    return Calibration(largest, {}, found.tokens)


def stored(folder: Path = default.TEMPLATE) -> Calibration:
    """The calibration of a template."""
    with np.load(folder / default.CALIBRATION, allow_pickle=False) as file:
        return Calibration({name: file[name].astype(np.float32) for name in file.files}, {}, 0)


def graphs(
    source: Source, calibration: Calibration, lora_targets: tuple[str, ...], attention: Attention
) -> dict[str, bytes]:
    """The whole graphs, weights and all, as an export makes them."""
    weights = quantised(source.weights, PLAN, calibration)
    return {
        "trunk": trunk_graph(weights, attention),
        "branch": branch_graph(weights, "optional", lora_targets, attention),
        "branch-bank": branch_graph(weights, "bank", lora_targets, attention),
    }


def stripped(model: bytes) -> bytes:
    """A model without the initializers that `engine.default` makes of weights: all that belong to a layer."""
    import onnx

    found = onnx.load_from_string(model)
    kept = [item for item in found.graph.initializer if not item.name.startswith(("layers.", "embeddings."))]
    del found.graph.initializer[:]
    found.graph.initializer.extend(kept)
    return bytes(found.SerializeToString(deterministic=True))


def fidelity(source: Source, opened: Bundle, texts: Sequence[str]) -> npt.NDArray[np.float64]:
    """The cosine of each token's features in a bundle to those in torch in float32, texts one by one, [tokens]."""
    trunk, branch = open_session(opened.graphs["trunk"]), open_session(opened.graphs["branch"])
    cosines = []
    for tokens in source.tokenizer.encode(texts):
        batch = source.encoder.batch([text_unit(tokens)])
        with torch.inference_mode():
            exact = source.encoder.read(source.encoder.trunk(batch), batch)[0].double().numpy()
        ids = batch.input_ids.numpy()
        mask, pool = np.ones(ids.shape, np.float32), np.eye(ids.shape[1], dtype=np.float32)[None]
        hidden = trunk.run(["hidden"], {"ids": ids, "mask": mask})[0]
        found = branch.run(["features"], {"hidden": hidden, "mask": mask, "pool": pool})[0][0]
        lengths = np.linalg.norm(exact, axis=1) * np.linalg.norm(found, axis=1)
        cosines.append((exact * found).sum(axis=1) / lengths)
    return np.concatenate(cosines)


def write(
    folder: Path, lora_targets: tuple[str, ...] = DEFAULT_LORA_TARGETS, attention: Attention = "fast"
) -> dict[str, int]:
    """Writes a template into a folder; gives the bytes of its files."""
    source = load_source()
    calibration = seen(source)
    facts = PLAN.facts()
    record: dict[str, Any] = {
        "encoder": dataclasses.asdict(source.encoder.config),
        "fork": FORK,
        "max_length": source.tokenizer.max_length,
        "lora_targets": list(lora_targets),
        "attention": attention,
        "alpha": PLAN.alpha,
        "per_token": list(PLAN.per_token),
        "weights": {"kind": facts.pop("weights"), **facts},
        "calibration_tokens": calibration.tokens,
    }
    folder.mkdir(parents=True, exist_ok=True)
    for name, model in graphs(source, calibration, lora_targets, attention).items():
        (folder / f"{name}.onnx").write_bytes(stripped(model))
    (folder / default.FACTS).write_text(json.dumps(record, indent=1) + "\n", encoding="utf-8")
    halves: dict[str, Any] = {name: value.astype(np.float16) for name, value in calibration.largest.items()}
    np.savez_compressed(folder / default.CALIBRATION, allow_pickle=False, **halves)
    return {path.name: path.stat().st_size for path in sorted(folder.iterdir())}


def main(
    lora_targets: Annotated[str, typer.Option(help="LoRA inputs of the branch, divided by commas.")] = ",".join(
        DEFAULT_LORA_TARGETS
    ),
    attention: Annotated[str, typer.Option(help="fast, for ONNX Runtime alone, or portable.")] = "fast",
) -> None:
    """Makes the template of the default model."""
    chosen: Attention = "fast" if attention == "fast" else "portable"
    for name, size in write(default.TEMPLATE, tuple(lora_targets.split(",")), chosen).items():
        typer.echo(f"{size:8} {name}")
    texts = sample_texts("test")
    with tempfile.TemporaryDirectory() as folder:
        default.build(Path(folder))
        found = fidelity(load_source(), open_bundle(folder), texts)
    least, middle = np.quantile(found, (0.001, 0.5))
    typer.echo(
        f"token cosine to float32 on {len(texts)} other texts, {len(found)} tokens: mean {found.mean():.5f}, "
        f"median {middle:.5f}, one in a thousand below {least:.5f}, least {found.min():.5f}"
    )


if __name__ == "__main__":
    typer.run(main)
