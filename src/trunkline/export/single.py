"""One task merged into an ordinary model, for places where nothing of trunkline runs."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from trunkline.atomic import check_free, new_folder, write_atomic
from trunkline.bundle.manifest import TOKENIZER
from trunkline.bundle.parts import Task
from trunkline.engine.base import Branch, Logits
from trunkline.engine.rows import Pooling, ReadText, padded, pool_of, rows_of
from trunkline.engine.session import open_session
from trunkline.export.bundle import COMPARED_TEXTS, prepare_weights, spread, weight_facts
from trunkline.export.graph import merged_graph
from trunkline.export.options import ExportOptions, ExportReport
from trunkline.export.parity import check_parity, merged
from trunkline.export.quantise.gate import quality_gate
from trunkline.export.source import load_source
from trunkline.export.weights import Linear


def export_merged(source: str | Path, task: str, out: str | Path, options: ExportOptions | None = None) -> ExportReport:
    """Writes one task as an ordinary model: `model.onnx` with its adapter merged in, `tokenizer.json`, `task.json`.

    The model is compared with torch by the probabilities of its labels, as it gives no features, and rounded weights
    are judged by what the merged model predicts.

    Args:
        source: A bundle's folder.
        task: The task's name.
        out: A new or empty folder.
        options: What is asked for; variants and LoRA inputs do not matter here.

    Raises:
        QualityError: Rounded weights cost the task too much.
        TrunklineError: There is no such task, `out` is taken, or the model differs from torch.
    """
    options, out = options or ExportOptions(), Path(out).expanduser()
    check_free(out)
    examples = {name: part for name, part in options.examples.items() if name == task}
    options = dataclasses.replace(options, tasks=(task,), examples=examples)
    found = load_source(source, options)
    own, adapter = found.bundle.tasks[task], found.adapters[task]
    weights, kernels, tokens = prepare_weights(found, options, adapter.lora, merged=True)
    content = merged_graph(weights, Linear(own.head.weight, own.head.bias), own.labels, kernels)
    session, texts, gate = open_session(content), spread(found.texts, COMPARED_TEXTS), None
    parity = check_parity(
        found.encoder, found.tokenizer, merged(session), texts, {task: adapter}, tolerance=options.allowed
    )
    if options.judged:
        after = found.predictor(MergedEngine(session, own, found.encoder.config.pad_id))
        gate = quality_gate(found.predictor(), after, examples, options.max_drop)
    facts = weight_facts(kernels, gate)
    about: dict[str, Any] = {
        "name": task,
        "family": own.family,
        "units": own.units,
        "labels": list(own.labels),
        "transitions": None if own.transitions is None else own.transitions.tolist(),
        "max_length": found.tokenizer.max_length,
        "overlap": found.tokenizer.overlap,
        "pad_id": found.encoder.config.pad_id,
        "weights": facts,
    }
    files = {
        "model.onnx": content,
        TOKENIZER: found.tokenizer.tokenizer.to_str(pretty=False).encode("utf-8"),
        "task.json": (json.dumps(about, indent=1, sort_keys=True, ensure_ascii=False) + "\n").encode("utf-8"),
    }
    with new_folder(out) as folder:
        for name, part in files.items():
            write_atomic(folder / name, part)
    sizes = {name: len(part) for name, part in files.items()}
    return ExportReport(out, sizes, facts, {"merged": parity}, tokens, gate, found.longer)


class MergedEngine:
    """A merged model as an engine of its one task: a text at a time, all its windows in one run."""

    name = "onnx"

    def __init__(self, session: Any, task: Task, pad_id: int) -> None:
        self._session = session
        self._bias = task.feeds["head.bias"]
        self._pad_id = pad_id

    def forget_adapters(self) -> None:
        """It has none."""

    def run(self, texts: Sequence[ReadText], wanted: Sequence[Sequence[Branch]], *, mixed: bool = False) -> Logits:
        """See `trunkline.engine.base.Engine`; branches are those of the task."""
        found: Logits = {}
        for number, (text, branches) in enumerate(zip(texts, wanted, strict=True)):
            for branch in branches:
                units = branch.units_of(text)
                pooling, rows = Pooling(units), rows_of(number, units)
                ids, mask = padded(rows, self._pad_id)
                pool = pool_of([(pooling, row.window) for row in rows], ids.shape[1])
                logits = self._session.run(["logits"], {"ids": ids, "mask": mask, "pool": pool})[0]
                total = np.zeros((pooling.n_slots, len(self._bias)), np.float32)
                # A unit's windows add up; the bias, which every window's part has, is added once by the predictor.
                for row, part in zip(rows, logits - self._bias, strict=True):
                    total[pooling.slots[row.window]] += part[: len(pooling.slots[row.window])]
                found[number, branch] = total if pooling.slot_of is None else total[pooling.slot_of]
        return found
