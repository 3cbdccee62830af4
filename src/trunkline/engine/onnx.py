"""The ONNX engine: a bundle's graphs in ONNX Runtime, the trunk once for a text, then a branch for each adapter."""

from __future__ import annotations

import ctypes
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from threading import Lock
from typing import Any

import numpy as np

from trunkline.bundle.lora import FloatArray, Inputs, Shapes, bank
from trunkline.engine.base import Branch, Logits
from trunkline.engine.rows import Pooling, ReadText, Row, batches, padded, pool_of, rows_of
from trunkline.errors import TrunklineError

_ERRORS = (
    "Fail",
    "InvalidArgument",
    "InvalidGraph",
    "InvalidProtobuf",
    "NoSuchFile",
    "NotImplemented",
    "RuntimeException",
)
"""ONNX Runtime's exceptions have no base class of their own."""

BANK = 64
"""Most adapters that are kept side by side for mixed batches."""

FEW = 3
"""Rows of an adapter in a batch from which a run of their own is faster than the bank, which looks up each row's."""


_Pooled = tuple[int, tuple[str, str]]
"""Number of a text, and which units of it are pooled."""

Member = tuple[Row, int, Branch]
"""A row, its place in the batch, and a branch that it goes through."""


class OnnxEngine:
    """See `trunkline.engine.base.Engine`.

    Args:
        graphs: `trunk`, `branch` and, for rows of several adapters in one batch, `branch-bank`: files or their content.
        shapes: LoRA inputs of the branch graphs.
        pad_id: Token id of padding.
        threads: Threads inside an operator.
    """

    name = "onnx"

    def __init__(self, graphs: Mapping[str, Path | bytes], shapes: Shapes, pad_id: int, threads: int = 1) -> None:
        self._shapes = shapes
        self._pad_id = pad_id
        self._threads = threads
        self._trunk = open_session(graphs["trunk"], threads)
        self._branch = open_session(graphs["branch"], threads)
        self._bank_file = graphs.get("branch-bank")
        self._bank: Any = None
        self._adapters: dict[str, Inputs] = {}
        self._stacked: tuple[dict[str, int], Inputs] = ({}, {})
        self._lock = Lock()

    def forget_adapters(self) -> None:
        """See `Engine`."""
        with self._lock:
            self._adapters, self._stacked = {}, ({}, {})

    def run(self, texts: Sequence[ReadText], wanted: Sequence[Sequence[Branch]], *, mixed: bool = False) -> Logits:
        """See `trunkline.engine.base.Engine`; rows of several adapters, few of each, share runs of the bank graph."""
        found: Logits = {}
        # Texts whose windows are arranged anew, as those of questions, cannot share a trunk with others.
        for layout in sorted({branch.layout for branches in wanted for branch in branches}):
            chosen = [[branch for branch in branches if branch.layout == layout] for branches in wanted]
            self._run_layout(texts, chosen, mixed and self._bank_file is not None, found)
        return found

    def _run_layout(
        self, texts: Sequence[ReadText], wanted: Sequence[Sequence[Branch]], mixed: bool, found: Logits
    ) -> None:
        """`run` of branches that read the same windows."""
        rows: list[Row] = []
        poolings: dict[_Pooled, Pooling] = {}
        for number, (text, branches) in enumerate(zip(texts, wanted, strict=True)):
            units = None
            for branch in branches:
                if (number, branch.pooling) not in poolings:
                    units = branch.units_of(text)
                    poolings[number, branch.pooling] = Pooling(units)
            rows += rows_of(number, units) if units is not None else []
        for batch in batches(rows):
            ids, mask = padded(batch, self._pad_id)
            states = _States(run_session(self._trunk, "hidden", {"ids": ids, "mask": mask}), mask, poolings, found)
            groups: dict[Branch, list[Member]] = {}
            for place, row in enumerate(batch):
                for branch in wanted[row.text]:
                    groups.setdefault(branch, []).append((row, place, branch))
            everything = [member for members in groups.values() for member in members]
            adapters = len({branch.adapter for branch in groups})
            if mixed and adapters > 1 and len(everything) < FEW * adapters:
                self._run_bank(everything, states)
                continue
            # Heads are applied by the graph, where they keep to its threads.
            for branch, members in groups.items():
                given = states.inputs(members) | branch.lora | branch.heads
                for member, part in zip(members, run_session(self._branch, branch.output, given), strict=True):
                    states.add(member, part)
        for (number, branch), part in found.items():
            pooling = poolings.get((number, branch.pooling))
            if pooling is not None and pooling.row_of is not None:
                found[number, branch] = part[pooling.row_of]

    def _run_bank(self, members: Sequence[Member], states: _States) -> None:
        """Rows of several branches. As the graph has one head for all rows, heads are applied here."""
        places, inputs = self._banked({branch.adapter: branch.lora for _, _, branch in members})
        width = states.hidden.shape[2]
        given = states.inputs(members) | inputs
        given["adapter_ids"] = np.asarray([places[branch.adapter] for _, _, branch in members], dtype=np.int64)
        given |= {"head.weight": np.zeros((width, 0), np.float32), "head.bias": np.zeros(0, np.float32)}
        for member, features in zip(members, run_session(self._bank, "features", given), strict=True):
            branch = member[2]
            states.add(member, features @ branch.heads["head.weight"] if branch.tasks else features)

    def _banked(self, adapters: dict[str, Inputs]) -> tuple[Mapping[str, int], Inputs]:
        """The place of each adapter in the bank, and the inputs of the bank, which is kept for the next call."""
        with self._lock:
            if self._bank is None and self._bank_file is not None:
                self._bank = open_session(self._bank_file, self._threads)
            if not adapters.keys() <= self._stacked[0].keys():
                both = self._adapters | adapters
                self._adapters = both if len(both) <= BANK else dict(adapters)
                numbers = {name: place for place, name in enumerate(self._adapters)}
                self._stacked = numbers, bank(list(self._adapters.values()), self._shapes)
            return self._stacked


