"""Adapters and heads as the tensors of adapter files, as feeds of the branch graph and as `.onnx_adapter` files."""

from __future__ import annotations

import tempfile
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import numpy.typing as npt

from trunkline.atomic import write_atomic
from trunkline.bundle.lora import Feeds, FloatArray, fuse
from trunkline.encoder.adapter_tensors import adapter_arrays
from trunkline.encoder.lora import LoraAdapter
from trunkline.errors import MismatchError, TrunklineError
from trunkline.export.weights import Linear
from trunkline.heads.linear import LinearHead

HalfArray = npt.NDArray[np.float16]
ADAPTER_VERSION = 1
"""Written into `.onnx_adapter` files."""


def adapter_tensors(lora: LoraAdapter | None, head: LinearHead | None = None) -> dict[str, FloatArray]:
    """The tensors of an adapter file, in float32.

    Args:
        lora: The low-rank updates, if any.
        head: The head, if any.

    Returns:
        `lora.LAYER.TARGET.a` [inputs, rank] and `.b` [rank, outputs], `alpha / rank` included, `head.weight`
        [hidden, labels], `head.bias` [labels], and `head.transitions` [labels + 1, labels] where the head has them.

    Raises:
        MismatchError: A value is not finite.
    """
    tensors: dict[str, FloatArray] = {} if lora is None else adapter_arrays(lora)
    if head is not None:
        linear = head_linear(head)
        tensors |= {"head.weight": linear.weight, "head.bias": linear.bias}
        if head.transitions is not None:
            tensors["head.transitions"] = np.asarray(head.transitions, np.float32)
    return tensors


def head_linear(head: LinearHead) -> Linear:
    """A head in the layout of the graphs."""
    return Linear(np.ascontiguousarray(head.weight.T, np.float32), np.asarray(head.bias, np.float32))


def to_half(tensors: Mapping[str, FloatArray]) -> dict[str, HalfArray]:
    """The tensors in float16, as adapter files store them.

    Raises:
        MismatchError: A value is beyond what float16 can hold.
    """
    with np.errstate(over="ignore"):
        halves = {name: tensor.astype(np.float16) for name, tensor in tensors.items()}
    wrong = [name for name, half in halves.items() if not np.isfinite(half).all()]
    if wrong:
        raise MismatchError(f"{wrong[0]} has values that float16 cannot hold", expected="finite values up to 65504")
    return halves


def adapter_feeds(lora: LoraAdapter | None, head: LinearHead | None = None) -> Feeds:
    """What the branch graph is fed for an adapter and a head, in full float32 precision."""
    return fuse(adapter_tensors(lora, head))


def write_onnx_adapter(path: Path, feeds: Mapping[str, FloatArray], model_version: int = 1) -> None:
    """Writes feeds as an `.onnx_adapter` file, which `RunOptions.add_active_adapter` puts on the branch graph.

    Args:
        path: Where to write.
        feeds: From `adapter_feeds` or `feeds.fuse`, for the graph whose inputs are optional.
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
    adapter.set_adapter_version(ADAPTER_VERSION)
    adapter.set_model_version(model_version)
    adapter.set_parameters(
        {name: onnxruntime.OrtValue.ortvalue_from_numpy(np.ascontiguousarray(v)) for name, v in kept.items()}
    )
    with tempfile.TemporaryDirectory() as folder:
        temporary = Path(folder) / "adapter"
        adapter.export_adapter(str(temporary))
        write_atomic(path, temporary.read_bytes())
