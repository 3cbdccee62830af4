"""Safetensors files of float16 and float32 tensors, read into float32 and checked before anything is used."""

from __future__ import annotations

import json
import os
import stat
from collections.abc import Mapping
from dataclasses import dataclass
from io import FileIO
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import safetensors
import safetensors.numpy

from trunkline.bundle.lora import FloatArray
from trunkline.errors import DataError

MAX_HEADER_BYTES = 4 * 2**20
MAX_TENSORS = 20_000
MAX_AXES = 8

_TYPES = {"F16": np.float16, "F32": np.float32}
_EXPECTED = "a complete safetensors file of float16 or float32 tensors"


@dataclass(frozen=True, slots=True)
class TensorFile:
    """The tensors of a file, in float32, and its text metadata."""

    tensors: dict[str, FloatArray]
    metadata: Mapping[str, str]


def read_tensors(path: Path, limit: int) -> TensorFile:
    """Reads a file of tensors of at most `limit` bytes, which is checked before anything is read.

    Raises:
        DataError: It is missing, no plain file, larger than `limit`, truncated or otherwise no safetensors file, of
            other types, or has values that are not finite.
    """
    return tensors_of(read_file(path, limit), path)


def tensors_of(content: bytes, path: str | Path) -> TensorFile:
    """The tensors of a file's bytes; `path` is for messages, errors as for `read_tensors`."""
    size = int.from_bytes(content[:8], "little")
    if len(content) < 8 or size > min(len(content) - 8, MAX_HEADER_BYTES):
        raise DataError(f"a header of {size} bytes in a file of {len(content)}", path=path, expected=_EXPECTED)
    try:
        # The library checks names, types, shapes and offsets; of metadata it says nothing.
        entries = safetensors.deserialize(content)
        metadata = json.loads(content[8 : 8 + size]).get("__metadata__", {})
        if len(entries) > MAX_TENSORS or any(len(entry["shape"]) > MAX_AXES for _, entry in entries):
            raise ValueError(f"more than {MAX_TENSORS} tensors, or one of more than {MAX_AXES} axes")
        values = {name: _values(name, entry) for name, entry in entries}
    except (safetensors.SafetensorError, ValueError, RecursionError) as error:
        raise DataError(" ".join(str(error).split())[:300], path=path, expected=_EXPECTED) from error
    wrong = [name for name, tensor in values.items() if not np.isfinite(tensor).all()]
    if wrong:
        raise DataError(f"{wrong[0]} has values that are not finite", path=path, expected="numbers")
    return TensorFile(values, metadata)


def write_tensors(tensors: Mapping[str, npt.NDArray[Any]], metadata: Mapping[str, str]) -> bytes:
    """A safetensors file of float16 or float32 tensors; equal tensors and metadata give equal bytes."""
    ordered = {name: np.ascontiguousarray(tensors[name]) for name in sorted(tensors)}
    return bytes(safetensors.numpy.save(ordered, dict(sorted(metadata.items()))))


def read_file(path: Path, limit: int) -> bytes:
    """A plain file's bytes.

    Raises:
        DataError: It is missing, no plain file (a pipe would be waited for) or larger than `limit`.
    """
    with open_plain(path) as stream:
        size = os.fstat(stream.fileno()).st_size
        if size > limit:
            raise DataError(f"{size} bytes", path=path, expected=f"at most {limit}")
        try:
            return stream.read(size)
        except OSError as error:
            raise _unreadable(path, error) from error


def open_plain(path: Path) -> FileIO:
    """Opens a plain file for reading, unbuffered; errors as for `read_file`, and a limit is for the caller to keep."""
    try:
        # Without waiting, as opening a pipe would.
        handle = os.open(path, os.O_RDONLY | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_BINARY", 0))
    except (OSError, ValueError) as error:
        raise _unreadable(path, error) from error
    if not stat.S_ISREG(os.fstat(handle).st_mode):
        os.close(handle)
        raise DataError("this is no plain file", path=path, expected="a file")
    return FileIO(handle)


def _unreadable(path: Path, error: Exception) -> DataError:
    reason = getattr(error, "strerror", None) or error
    return DataError(f"the file cannot be read ({reason})", path=path, expected="a file")


def _values(name: str, entry: Mapping[str, Any]) -> FloatArray:
    if entry["dtype"] not in _TYPES:
        raise ValueError(f"{name[:60]} has the type {entry['dtype']}")
    found = np.frombuffer(entry["data"], _TYPES[entry["dtype"]])
    return found.astype(np.float32).reshape(entry["shape"])
