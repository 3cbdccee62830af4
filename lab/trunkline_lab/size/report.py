"""Sizes, memory and times of bundles, beside as many separate models as they have tasks. No torch."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from trunkline.bundle.files import open_bundle
from trunkline.bundle.manifest import TOKENIZER, Manifest
from trunkline.errors import TrunklineError

LENGTHS = (16, 32, 64, 128)
WORKER = "trunkline_lab.size.worker"


@dataclass(frozen=True, slots=True)
class SizeOptions:
    """What is measured.

    Attributes:
        tasks: Names; all of the bundle by default.
        lengths: Tokens of a text; longer ones than the bundle's window are left out.
        repeats: Runs of a round; the best of five rounds' medians counts.
        separate: Whether as many models as there are tasks are opened, to measure their memory.
    """

    tasks: tuple[str, ...] | None = None
    lengths: tuple[int, ...] = LENGTHS
    repeats: int = 20
    separate: bool = True


def report_size(folder: str | Path, options: SizeOptions | None = None) -> dict[str, Any]:
    """Bytes, memory and milliseconds of a bundle with graphs.

    Memory and times are taken in a process of their own, with one thread; times are processor time, so that other work
    on the machine does not count as waiting. A separate model is the bundle's trunk and branch without adapters, opened
    for each task anew: what merging every adapter into a model of its own costs.

    Args:
        folder: The bundle.
        options: What is measured.

    Returns:
        `name`, `weights`, `fork`, `n_layers`, `tasks` (names); `bytes` of `tokenizer`, each graph, `adapters`, `tasks`,
        `manifest` and `total`; `memory` in bytes over the bare runtime (`resident`, `peak`, and `bare` itself); `times`
        by length, in milliseconds (see `size_worker.times`); `separate` with `models`, `bytes`, `memory` and by length
        `times`; `scores` by task where the gate judged the weights.

    Raises:
        TrunklineError: An unknown task or no task, a length that no text has, or a bundle that cannot be used.
    """
    options, folder = options or SizeOptions(), Path(folder).expanduser()
    if options.repeats < 1 or not options.lengths or min(options.lengths) < 4:
        raise TrunklineError(
            f"{options.repeats} repeats, lengths {list(options.lengths)}", expected="at least one, of at least 4 tokens"
        )
    manifest = open_bundle(folder).manifest
    tasks = _tasks(manifest, options.tasks)
    lengths = [length for length in options.lengths if length <= manifest.encoder.max_length]
    if not lengths:
        raise TrunklineError(
            f"lengths {list(options.lengths)}", expected=f"one of at most {manifest.encoder.max_length}, the window"
        )
    sizes = part_sizes(manifest)
    request = {"kind": "bundle", "folder": str(folder), "tasks": tasks, "lengths": lengths, "repeats": options.repeats}
    found = run_worker(request)
    record = {
        "name": manifest.name,
        "weights": manifest.weights["kind"],
        "fork": manifest.encoder.fork,
        "n_layers": manifest.encoder.n_layers,
        "tasks": tasks,
        "bytes": sizes,
        **found,
        "scores": _scores(manifest),
    }
    if options.separate:
        graphs = [str(folder / manifest.graphs[name]) for name in ("trunk", "branch")]
        one = sizes["tokenizer"] + sum(sizes[name] for name in ("trunk", "branch"))
        used = run_worker({"kind": "separate", "paths": [graphs] * len(tasks), "length": max(lengths)})
        record["separate"] = {
            "models": len(tasks),
            "bytes": one * len(tasks),
            **used,
            "times": {
                length: len(tasks) * (row["trunk"] + row["branch"]) + row["tokenizer"]
                for length, row in found["times"].items()
            },
        }
    return record


def part_sizes(manifest: Manifest) -> dict[str, int]:
    """Bytes of `tokenizer`, each graph, `adapters`, `tasks`, `manifest`, and their `total`."""
    sizes = {"tokenizer": manifest.files[TOKENIZER].bytes}
    sizes |= {name: manifest.files[file].bytes for name, file in manifest.graphs.items()}
    sizes["adapters"] = sum(manifest.files[file].bytes for file in manifest.adapters.values())
    sizes["tasks"] = sum(manifest.files[task.file].bytes for task in manifest.tasks.values())
    sizes["manifest"] = len(manifest.to_json())
    return sizes | {"total": sum(sizes.values())}


def run_worker(request: Mapping[str, Any]) -> dict[str, Any]:
    """What `size_worker` answers, from a new process with one thread; a TrunklineError if it cannot."""
    threads = dict.fromkeys(("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"), "1")
    done = subprocess.run(
        [sys.executable, "-m", WORKER, json.dumps(request)],
        capture_output=True,
        text=True,
        env={**os.environ, **threads, "TOKENIZERS_PARALLELISM": "false"},
    )
    line = done.stdout.strip().rpartition("\n")[2]
    answer: dict[str, Any] = json.loads(line) if line.startswith("{") else {}
    if "error" in answer:
        given, expected, todo = answer["error"]
        raise TrunklineError(given, expected=expected, todo=todo)
    if done.returncode or not answer:
        last = " ".join(done.stderr.split()[-60:])
        raise TrunklineError(
            f"the process that measures ended with code {done.returncode} ({last[-300:]})",
            expected="a bundle whose graphs run, and enough memory for as many models as there are tasks",
            todo="Try --no-separate, or fewer tasks",
        )
    return answer


def _tasks(manifest: Manifest, wanted: Sequence[str] | None) -> list[str]:
    unknown = sorted(set(wanted or ()) - manifest.tasks.keys())
    chosen = list(dict.fromkeys(manifest.tasks if wanted is None else wanted))
    if unknown or not chosen:
        raise TrunklineError(
            f"task {unknown[0]}" if unknown else "a bundle without tasks",
            expected="some of " + (", ".join(sorted(manifest.tasks)) or "(none); add one with `trunkline bundle add`"),
        )
    return sorted(chosen)


def _scores(manifest: Manifest) -> dict[str, float]:
    gate = manifest.weights.get("gate", {})
    tasks = gate.get("tasks", {}) if isinstance(gate, Mapping) else {}
    return {name: float(row["rounded"]) for name, row in tasks.items()}
