"""ONNX Runtime sessions with the settings under which the graphs are fast."""

from __future__ import annotations

import ctypes
import sys
from pathlib import Path
from typing import Any

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


def open_session(model: bytes | Path, threads: int = 1) -> Any:
    """An `onnxruntime.InferenceSession` on the CPU.

    Args:
        model: A serialised model or its file.
        threads: Threads inside an operator.

    Raises:
        TrunklineError: ONNX Runtime is not installed, or it cannot read the model.
    """
    try:
        import onnxruntime
        from onnxruntime.capi import onnxruntime_pybind11_state as state
    except ImportError as error:
        raise TrunklineError("ONNX Runtime is not installed", todo="pip install 'trunkline[onnx]'") from error
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
    except tuple(getattr(state, name) for name in _ERRORS) as error:
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

    Returns:
        Whether the C library was asked; only glibc has the call.
    """
    trim = getattr(ctypes.CDLL(None), "malloc_trim", None) if sys.platform == "linux" else None
    if trim is None:
        return False
    trim(0)
    return True
