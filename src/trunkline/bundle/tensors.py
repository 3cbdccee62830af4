"""A reader and a writer of safetensors files in float16 and float32, small, fast and strict, on numpy alone.

A file is eight bytes with the length of a header, the header, which is JSON, and the tensors' bytes without gaps. What
a file says is checked before it is used: sizes, offsets, names, and that every number is finite.
"""

from __future__ import annotations

import json
import math
import os
import stat
from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from io import FileIO
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from trunkline.bundle.lora import FloatArray
from trunkline.errors import DataError

MAX_HEADER_BYTES = 4 * 2**20
MAX_TENSORS = 20_000
MAX_AXES = 8
METADATA = "__metadata__"

_TYPES = {"F16": (2, "<f2"), "F32": (4, "<f4")}
_EXPECTED = "a complete safetensors file of float16 or float32 tensors"
CACHED_HEADER_BYTES = 2**16
"""Longer headers are parsed anew each time, so that what is kept stays small."""

_HALF_SPECIAL = np.int16(0x7C00)
"""The exponent of infinity and NaN in float16."""

_HALF_SCALE = np.float32(2.0**112)
"""Half floats have exponents that are 112 less than those of floats."""


@dataclass(frozen=True, slots=True)
class TensorFile:
    """The tensors of a file, in float32, and its text metadata."""

    tensors: dict[str, FloatArray]
    metadata: Mapping[str, str]


@dataclass(frozen=True, slots=True)
class _Entry:
    name: str
    dtype: str
    shape: tuple[int, ...]
    begin: int
    end: int


def read_tensors(path: Path, limit: int) -> TensorFile:
    """Reads a file of tensors.

    Args:
        path: The file.
        limit: The most bytes it may have; checked before anything is read.

    Raises:
        DataError: It is missing, no plain file, larger than `limit`, truncated or otherwise no safetensors file, of
            other types, or has values that are not finite.
    """
    return tensors_of(read_file(path, limit), path)


