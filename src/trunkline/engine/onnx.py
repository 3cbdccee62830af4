"""The ONNX engine: a bundle's graphs in ONNX Runtime, the trunk once for a text, then a branch for each adapter.

Windows of texts, similar lengths together, are the rows of what the graphs read.
"""

from __future__ import annotations

import ctypes
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from threading import Lock
from typing import Any

import numpy as np

from trunkline.bundle.manifest import FloatArray, Inputs, Shapes
from trunkline.bundle.parts import complete
from trunkline.engine.base import Branch, Logits
from trunkline.errors import MismatchError, TrunklineError
from trunkline.text.tokens import IntArray, Tokens, UnitText

BUDGET = 1024
"""Most tokens of a batch, padding counted; one row may have more. Bounds the memory that a long text takes."""

SLACK = 8
"""The longest row of a batch is longer than the shortest by at most an eighth, and two tokens."""

BANK = 64
"""Most adapters that are kept side by side for mixed batches."""

FEW = 3
"""Rows of an adapter in a batch from which a run of their own is faster than the bank, which looks up each row's."""


class Pooling:
    """Which shares of which tokens make up the units of a text, window by window.

    What a unit is made of may lie in several windows: each gives its part, and the parts add up. Units that are made of
    the same single token are computed once, so that a text of a million symbols that the tokenizer drops, all of which
    stand for the opening token, costs no more than another.

    `n_rows` are computed for the text, and `row_of` [units] has the row of each unit, None where these are the same.
    For each window `rows` has the rows that it has a part in, and `places` the place in these, the token in the window,
    and the share, of each pair of both.
    """

    def __init__(self, units: UnitText) -> None:
        token, unit = units.token, units.unit
        self.n_rows = units.n_units
        self.row_of: IntArray | None = None
        share = (1 / np.maximum(np.bincount(unit, minlength=units.n_units), 1)).astype(np.float32)
        if units.n_units > units.size:
            single = share[unit] == 1
            _, first, which = np.unique(token[single], return_index=True, return_inverse=True)
            owner = np.arange(self.n_rows)
            owner[unit[single]] = unit[single][first][which]
            kept, self.row_of = np.unique(owner, return_inverse=True)
            pairs = np.concatenate((np.flatnonzero(~single), np.flatnonzero(single)[first]))
            self.n_rows, token, unit, share = len(kept), token[pairs], self.row_of[unit[pairs]], share[kept]
        self.rows: list[IntArray] = []
        self.places: list[tuple[IntArray, IntArray, FloatArray]] = []
        if len(units.sizes) == 1:
            self.rows.append(np.arange(self.n_rows))
            self.places.append((unit, token, share[unit]))
            return
        ends = np.cumsum(units.sizes)
        window = np.searchsorted(ends, token, side="right")
        order = np.argsort(window, kind="stable")
        cuts = np.searchsorted(window[order], np.arange(1, len(ends)))
        for pairs, begin in zip(np.split(order, cuts), ends - units.sizes, strict=True):
            rows, place = np.unique(unit[pairs], return_inverse=True)
            self.rows.append(rows)
            self.places.append((place, token[pairs] - begin, share[unit[pairs]]))


@dataclass(frozen=True, slots=True)
class Row:
    """A window of a text: the text's number, the window's, and its token ids."""

    text: int
    window: int
    ids: IntArray


_Poolings = dict[tuple[int, tuple[str, str]], Pooling]
"""By the number of a text, and which units of it are pooled."""

Member = tuple[Row, int, Branch]
"""A row, its place in the batch, and a branch that it goes through."""