def open_session(model: bytes | Path, threads: int = 1) -> Any:
    """An `onnxruntime.InferenceSession` on the CPU for a model or its file; raises TrunklineError if it is none."""
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    options.inter_op_num_threads = 1
    # Higher levels fuse Add and LayerNormalization into an operator that is far slower on CPUs.
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_ENABLE_BASIC
    # Every input that may be left out would be warned of.
    options.log_severity_level = 3
    source = model if isinstance(model, bytes) else str(model)
    try:
        session = onnxruntime.InferenceSession(
            source, options, providers=["CPUExecutionProvider"], disabled_optimizers=["SkipLayerNormFusion"]
        )
    except _refusals() as error:
        where = "the model" if isinstance(model, bytes) else str(model)
        raise TrunklineError(
            f"ONNX Runtime cannot load {where} ({' '.join(str(error).split())[:300]})",
            expected="a complete model made by this version of trunkline",
            todo="Export it again",
        ) from error
    give_back_memory()
    return session


def give_back_memory() -> bool:
    """Returns freed memory to the system: what reading a model took, about as much as its file, glibc would keep.

    Says whether the C library was asked; only glibc has the call.
    """
    trim = getattr(ctypes.CDLL(None), "malloc_trim", None) if sys.platform == "linux" else None
    if trim is None:
        return False
    trim(0)
    return True


def run_session(session: Any, output: str, inputs: Mapping[str, Any]) -> FloatArray:
    """One output of a session; raises TrunklineError if ONNX Runtime refuses, or the output is not finite."""
    try:
        result: FloatArray = session.run([output], inputs)[0]
    except _refusals() as error:
        raise TrunklineError(
            f"ONNX Runtime cannot compute {output} ({' '.join(str(error).split())[:300]})",
            expected="graphs that belong to the bundle",
            todo="Export or fetch the bundle again",
        ) from error
    if not np.isfinite(result).all():
        raise TrunklineError(
            f"{output} has values that are not finite",
            expected="finite weights",
            todo="Export or fetch the bundle again, or remove the task that it belongs to",
        )
    return result


@cache
def _refusals() -> tuple[type[Exception], ...]:
    from onnxruntime.capi import onnxruntime_pybind11_state as state

    return ValueError, RuntimeError, *(getattr(state, name) for name in _ERRORS)


@dataclass(frozen=True, slots=True)
class _States:
    """What the trunk makes of a batch, and what its rows then add to the texts that they are windows of."""

    hidden: FloatArray
    mask: FloatArray
    poolings: Mapping[_Pooled, Pooling]
    found: Logits

    def inputs(self, members: Sequence[Member]) -> dict[str, Any]:
        """`hidden`, `mask` and `pool` of the rows of a run."""
        hidden, mask = self.hidden, self.mask
        places = [place for _, place, _ in members]
        if places != list(range(len(hidden))):
            hidden, mask = hidden[places], mask[places]
        pools = [(self.poolings[row.text, branch.pooling], row.window) for row, _, branch in members]
        return {"hidden": hidden, "mask": mask, "pool": pool_of(pools, hidden.shape[1])}

    def add(self, member: Member, part: FloatArray) -> None:
        """Adds what one window says of its units, [at least its rows, labels], to its text's."""
        row, _, branch = member
        pooling = self.poolings[row.text, branch.pooling]
        rows = pooling.rows[row.window]
        if len(pooling.rows) == 1:
            self.found[row.text, branch] = part[: len(rows)]
            return
        total = self.found.get((row.text, branch))
        if total is None:
            total = self.found[row.text, branch] = np.zeros((pooling.n_rows, part.shape[1]), np.float32)
        total[rows] += part[: len(rows)]