def tensors_of(content: bytes, path: str | Path) -> TensorFile:
    """The tensors of a file's bytes; `path` is for messages, errors as for `read_tensors`."""
    if len(content) < 8:
        raise DataError(f"{len(content)} bytes", path=path, expected=_EXPECTED)
    size = int.from_bytes(content[:8], "little")
    if size > min(len(content) - 8, MAX_HEADER_BYTES):
        raise DataError(f"a header of {size} bytes in a file of {len(content)}", path=path, expected=_EXPECTED)
    header = _header if size <= CACHED_HEADER_BYTES else _header.__wrapped__
    try:
        entries, metadata = header(content[8 : 8 + size], len(content) - 8 - size)
    except (ValueError, RecursionError) as error:
        raise DataError(" ".join(str(error).split())[:300], path=path, expected=_EXPECTED) from error
    if entries and all(entry.dtype == "F16" for entry in entries):
        bits = np.frombuffer(content, "<i2", offset=8 + size)
        if int((bits & _HALF_SPECIAL).max(initial=0)) < _HALF_SPECIAL:
            # One conversion for all tensors takes a third of the time of one for each.
            flat = half_to_float(bits)
            return TensorFile({e.name: flat[e.begin // 2 : e.end // 2].reshape(e.shape) for e in entries}, metadata)
    values = {entry.name: _values(content, 8 + size, entry) for entry in entries}
    wrong = [name for name, tensor in values.items() if not np.isfinite(tensor).all()]
    if wrong:
        raise DataError(f"{wrong[0]} has values that are not finite", path=path, expected="numbers")
    return TensorFile(values, metadata)


def write_tensors(tensors: Mapping[str, npt.NDArray[Any]], metadata: Mapping[str, str]) -> bytes:
    """A safetensors file; equal tensors and metadata give equal bytes.

    Args:
        tensors: In float16 or float32.
        metadata: Text by key.
    """
    kinds = {"f2": "F16", "f4": "F32"}
    header: dict[str, Any] = {METADATA: dict(sorted(metadata.items()))}
    parts, begin = [], 0
    # As the format's own library does, wider types first, so that every tensor is aligned.
    for name in sorted(tensors, key=lambda name: (-tensors[name].dtype.itemsize, name)):
        tensor = np.ascontiguousarray(tensors[name])
        part = tensor.astype(tensor.dtype.newbyteorder("<"), copy=False).tobytes()
        end = begin + len(part)
        header[name] = {"dtype": kinds[tensor.dtype.str[1:]], "shape": list(tensor.shape), "data_offsets": [begin, end]}
        parts.append(part)
        begin = end
    text = json.dumps(header, separators=(",", ":"), ensure_ascii=False).encode("utf-8")
    text += b" " * (-len(text) % 8)
    return b"".join([len(text).to_bytes(8, "little"), text, *parts])


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
    return DataError(
        f"the file cannot be read ({reason})", path=path, expected="a file", todo="Fetch or export it again"
    )


@lru_cache(maxsize=256)
def _header(header: bytes, size: int) -> tuple[tuple[_Entry, ...], Mapping[str, str]]:
    """What a header says, checked against the bytes behind it; headers come again whenever a task does."""
    raw = json.loads(header.decode("utf-8"), object_pairs_hook=_once)
    if not isinstance(raw, dict):
        raise ValueError(f"the header is a {type(raw).__name__}, no object")
    metadata = raw.pop(METADATA, {})
    if not isinstance(metadata, dict) or not all(isinstance(value, str) for value in metadata.values()):
        raise ValueError("the metadata is no table of texts")
    if len(raw) > MAX_TENSORS:
        raise ValueError(f"{len(raw)} tensors, more than {MAX_TENSORS}")
    entries = sorted((_entry(name, item) for name, item in raw.items()), key=lambda entry: (entry.begin, entry.end))
    reached = 0
    for entry in entries:
        if entry.begin != reached:
            raise ValueError(f"{entry.name[:60]} begins at byte {entry.begin}, not at {reached} behind the one before")
        reached = entry.end
    if reached != size:
        raise ValueError(f"{size} bytes of tensors, not the {reached} that the header tells of")
    return tuple(entries), metadata


def _once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) < len(pairs):
        raise ValueError("the header has a name twice")
    return found


def _entry(name: str, item: Any) -> _Entry:
    shown = name[:60]
    if not isinstance(item, dict) or item.keys() != {"dtype", "shape", "data_offsets"}:
        raise ValueError(f"the header's entry for {shown} has not dtype, shape and data_offsets")
    dtype, shape, offsets = item["dtype"], item["shape"], item["data_offsets"]
    if not isinstance(dtype, str) or dtype not in _TYPES:
        raise ValueError(f"{shown} has the type {str(dtype)[:20]}")
    for numbers, most in ((shape, MAX_AXES), (offsets, 2)):
        whole = isinstance(numbers, list) and all(type(n) is int and 0 <= n < 2**48 for n in numbers)
        if not whole or len(numbers) > most:
            raise ValueError(f"{shown} has the shape or the offsets {str(numbers)[:60]}")
    if len(offsets) != 2 or offsets[1] - offsets[0] != math.prod(shape) * _TYPES[dtype][0]:
        raise ValueError(f"{shown} of shape {str(shape)[:60]} lies at bytes {str(offsets)[:60]}")
    return _Entry(name, dtype, tuple(shape), offsets[0], offsets[1])


def _values(content: bytes, start: int, entry: _Entry) -> FloatArray:
    size, kind = _TYPES[entry.dtype]
    found = np.frombuffer(content, kind, (entry.end - entry.begin) // size, start + entry.begin)
    return found.astype(np.float32).reshape(entry.shape)


def half_to_float(bits: npt.NDArray[np.int16]) -> FloatArray:
    """The float32 values of float16 bits, exactly; numpy's own conversion takes twice as long.

    The sign is carried up to bit 31, exponent and fraction to bits 13 to 27, and the exponent's offset is mended by a
    product (F. Giesen's method). Not for infinity and NaN, which are not looked for.
    """
    wide = bits.astype(np.int32)
    wide <<= 13
    wide &= np.int32(-0x70002000)
    values = wide.view(np.float32)
    values *= _HALF_SCALE
    return values
