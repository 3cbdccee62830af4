"""`trunkline export --format litert`: a training bundle's backbone as LiteRT files with room for its adapters."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from trunkline.atomic import write_atomic
from trunkline.bundle.manifest import TOKENIZER
from trunkline.errors import TrunklineError
from trunkline.export.adapters import adapter_feeds
from trunkline.export.bundle import COMPARED_TEXTS, spread
from trunkline.export.options import QUANTISED_TOLERANCE, ExportOptions, ExportReport
from trunkline.export.parity import Adapter, Tolerance, check_parity
from trunkline.export.source import Prepared, prepare
from trunkline_lab.litert.export import export_litert, open_litert
from trunkline_lab.litert.gate import litert_run
from trunkline_lab.litert.layout import LENGTHS, LiteRtOptions

FLOAT_TOLERANCE = Tolerance(1e-3, 1e-2, 0.9999)
"""LiteRT's kernels add up in another order than torch's."""


def litert_record(source: str, out: Path, options: ExportOptions) -> dict[str, Any]:
    """Writes trunk.tflite, branch.tflite, litert.json and tokenizer.json, and compares them with torch.

    Args:
        source: A training bundle, or an encoder.
        out: The folder.
        options: `weights` float32 or int8; tasks, slots, the fork, texts and PEFT adapters as for a bundle.

    Returns:
        The record of an `ExportReport`.

    Raises:
        TrunklineError: As for `prepare`, `export_litert` and `check_parity`.
    """
    if options.weights not in ("float32", "int8"):
        raise TrunklineError(f"--weights {options.weights} for LiteRT", expected="float32 or int8")
    prepared = prepare(source, options)
    export_litert(prepared.weights, out, litert_options(prepared, options.weights))
    write_atomic(out / TOKENIZER, prepared.loaded.tokenizer.tokenizer.to_str(pretty=False))
    adapters = {"(none)": Adapter()}
    adapters |= {f"{family} adapter": Adapter(part.lora) for family, part in prepared.primaries.items()}
    adapters |= {name: Adapter(prepared.lora(task), task.head) for name, task in prepared.tasks.items()}
    usual = QUANTISED_TOLERANCE["int8"] if options.weights == "int8" else FLOAT_TOLERANCE
    texts = spread(prepared.texts, COMPARED_TEXTS)
    with open_litert(out) as process:
        run = litert_run(process, adapters)
        encoder, tokenizer = prepared.encoder, prepared.loaded.tokenizer
        parity = check_parity(encoder, tokenizer, run, texts, adapters, tolerance=options.tolerance or usual)
    sizes = {path.name: path.stat().st_size for path in sorted(out.iterdir()) if path.is_file()}
    return ExportReport(out, sizes, {"litert": parity}).record()


def litert_options(prepared: Prepared, weights: str) -> LiteRtOptions:
    """Room for every adapter and head of a bundle, and signatures up to its window."""
    adapters = [adapter_feeds(part.lora) for part in (*prepared.primaries.values(), *prepared.tasks.values())]
    ranks = {slot: 16 if slot == "qkv" else 1 for slot in prepared.slots}
    for feeds in adapters:
        for name, value in feeds.items():
            if name.endswith(".a"):
                slot = name.split(".")[2]
                ranks[slot] = max(ranks[slot], value.shape[1])
    longest = prepared.loaded.tokenizer.max_length
    labels = max([32, *(len(task.labels) for task in prepared.tasks.values())])
    lengths = (*(length for length in LENGTHS if length < longest), longest)
    return LiteRtOptions(lengths, ranks, labels, "int8" if weights == "int8" else "float32")
