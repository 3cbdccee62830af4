"""Running .tflite files; needs ai-edge-litert and numpy."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from trunkline.errors import TrunklineError
from trunkline_lab.litert.layout import FILES, FloatArray, read_layout, signature, tensor_name

Outputs = dict[str, FloatArray]


class LiteRtSession:
    """The files of an export, opened once.

    Args:
        folder: What `export_litert` wrote.
        threads: Threads inside an operator.

    Raises:
        TrunklineError: The folder is no export, a file is damaged, or LiteRT is not installed.
    """

    def __init__(self, folder: Path, threads: int = 1) -> None:
        self.layout = read_layout(folder)
        self._parts = {part: _open(folder / name, threads) for part, name in FILES.items()}
        self._runners: dict[tuple[str, int], Callable[..., Outputs]] = {}

    def trunk(self, ids: npt.NDArray[np.int64], length: int | None = None) -> FloatArray:
        """The states at the fork of one row of tokens, [1, length, hidden], padding behind them.

        Args:
            ids: Token ids [tokens], special ones included.
            length: One of the layout's; the shortest that fits by default.
        """
        length = self.layout.length_for(len(ids)) if length is None else length
        row = np.full((1, length), self.layout.pad_id, np.int32)
        row[0, : len(ids)] = ids
        return self.run("trunk", length, {"ids": row, "mask": _mask(len(ids), length)})["hidden"]

    def branch(self, hidden: FloatArray, tokens: int, pool: FloatArray, feeds: Mapping[str, FloatArray]) -> Outputs:
        """What a branch makes of them.

        Args:
            hidden: From `trunk`.
            tokens: How many of its rows are tokens.
            pool: For each unit the share of each token, [units, tokens].
            feeds: From `Layout.fill`.

        Returns:
            `features` [units, hidden] and `logits` [units, labels].
        """
        length = hidden.shape[1]
        given = {"hidden": hidden, "mask": _mask(tokens, length), **feeds}
        found: list[Outputs] = []
        for start in range(0, max(1, len(pool)), length):
            part = pool[start : start + length]
            shares = np.zeros((1, length, length), np.float32)
            shares[0, : len(part), :tokens] = part
            outputs = self.run("branch", length, {**given, "pool": shares})
            found.append({name: value[0, : len(part)] for name, value in outputs.items()})
        return {name: np.concatenate([part[name] for part in found]) for name in found[0]}

    def run(self, part: str, length: int, given: Mapping[str, npt.NDArray[Any]]) -> Outputs:
        """Runs one signature on inputs of exactly its sizes."""
        key = part, length
        if key not in self._runners:
            self._runners[key] = self._parts[part].get_signature_runner(signature(length))
        return dict(self._runners[key](**{tensor_name(name): value for name, value in given.items()}))

    def seconds(self, length: int, repeats: int = 200, rounds: int = 5) -> dict[str, float]:
        """Processor seconds of `trunk` and `branch` for a row of this length: the best round's median of a run."""
        layout = self.layout
        ids = np.full((1, length), layout.pad_id, np.int32)
        mask, pool = np.ones((1, length), np.float32), np.eye(length, dtype=np.float32)[None]
        hidden = self.run("trunk", length, {"ids": ids, "mask": mask})["hidden"]
        rng = np.random.default_rng(0)
        inputs = layout.inputs("branch", length).items()
        fed = {name: rng.normal(0, 0.02, shape).astype(np.float32) for name, shape in inputs}
        given: dict[str, dict[str, npt.NDArray[Any]]] = {
            "trunk": {"ids": ids, "mask": mask},
            "branch": {**fed, "hidden": hidden, "mask": mask, "pool": pool},
        }
        best = dict.fromkeys(given, float("inf"))
        for _ in range(rounds):
            for part, values in given.items():
                times = []
                for _ in range(repeats):
                    began = time.process_time()
                    self.run(part, length, values)
                    times.append(time.process_time() - began)
                best[part] = min(best[part], statistics.median(times))
        return best


def _mask(tokens: int, length: int) -> FloatArray:
    mask = np.zeros((1, length), np.float32)
    mask[0, :tokens] = 1
    return mask


def _open(path: Path, threads: int) -> Any:
    try:
        from ai_edge_litert.interpreter import Interpreter
    except ImportError as error:
        raise TrunklineError("LiteRT is not installed", todo="pip install ai-edge-litert") from error
    try:
        return Interpreter(model_path=str(path), num_threads=threads)
    except (ValueError, OSError, RuntimeError) as error:
        raise TrunklineError(
            f"LiteRT cannot load {path} ({error})", expected="a complete file of a LiteRT export", todo="Export again"
        ) from error
