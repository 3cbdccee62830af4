"""Disk and memory of many tasks, the latter in a process of its own. No torch.

Started as `python -m trunkline_lab.speed.deployment.memory REQUEST`, with a JSON object; prints a JSON object.
"""

from __future__ import annotations

import gc
import json
import os
import subprocess
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from trunkline.bundle.manifest import TOKENIZER, Manifest
from trunkline.engine.onnx import open_session
from trunkline.errors import TrunklineError
from trunkline.model import load
from trunkline_lab.speed.gate import memory

TEXT = "Please send the second invoice for our order from Lisbon to Maria Alvarez before Friday, the 3rd of May. "


def part_sizes(manifest: Manifest) -> dict[str, int]:
    """Bytes of `tokenizer`, each graph, `adapters`, `tasks`, `manifest`, and their `total`."""
    sizes = {"tokenizer": manifest.files[TOKENIZER].bytes}
    sizes |= {name: manifest.files[file].bytes for name, file in manifest.graphs.items()}
    sizes["adapters"] = sum(manifest.files[file].bytes for file in manifest.adapters.values())
    sizes["tasks"] = sum(manifest.files[task.file].bytes for task in manifest.tasks.values())
    sizes["manifest"] = len(manifest.to_json())
    return sizes | {"total": sum(sizes.values())}


def measured(request: Mapping[str, Any]) -> dict[str, int]:
    """Memory over that of the bare runtime, in bytes, of a new process with one thread; see `main` for the request.

    Raises:
        TrunklineError: It ended without an answer.
    """
    threads = dict.fromkeys(("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"), "1")
    command = [sys.executable, "-m", "trunkline_lab.speed.deployment.memory", json.dumps(request)]
    done = subprocess.run(
        command, capture_output=True, text=True, env={**os.environ, **threads, "TOKENIZERS_PARALLELISM": "false"}
    )
    line = done.stdout.strip().rpartition("\n")[2]
    if done.returncode or not line.startswith("{"):
        last = " ".join(done.stderr.split()[-60:])
        raise TrunklineError(
            f"the process that measures ended with code {done.returncode} ({last[-300:]})",
            expected="a bundle whose graphs run, and enough memory for as many models as there are tasks",
        )
    found: dict[str, int] = json.loads(line)
    return found


def main(request: Mapping[str, Any]) -> dict[str, int]:
    """Memory of a bundle's `folder` with all its tasks used, or of the models of `paths` that are each run once.

    `paths` has for each model its graphs, one that computes `hidden` after the other; `length` is in tokens.
    """
    if "paths" in request:
        return used_memory(lambda: _separate(request["paths"], request["length"]))

    def make() -> Callable[[], Any]:
        runtime = load(Path(request["folder"]))
        return lambda: [runtime.predict([text]) for text in (TEXT, "Yes.")]

    return used_memory(make)


def used_memory(make: Callable[[], Callable[[], Any]]) -> dict[str, int]:
    """Memory over that of the bare runtime when what was made has been called once.

    The bare runtime is Python with numpy, ONNX Runtime and the tokenizer's library loaded, and nothing else.
    """
    import onnxruntime  # noqa: F401
    import tokenizers  # noqa: F401

    gc.collect()
    before = memory()
    call = make()
    call()
    gc.collect()
    return {name: value - before["resident"] for name, value in memory().items()} | {"bare": before["resident"]}


def _separate(paths: Sequence[Sequence[str]], length: int) -> Callable[[], Any]:
    models = [[open_session(Path(path)) for path in graphs] for graphs in paths]
    # Token ids have no influence, but those of a bundle with a small vocabulary must exist.
    ids, mask = np.ones((1, length), np.int64), np.ones((1, length), np.float32)
    given: dict[str, Any] = {"ids": ids, "mask": mask, "pool": np.full((1, 1, length), 1 / length, np.float32)}
    # What models that come from transformers call the same.
    given |= {"input_ids": ids, "attention_mask": np.ones_like(ids), "token_type_ids": np.zeros_like(ids)}

    def call() -> None:
        for session in (session for model in models for session in model):
            names = {value.name for value in session.get_inputs()}
            outputs = [value.name for value in session.get_outputs()]
            feeds = {name: value for name, value in given.items() if name in names}
            given.update(zip(outputs, session.run(outputs, feeds), strict=True))

    return call


if __name__ == "__main__":
    sys.stdout.write(json.dumps(main(json.loads(sys.argv[1]))) + "\n")
