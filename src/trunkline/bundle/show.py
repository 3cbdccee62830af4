"""What a bundle holds, as plain data."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from trunkline.bundle.files import open_bundle


def describe_bundle(folder: Path) -> dict[str, Any]:
    """Encoder, engines, bytes, tasks and licences of a bundle.

    Returns:
        `name`, `folder`, `encoder` (sizes), `engines` (what it can run on), `precision` of the graphs, `bytes` in all,
        `adapters` (families), `tasks` (name -> family, labels, bytes, mode, examples, cross-validated scores),
        `licences` and `info`.

    Raises:
        TrunklineError: As for `open_bundle`.
    """
    bundle = open_bundle(folder, verify=False)
    manifest = bundle.manifest
    engines = [name for name, there in (("onnx", manifest.graphs), ("torch", manifest.checkpoint)) if there]
    tasks = {}
    for name, task in sorted(bundle.tasks.items()):
        tasks[name] = {
            "family": task.family,
            "labels": task.types,
            "units": task.units,
            "lora": task.own_lora,
            "bytes": len(task.content),
            "mode": task.info.get("mode"),
            "examples": task.info.get("examples"),
            "scores": task.info.get("cross_validation", {}).get("scores"),
        }
    return {
        "name": manifest.name,
        "folder": str(folder),
        "trunkline": manifest.trunkline,
        "encoder": {key: getattr(manifest.encoder, key) for key in type(manifest.encoder).__slots__},
        "backbone": manifest.backbone,
        "engines": engines,
        "precision": manifest.weights["kind"],
        "bytes": sum(file.bytes for file in manifest.files.values()),
        "adapters": sorted(manifest.adapters),
        "tasks": tasks,
        "licences": [{"part": item.part, "licence": item.licence} for item in manifest.licences],
        "info": dict(manifest.info),
    }
