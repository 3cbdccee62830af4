"""Making and running LiteRT files from trunkline's own environment; LiteRT runs in a process of its own."""

from __future__ import annotations

import contextlib
import importlib.util
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any, cast

import numpy as np

import trunkline
import trunkline_lab
from trunkline.bundle.files import write_atomic
from trunkline.errors import TrunklineError
from trunkline.export.weights import BackboneWeights
from trunkline_lab.litert.layout import (
    FILES,
    LAYOUT,
    FloatArray,
    Layout,
    LiteRtOptions,
    layout_of,
    read_layout,
    write_layout,
)
from trunkline_lab.litert.worker import ARRAYS

MODULES = ("litert_torch", "ai_edge_litert", "ai_edge_quantizer")
PYTHON = "TRUNKLINE_LITERT_PYTHON"
"""Environment variable with the interpreter of an environment that has LiteRT's packages."""

WORKER = "trunkline_lab.litert.worker"
DEFAULTS = LiteRtOptions()


def find_python() -> str:
    """An interpreter that has LiteRT's packages: this one, or that of `TRUNKLINE_LITERT_PYTHON`; else an error."""
    if all(importlib.util.find_spec(module) is not None for module in MODULES):
        return sys.executable
    named = os.environ.get(PYTHON, "")
    todo = f"Make an environment as lab/docs/litert.md says, and set {PYTHON} to its python"
    if not named:
        raise TrunklineError(
            "LiteRT's packages are not installed here",
            expected="litert-torch, ai-edge-litert and ai-edge-quantizer, best in an environment of their own",
            todo=todo,
        )
    if not Path(named).is_file():
        raise TrunklineError(f"{PYTHON} is {named!r}, which is no file", expected="a Python interpreter", todo=todo)
    return named


def export_litert(
    weights: BackboneWeights, folder: Path, options: LiteRtOptions = DEFAULTS, python: str | None = None
) -> Layout:
    """Writes a backbone as trunk.tflite and branch.tflite, and litert.json, which says how they are fed.

    Each file has one signature a length, `length_32` for 32 tokens; all of them share the weights. Adapters and heads
    are inputs, as in the ONNX graphs, but of the sizes that the options give; `Layout.fill` puts zeros around smaller
    ones. An adapter of zeros changes nothing.

    Args:
        weights: The backbone, from `take_weights`.
        folder: Where to write; is made if it is missing.
        options: Lengths, room for adapters, int8 or float32.
        python: The interpreter of an environment with LiteRT's packages; `find_python` looks for one by default.

    Returns:
        The content of litert.json.

    Raises:
        TrunklineError: Options that do not fit the encoder, no LiteRT, or a conversion that failed.
    """
    layout = layout_of(weights, options)
    interpreter = python or find_python()
    with tempfile.TemporaryDirectory(prefix="litert-") as name:
        work = Path(name)
        np.savez(work / ARRAYS, **cast(dict[str, Any], weights.tensors))
        write_layout(layout, work)
        with _worker(interpreter, "convert", str(work)) as process:
            output = process.stdout.read()
            if process.wait():
                raise _failed(output, process)
        layout = read_layout(work)
        folder.mkdir(parents=True, exist_ok=True)
        for file in (*FILES.values(), LAYOUT):
            write_atomic(folder / file, (work / file).read_bytes())
    return layout


