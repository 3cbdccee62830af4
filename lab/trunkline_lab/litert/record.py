"""A bundle's backbone as LiteRT files with room for its adapters, compared with torch."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from trunkline.bundle.files import write_atomic
from trunkline.bundle.manifest import TOKENIZER
from trunkline.export.bundle import (
    COMPARED_TEXTS,
    QUANTISED_TOLERANCE,
    ExportOptions,
    Source,
    load_source,
    prepare_weights,
    spread,
)
from trunkline.export.parity import Adapter, Outputs, Rows, Run, Tolerance, check_parity
from trunkline_lab.deployment_formats import adapter_inputs
from trunkline_lab.litert.export import LiteRtProcess, export_litert, open_litert
from trunkline_lab.litert.layout import LENGTHS, LiteRtOptions

FLOAT_TOLERANCE = Tolerance(1e-3, 1e-2, 0.9999)
"""LiteRT's kernels add up in another order than torch's."""


def litert_record(source: str, out: Path, options: ExportOptions) -> dict[str, Any]:
    """Writes the files and compares them with torch.

    Args:
        source: A bundle with weights for torch, or an encoder.
        out: The folder.
        options: `weights` float32 or int8; tasks, LoRA inputs and texts as for a bundle.

    Returns:
        `folder`, `bytes`, `files` and `parity`.

    Raises:
        TrunklineError: As for `load_source`, `export_litert` and `check_parity`.
    """
    found = load_source(source, options)
    plain = dataclasses.replace(options, weights="float32")
    weights, _ = prepare_weights(found, plain)
    export_litert(weights, out, litert_options(found, options.weights))
    write_atomic(out / TOKENIZER, found.tokenizer.tokenizer.to_str(pretty=False))
    adapters = {"(none)": Adapter(), **found.adapters}
    usual = QUANTISED_TOLERANCE["int8"] if options.weights == "int8" else FLOAT_TOLERANCE
    texts = spread(found.texts, COMPARED_TEXTS)
    with open_litert(out) as process:
        run = litert_run(process, adapters)
        parity = check_parity(found.encoder, found.tokenizer, run, texts, adapters, tolerance=usual)
    sizes = {path.name: path.stat().st_size for path in sorted(out.iterdir()) if path.is_file()}
    return {"folder": out.name, "bytes": sum(sizes.values()), "files": sizes, "parity": {"litert": parity}}


def litert_options(source: Source, weights: str) -> LiteRtOptions:
    """Room for every adapter and head of a bundle, and signatures up to its window."""
    bundle = source.bundle
    ranks = {target: 16 if target == "qkv" else 1 for target in source.manifest.lora_targets}
    adapters = [part.inputs for part in bundle.primaries.values()] + [task.inputs for task in bundle.tasks.values()]
    for inputs in adapters:
        for name, value in inputs.items():
            if name.startswith("lora.") and name.endswith(".a"):
                target = name.split(".")[2]
                ranks[target] = max(ranks[target], value.shape[1])
    longest = source.tokenizer.max_length
    labels = max([32, *(len(task.labels) for task in bundle.tasks.values())])
    lengths = (*(length for length in LENGTHS if length < longest), longest)
    return LiteRtOptions(lengths, ranks, labels, "int8" if weights == "int8" else "float32")


def litert_run(process: LiteRtProcess, adapters: Mapping[str, Adapter]) -> Run:
    """What `check_parity` calls; rows are run one by one."""
    inputs = {name: adapter_inputs(adapter.lora, adapter.head) for name, adapter in adapters.items()}

    def run(rows: Rows, names: Sequence[str]) -> Outputs:
        found = []
        for ids, mask, pool, name in zip(rows["ids"], rows["mask"], rows["pool"], names, strict=True):
            tokens = int(mask.sum())
            found.append(process.run(ids[:tokens], pool[:, :tokens], inputs[name]))
        return {name: np.stack([outputs[name] for outputs in found]) for name in found[0]}

    return run
