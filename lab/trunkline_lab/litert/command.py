"""The command `trunkline-lab litert`: a bundle's backbone as LiteRT files with room for its adapters."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import Annotated, Any, Literal

import typer

from trunkline.atomic import write_atomic
from trunkline.bundle.manifest import TOKENIZER
from trunkline.cli.base import JsonFlag
from trunkline.export.bundle import COMPARED_TEXTS, prepare_weights, spread
from trunkline.export.options import QUANTISED_TOLERANCE, ExportOptions
from trunkline.export.parity import Adapter, Tolerance, check_parity
from trunkline.export.source import Source, load_source
from trunkline_lab.litert.export import export_litert, open_litert
from trunkline_lab.litert.gate import litert_run
from trunkline_lab.litert.layout import LENGTHS, LiteRtOptions

FLOAT_TOLERANCE = Tolerance(1e-3, 1e-2, 0.9999)
"""LiteRT's kernels add up in another order than torch's."""


def litert(
    source: Annotated[str, typer.Argument(help="The folder of a bundle with weights for torch, or an encoder.")],
    out: Annotated[Path, typer.Option(help="The folder to write.")],
    weights: Annotated[Literal["float32", "int8"], typer.Option(help="How weights are stored.")] = "int8",
    task: Annotated[list[str] | None, typer.Option(help="Only this task; repeatable.")] = None,
    texts: Annotated[Path | None, typer.Option(help="Texts to compare on, as `trunkline predict` reads them.")] = None,
    as_json: JsonFlag = False,
) -> None:
    """Write trunk.tflite, branch.tflite, litert.json and tokenizer.json, compared with torch.

    LiteRT's packages are in an environment of their own; TRUNKLINE_LITERT_PYTHON names its interpreter.

    Example: trunkline-lab litert support-bot --out phone
    """
    from trunkline.data.load import load_texts

    read = () if texts is None else tuple(text for text, _ in load_texts(texts))
    options = ExportOptions(weights=weights, tasks=tuple(task) if task else None, texts=read, gate=False)
    record = litert_record(source, out, options)
    typer.echo(json.dumps(record, indent=2) if as_json else f"{record['bytes'] / 1e6:.2f} MB in {out}")


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
    weights, _, _ = prepare_weights(found, plain)
    export_litert(weights, out, litert_options(found, options.weights))
    write_atomic(out / TOKENIZER, found.tokenizer.tokenizer.to_str(pretty=False))
    adapters = {"(none)": Adapter(), **found.adapters}
    usual = QUANTISED_TOLERANCE["int8"] if options.weights == "int8" else FLOAT_TOLERANCE
    texts = spread(found.texts, COMPARED_TEXTS)
    with open_litert(out) as process:
        run = litert_run(process, adapters)
        parity = check_parity(
            found.encoder, found.tokenizer, run, texts, adapters, tolerance=options.tolerance or usual
        )
    sizes = {path.name: path.stat().st_size for path in sorted(out.iterdir()) if path.is_file()}
    return {"folder": out.name, "bytes": sum(sizes.values()), "files": sizes, "parity": {"litert": parity.record()}}


def litert_options(source: Source, weights: str) -> LiteRtOptions:
    """Room for every adapter and head of a bundle, and signatures up to its window."""
    bundle = source.bundle
    ranks = {target: 16 if target == "qkv" else 1 for target in source.manifest.slots}
    adapters = [part.feeds for part in bundle.primaries.values()] + [task.feeds for task in bundle.tasks.values()]
    for feeds in adapters:
        for name, value in feeds.items():
            if name.startswith("lora.") and name.endswith(".a"):
                target = name.split(".")[2]
                ranks[target] = max(ranks[target], value.shape[1])
    longest = source.tokenizer.max_length
    labels = max([32, *(len(task.labels) for task in bundle.tasks.values())])
    lengths = (*(length for length in LENGTHS if length < longest), longest)
    return LiteRtOptions(lengths, ranks, labels, "int8" if weights == "int8" else "float32")