class LiteRtProcess:
    """The files of an export, opened in a process that has LiteRT. Make one with `open_litert`."""

    def __init__(self, process: _Process, folder: Path, scratch: Path) -> None:
        self.layout = read_layout(folder)
        self._process = process
        self._scratch = scratch
        self._receive()

    def run(
        self,
        ids: np.typing.NDArray[np.int64],
        pool: FloatArray,
        feeds: Mapping[str, FloatArray],
        length: int | None = None,
    ) -> dict[str, FloatArray]:
        """Trunk and branch of one row.

        Args:
            ids: Token ids [tokens], special ones included.
            pool: For each unit the share of each token, [units, tokens].
            feeds: An adapter as `runtime.inputs.fuse` gives it, of any rank that fits.
            length: Which signature; the shortest that fits by default.

        Returns:
            `features` [units, hidden] and `logits` [units, labels of the feeds].
        """
        inputs, outputs = self._scratch / "inputs.npz", self._scratch / "outputs.npz"
        self.layout.fill(feeds)
        chosen = {} if length is None else {"length": np.array(length)}
        np.savez(inputs, ids=ids, pool=pool, **cast(dict[str, Any], {**chosen, **feeds}))
        self._ask({"inputs": str(inputs), "outputs": str(outputs)})
        with np.load(outputs, allow_pickle=False) as file:
            found = dict(file)
        labels = feeds["head.bias"].shape[0] if "head.bias" in feeds else 0
        return found | {"logits": found["logits"][:, :labels]}

    def seconds(self, length: int, repeats: int = 200) -> dict[str, float]:
        """Processor seconds of `trunk` and `branch` for one row of this length."""
        return {part: float(value) for part, value in self._ask({"length": length, "repeats": repeats}).items()}

    def _ask(self, request: Mapping[str, Any]) -> dict[str, Any]:
        self._process.stdin.write(json.dumps(request) + "\n")
        self._process.stdin.flush()
        return self._receive()

    def _receive(self) -> dict[str, Any]:
        line = self._process.stdout.readline()
        answer: dict[str, Any] = json.loads(line) if line.startswith("{") else {}
        if not answer or "error" in answer:
            raise _failed(line, self._process)
        return answer


@contextlib.contextmanager
def open_litert(folder: Path, threads: int = 1, python: str | None = None) -> Iterator[LiteRtProcess]:
    """Opens the files of an export; a TrunklineError without LiteRT, or if they cannot be opened."""
    interpreter = python or find_python()
    with (
        tempfile.TemporaryDirectory(prefix="litert-") as scratch,
        _worker(interpreter, "serve", str(folder), str(threads)) as process,
    ):
        yield LiteRtProcess(process, folder, Path(scratch))


@dataclass(frozen=True, slots=True)
class _Process:
    """A started worker; its messages go to a file, because a full pipe would block it."""

    stdin: IO[str]
    stdout: IO[str]
    messages: IO[str]
    wait: Any


@contextlib.contextmanager
def _worker(python: str, *arguments: str) -> Iterator[_Process]:
    with tempfile.TemporaryDirectory(prefix="litert-") as name, tempfile.TemporaryFile("w+") as messages:
        # The folders above the packages have all that is installed beside them, much of it in the wrong version.
        for package in (trunkline, trunkline_lab):
            place = Path(str(package.__file__)).parent
            (Path(name) / package.__name__).symlink_to(place, target_is_directory=True)
        environment = {**os.environ, "PYTHONPATH": name, "PYTHONDONTWRITEBYTECODE": "1"}
        with subprocess.Popen(
            [python, "-m", WORKER, *arguments],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=messages,
            text=True,
            env=environment,
        ) as process:
            try:
                # Popen gives optional pipes; both were asked for.
                yield _Process(cast(IO[str], process.stdin), cast(IO[str], process.stdout), messages, process.wait)
            finally:
                with contextlib.suppress(BrokenPipeError):
                    cast(IO[str], process.stdin).close()
                if process.poll() is None and arguments[0] == "serve":
                    process.terminate()


def _failed(output: str, process: _Process) -> TrunklineError:
    """The worker's own error if it gave one, otherwise the end of its messages."""
    lines = [line for line in output.splitlines() if line.startswith('{"error"')]
    if lines:
        given, expected, todo = json.loads(lines[-1])["error"]
        return TrunklineError(given, expected=expected, todo=todo)
    process.wait()
    process.messages.seek(0)
    last = " ".join(process.messages.read().split()[-60:])
    return TrunklineError(
        f"LiteRT's process ended without a result ({last[-400:]})",
        expected="litert-torch, ai-edge-litert and ai-edge-quantizer of the versions that lab/docs/litert.md names",
        todo="Run it again; if it stays, make the environment anew",
    )
