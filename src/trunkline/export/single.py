"""Exports that are no bundle: one task merged into an ordinary model, and adapters as files of ONNX Runtime."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import Any

from trunkline.atomic import write_atomic
from trunkline.bundle.files import open_bundle
from trunkline.bundle.manifest import TOKENIZER, check_name, is_deployed
from trunkline.engine.session import open_session
from trunkline.errors import TrunklineError
from trunkline.export.adapters import adapter_feeds, head_linear, write_onnx_adapter
from trunkline.export.bundle import COMPARED_TEXTS, replacing, spread
from trunkline.export.graph import merged_graph
from trunkline.export.options import QUANTISED_TOLERANCE, ExportOptions, ExportReport
from trunkline.export.parity import Adapter, check_parity, merged
from trunkline.export.settle import settle
from trunkline.export.source import prepare, with_attention
from trunkline.export.vocabulary import shorten_positions

MODEL, TASK = "model.onnx", "task.json"


def export_merged(source: str, task: str, out: str | Path, options: ExportOptions | None = None) -> ExportReport:
    """Writes one task as an ordinary model: `model.onnx` with its adapter merged in, `tokenizer.json`, `task.json`.

    Args:
        source: A training bundle's folder.
        task: The task's name.
        out: A folder that is new, empty, or holds such an export.
        options: What is asked for; variants, slots and the fork do not matter here.

    Raises:
        TrunklineError: There is no such task, `out` holds something else, or the model differs from torch.
    """
    options, out = options or ExportOptions(), Path(out).expanduser()
    if out.exists() and (not out.is_dir() or (any(out.iterdir()) and not (out / TASK).is_file())):
        raise TrunklineError(f"{out} holds something else", expected="a new folder", todo="Choose another --out")
    prepared = prepare(source, _only(options, task))
    found = prepared.tasks[task]
    lora, head = prepared.lora(found), found.head
    if head is None:
        raise TrunklineError(f"task {task} has no head", expected="a task adapter")
    settled = settle(prepared, _only(options, task))
    length = prepared.loaded.tokenizer.max_length
    weights, kernels = settled.kernels(shorten_positions(prepared.taken(lora), length), range(0))
    content = merged_graph(weights, head_linear(head), found.labels, with_attention(kernels, options.attention))
    run = merged(open_session(content))
    texts = spread(prepared.texts, COMPARED_TEXTS)
    tolerance = options.tolerance or QUANTISED_TOLERANCE[options.weights]
    adapters = {task: Adapter(lora, head)}
    encoder, tokenizer = prepared.encoder, prepared.loaded.tokenizer
    parity = check_parity(encoder, tokenizer, run, texts, adapters, tolerance=tolerance)
    about: dict[str, Any] = {
        "name": task,
        "family": found.family,
        "labels": list(found.labels),
        "transitions": None if head.transitions is None else head.transitions.tolist(),
        "max_length": tokenizer.max_length,
        "overlap": tokenizer.overlap,
        "pad_id": encoder.config.pad_id,
        "weights": settled.facts(),
    }
    files = {
        MODEL: content,
        TOKENIZER: tokenizer.tokenizer.to_str(pretty=False).encode("utf-8"),
        TASK: (json.dumps(about, indent=1, sort_keys=True, ensure_ascii=False) + "\n").encode("utf-8"),
    }
    with replacing(out) as folder:
        for name, part in files.items():
            write_atomic(folder / name, part)
    sizes = {name: len(part) for name, part in files.items()}
    return ExportReport(out, sizes, {"merged": parity}, settled.tokens, None, settled.gate, prepared.longer)


def export_onnx_adapters(source: str, out: str | Path, options: ExportOptions | None = None) -> dict[str, int]:
    """Writes every primary adapter and task as an `.onnx_adapter` file for a bundle's `branch.onnx`.

    A task's file holds all that the graph is fed with: its LoRA, or its family's, and its head. In ONNX Runtime,
    `RunOptions.add_active_adapter` takes it.

    Args:
        source: A deployed bundle, a training bundle or, with `options.peft`, an encoder.
        out: The folder; files in it are replaced.
        options: `tasks`, `fork` and `peft` matter.

    Returns:
        File -> bytes: `NAME.onnx_adapter` for tasks, `FAMILY.primary.onnx_adapter` for primary adapters.

    Raises:
        TrunklineError: There is nothing to write, or as for `prepare` and `open_bundle`.
    """
    options, out = options or ExportOptions(), Path(out).expanduser()
    feeds: dict[str, Any] = {}
    if is_deployed(Path(source).expanduser()):
        deployed = open_bundle(source)
        for name in sorted(deployed.tasks if options.tasks is None else options.tasks):
            if name not in deployed.tasks:
                raise TrunklineError(f"{source} has no task {name}", expected=", ".join(deployed.tasks) or "(none)")
            feeds[name] = deployed.feeds(name)
        feeds |= {f"{family}.primary": part for family, part in deployed.primaries.items()}
    else:
        prepared = prepare(source, options)
        feeds = {name: adapter_feeds(prepared.lora(task), task.head) for name, task in prepared.tasks.items()}
        feeds |= {f"{family}.primary": adapter_feeds(part.lora) for family, part in prepared.primaries.items()}
    if not feeds:
        raise TrunklineError(f"{source} has no adapters", expected="a bundle with tasks, or --peft FAMILY=FOLDER")
    sizes = {}
    for name, part in sorted(feeds.items()):
        path = out / f"{check_name(name)}.onnx_adapter"
        write_onnx_adapter(path, part)
        sizes[path.name] = path.stat().st_size
    return sizes


def _only(options: ExportOptions, task: str) -> ExportOptions:
    examples = {name: part for name, part in options.examples.items() if name == task}
    return dataclasses.replace(options, tasks=(task,), examples=examples)