class OnnxEngine:
    """See `trunkline.engine.base.Engine`.

    `graphs` are `trunk`, `branch` and, for rows of several adapters in one batch, `branch-bank`: files or their
    content. `shapes` are those of LoRA inputs of the branch graphs, `threads` those inside an operator.
    """

    name = "onnx"

    def __init__(self, graphs: Mapping[str, Path | bytes], shapes: Shapes, pad_id: int, threads: int = 1) -> None:
        self._shapes, self._pad_id, self._threads = shapes, pad_id, threads
        self._trunk = open_session(graphs["trunk"], threads)
        self._branch = open_session(graphs["branch"], threads)
        self._bank_file = graphs.get("branch-bank")
        self._bank: Any = None
        self._adapters: dict[str, Inputs] = {}
        self._stacked: tuple[dict[str, int], Inputs] = ({}, {})
        self._lock = Lock()

    def run(self, texts: Sequence[Tokens], wanted: Sequence[Sequence[Branch]], *, mixed: bool = False) -> Logits:
        """See `trunkline.engine.base.Engine`; rows of several adapters, few of each, share runs of the bank graph."""
        found: Logits = {}
        poolings: _Poolings = {}
        # Texts whose windows are arranged anew, as those of questions, cannot share a trunk with others.
        for layout in sorted({branch.layout for branches in wanted for branch in branches}):
            rows: list[Row] = []
            chosen = [[branch for branch in branches if branch.layout == layout] for branches in wanted]
            for number, (text, branches) in enumerate(zip(texts, chosen, strict=True)):
                units = None
                for branch in branches:
                    if (number, branch.pooling) not in poolings:
                        units = branch.units_of(text)
                        poolings[number, branch.pooling] = Pooling(units)
                rows += rows_of(number, units) if units is not None else []
            for batch in batches(rows):
                self._run_batch(batch, chosen, poolings, mixed and self._bank_file is not None, found)
        for (number, branch), part in found.items():
            if (row_of := poolings[number, branch.pooling].row_of) is not None:
                found[number, branch] = part[row_of]
        return found

    def _run_batch(
        self, batch: Sequence[Row], wanted: Sequence[Sequence[Branch]], poolings: _Poolings, mixed: bool, found: Logits
    ) -> None:
        """The trunk over a batch, then each branch over the rows whose texts want it, or the bank over all of them."""
        ids, mask = padded(batch, self._pad_id)
        hidden = run_session(self._trunk, "hidden", {"ids": ids, "mask": mask})

        def inputs(members: Sequence[Member]) -> dict[str, Any]:
            places = [place for _, place, _ in members]
            whole = places == list(range(len(batch)))
            pools = [(poolings[row.text, branch.pooling], row.window) for row, _, branch in members]
            states = (hidden, mask) if whole else (hidden[places], mask[places])
            return {"hidden": states[0], "mask": states[1], "pool": pool_of(pools, hidden.shape[1])}

        groups: dict[Branch, list[Member]] = {}
        for place, row in enumerate(batch):
            for branch in wanted[row.text]:
                groups.setdefault(branch, []).append((row, place, branch))
        everything = [member for members in groups.values() for member in members]
        adapters = {branch.adapter: branch.lora for branch in groups}
        passes: list[tuple[Any, str, list[Member], dict[str, Any]]]
        banked = mixed and len(adapters) > 1 and len(everything) < FEW * len(adapters)
        if banked:
            places, lora = self._banked(adapters)
            chosen = np.asarray([places[branch.adapter] for _, _, branch in everything], np.int64)
            empty = {"head.weight": np.zeros((hidden.shape[2], 0), np.float32), "head.bias": np.zeros(0, np.float32)}
            passes = [(self._bank, "features", everything, {**lora, **empty, "adapter_ids": chosen})]
        else:
            outputs = {branch: "logits" if branch.tasks else "features" for branch in groups}
            passes = [(self._branch, outputs[b], members, b.lora | b.heads) for b, members in groups.items()]
        for session, output, members, given in passes:
            parts = run_session(session, output, inputs(members) | given)
            for (row, _, branch), part in zip(members, parts, strict=True):
                # The graph applies heads, where they keep to its threads, but that of the bank has one for all rows.
                said = part @ branch.heads["head.weight"] if banked and branch.tasks else part
                pooling = poolings[row.text, branch.pooling]
                rows = pooling.rows[row.window]
                if len(pooling.rows) == 1:
                    found[row.text, branch] = said[: len(rows)]
                    continue
                if (row.text, branch) not in found:
                    found[row.text, branch] = np.zeros((pooling.n_rows, said.shape[1]), np.float32)
                found[row.text, branch][rows] += said[: len(rows)]

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
    where = "the model" if isinstance(model, bytes) else str(model)
    try:
        session = onnxruntime.InferenceSession(
            model, options, providers=["CPUExecutionProvider"], disabled_optimizers=["SkipLayerNormFusion"]
        )
    # Its exceptions have no base class of their own.
    except Exception as error:
        given = f"ONNX Runtime cannot load {where} ({' '.join(str(error).split())[:300]})"
        expected = "a complete model made by this version of trunkline"
        raise TrunklineError(given, expected=expected, todo="Export it again") from error
    # Reading a model takes about as much memory as its file, which glibc would keep.
    trim = getattr(ctypes.CDLL(None), "malloc_trim", None) if sys.platform == "linux" else None
    if trim is not None:
        trim(0)
    return session


