"""Adapters and heads as feeds of the branch graph, and as `.onnx_adapter` files."""

from __future__ import annotations

import tempfile
from collections.abc import Mapping
from pathlib import Path

import numpy as np

from trunkline.atomic import write_atomic
from trunkline.bundle.files import open_bundle
from trunkline.bundle.lora import Feeds, FloatArray, fuse
from trunkline.bundle.manifest import check_name
from trunkline.encoder.adapter_tensors import adapter_arrays
from trunkline.encoder.lora import LoraAdapter
from trunkline.errors import TrunklineError
from trunkline.export.weights import Linear
from trunkline.heads.linear import LinearHead


def head_linear(head: LinearHead) -> Linear:
    """A head in the layout of the graphs."""
    return Linear(np.ascontiguousarray(head.weight.T, np.float32), np.asarray(head.bias, np.float32))


def adapter_feeds(lora: LoraAdapter | None, head: LinearHead | None = None) -> Feeds:
    """What the branch graph is fed for an adapter and a head, in full float32 precision."""
    feeds = {} if lora is None else fuse(adapter_arrays(lora))
    if head is not None:
        linear = head_linear(head)
        feeds |= {"head.weight": linear.weight, "head.bias": linear.bias}
    return feeds


def export_onnx_adapters(source: str | Path, out: str | Path, tasks: tuple[str, ...] | None = None) -> dict[str, int]:
    """Writes a bundle's primary adapters and tasks as `.onnx_adapter` files for its `branch.onnx`.

    A task's file holds all that the graph is fed with: its LoRA, or its family's, and its head. In ONNX Runtime,
    `RunOptions.add_active_adapter` takes it.

    Args:
        source: The bundle's folder.
        out: The folder; files in it are replaced.
        tasks: Names; all by default.

    Returns:
        File -> bytes: `NAME.onnx_adapter` for tasks, `FAMILY.primary.onnx_adapter` for primary adapters.

    Raises:
        TrunklineError: There is nothing to write, or no such task; errors of `open_bundle`.
    """
    bundle = open_bundle(source)
    chosen = sorted(bundle.tasks if tasks is None else tasks)
    unknown = [name for name in chosen if name not in bundle.tasks]
    if unknown or not (bundle.tasks or bundle.primaries):
        given = f"{source} has no task {', '.join(unknown)}" if unknown else f"{source} has no adapters"
        raise TrunklineError(given, expected="some of " + (", ".join(bundle.tasks) or "a bundle's tasks"))
    feeds = {name: bundle.feeds(name) for name in chosen}
    feeds |= {f"{family}.primary": part.feeds for family, part in bundle.primaries.items()}
    sizes = {}
    for name, part in sorted(feeds.items()):
        path = Path(out).expanduser() / f"{check_name(name)}.onnx_adapter"
        write_onnx_adapter(path, part)
        sizes[path.name] = path.stat().st_size
    return sizes


def write_onnx_adapter(path: Path, feeds: Mapping[str, FloatArray], model_version: int = 1) -> None:
    """Writes feeds as an `.onnx_adapter` file, which `RunOptions.add_active_adapter` puts on the branch graph.

    Args:
        path: Where to write.
        feeds: For the graph whose inputs are optional.
        model_version: A number of the model's maker, given back by readers of the file.

    Raises:
        TrunklineError: There is nothing to write.
    """
    import onnxruntime

    # A tensor without elements cannot be stored, and left out it means the same.
    kept = {name: value for name, value in sorted(feeds.items()) if value.size}
    if not kept:
        raise TrunklineError("an adapter without any update and without a head", expected="at least one of them")
    adapter = onnxruntime.AdapterFormat()
    adapter.set_adapter_version(1)
    adapter.set_model_version(model_version)
    adapter.set_parameters(
        {name: onnxruntime.OrtValue.ortvalue_from_numpy(np.ascontiguousarray(v)) for name, v in kept.items()}
    )
    with tempfile.TemporaryDirectory() as folder:
        temporary = Path(folder) / "adapter"
        adapter.export_adapter(str(temporary))
        write_atomic(path, temporary.read_bytes())
