"""Twenty tasks on disk and in memory: a bundle beside twenty models."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

from trunkline.bundle.files import read_manifest
from trunkline_lab.speed.deployment.cases import TWENTY, Options
from trunkline_lab.speed.deployment.memory import measured, part_sizes
from trunkline_lab.speed.side_by_side import QUIET, Ratio, judged, summary

MB = 1e6
BUNDLES = {
    "ours int8": "low-int8",
    "ours int8, 8,000 pieces": "low-int8-8000",
    "ours int4": "low-int4",
    "ours float32": "low-float32",
}
TARGETS = {"ours int8": (27.0, 60.0), "ours int8, 8,000 pieces": (18.0, None), "ours int4": (None, None)}


def measure_twenty(options: Options, say: Callable[[str], None]) -> dict[str, Any]:
    """MB on disk, and resident memory in MB over the bare runtime after every task has run, by case."""
    os.environ |= {**QUIET, "HF_HUB_OFFLINE": "1"}
    repeats = max(1, options.repeats)
    rows: dict[str, Any] = {}
    for name, place in BUNDLES.items():
        manifest = read_manifest(options.place(place))
        sizes = part_sizes(manifest)
        found = [measured({"folder": str(options.place(place))}) for _ in range(repeats)]
        rows[name] = {
            "tasks": len(manifest.tasks),
            "disk": sizes["total"] / MB,
            "a task": sizes["tasks"] / MB / len(manifest.tasks),
            **_memory(found),
        }
        say(f"{name}: {rows[name]['disk']:.1f} MB")
    models = {
        "models of quantize_dynamic": options.place("standard") / "int8.onnx",
        "merged models of ours, int8": options.place("merged-int8") / "model.onnx",
    }
    for name, path in models.items():
        size = path.stat().st_size + _tokenizer(options)
        rows[name] = {"tasks": TWENTY, "disk": TWENTY * size / MB, "a task": size / MB, **_sessions(path, options)}
        say(f"{name}: {rows[name]['disk']:.1f} MB")
    ours, asked = rows["ours int8"], []
    for name, (disk, memory) in TARGETS.items():
        asked.append(_asked(f"{name}, MB on disk", {"median": rows[name]["disk"]}, disk))
        if memory is not None:
            asked.append(_asked(f"{name}, MB in memory", rows[name]["resident"], memory))
    for name in models:
        asked.append(_asked(f"{name} / ours int8, on disk", {"median": rows[name]["disk"] / ours["disk"]}))
        ratio = rows[name]["resident"]["median"] / ours["resident"]["median"]
        asked.append(_asked(f"{name} / ours int8, in memory", {"median": ratio}))
    return {"rows": rows, "ratios": asked}


def _asked(what: str, found: dict[str, float], most: float | None = None) -> dict[str, Any]:
    return {"what": what, "measure": "MB", **found, **judged(found["median"], Ratio(what, "MB", what, at_most=most))}


def _sessions(path: Path, options: Options) -> dict[str, Any]:
    request = {"paths": [[str(path)]] * TWENTY, "length": options.length}
    return _memory([measured(request) for _ in range(max(1, options.repeats))])


def _memory(found: list[dict[str, int]]) -> dict[str, Any]:
    return {key: summary([answer[key] / MB for answer in found]) for key in ("resident", "peak", "bare")}


def _tokenizer(options: Options) -> int:
    return (options.place("merged-int8") / "tokenizer.json").stat().st_size