def run_session(session: Any, output: str, inputs: Mapping[str, Any]) -> FloatArray:
    """One output of a session; raises TrunklineError if ONNX Runtime refuses, or the output is not finite."""
    todo = "Export or fetch the bundle again"
    try:
        result: FloatArray = session.run([output], inputs)[0]
    except Exception as error:
        given = f"ONNX Runtime cannot compute {output} ({' '.join(str(error).split())[:300]})"
        raise TrunklineError(given, expected="graphs that belong to the bundle", todo=todo) from error
    if not np.isfinite(result).all():
        todo += ", or remove the task that it belongs to"
        raise TrunklineError(f"{output} has values that are not finite", expected="finite weights", todo=todo)
    return result


def rows_of(text: int, units: UnitText) -> list[Row]:
    """The windows of a text."""
    return [Row(text, window, ids) for window, ids in enumerate(np.split(units.ids, np.cumsum(units.sizes)[:-1]))]


def batches(rows: Sequence[Row], budget: int = BUDGET) -> Iterator[list[Row]]:
    """Rows of similar length together, so that little is computed for padding."""
    batch: list[Row] = []
    for row in sorted(rows, key=lambda row: len(row.ids)):
        length, least = len(row.ids), len(batch[0].ids) if batch else 0
        if batch and ((len(batch) + 1) * length > budget or length > least + least // SLACK + 2):
            yield batch
            batch = []
        batch.append(row)
    if batch:
        yield batch


def padded(rows: Sequence[Row], pad_id: int) -> tuple[IntArray, FloatArray]:
    """`ids` and `mask` [rows, width] of a batch."""
    width = max(len(row.ids) for row in rows)
    ids = np.full((len(rows), width), pad_id, dtype=np.int64)
    mask = np.zeros((len(rows), width), np.float32)
    for number, row in enumerate(rows):
        ids[number, : len(row.ids)] = row.ids
        mask[number, : len(row.ids)] = 1
    return ids, mask


def pool_of(rows: Sequence[tuple[Pooling, int]], width: int) -> FloatArray:
    """`pool` [rows, units, width] of a batch, from the pooling and the window of each row."""
    most = max(len(pooling.rows[window]) for pooling, window in rows)
    pool = np.zeros((len(rows), most, width), np.float32)
    for number, (pooling, window) in enumerate(rows):
        place, token, share = pooling.places[window]
        pool[number, place, token] = share
    return pool


def bank(adapters: Sequence[Mapping[str, FloatArray]], shapes: Shapes) -> Inputs:
    """The LoRA inputs of the bank graph, [adapters, inputs, rank] and [adapters, rank, outputs]; heads are left out.

    Adapters are as from `fuse`; an empty one changes nothing. Lower ranks are filled with zeros. Raises MismatchError
    for none, or one that does not fit the graph's LoRA inputs `shapes`.
    """
    if not adapters:
        raise MismatchError("a bank of no adapters", expected="at least one; an empty one stands for no adapter")
    whole, result = [complete(adapter, shapes, 0) for adapter in adapters], Inputs()
    for name in (f"lora.{place}.{side}" for place in shapes for side in "ab"):
        parts = [adapter[name] for adapter in whole]
        result[name] = np.zeros((len(parts), *np.max([part.shape for part in parts], axis=0)), np.float32)
        for room, part in zip(result[name], parts, strict=True):
            room[: part.shape[0], : part.shape[1]] = part
    return result
