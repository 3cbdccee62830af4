"""Files of tensors: what the format's library reads, and nothing that is broken, too large or not finite."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.numpy import load, save

from trunkline.bundle.manifest import read_file
from trunkline.bundle.parts import tensors_of, write_tensors
from trunkline.errors import DataError

LIMIT = 2**20


def read(path: Path) -> tuple[dict[str, Any], dict[str, str]]:
    return tensors_of(read_file(path, LIMIT), path)


def halves(**shapes: tuple[int, ...]) -> dict[str, Any]:
    rng = np.random.default_rng(0)
    return {name: rng.normal(size=shape).astype(np.float16) for name, shape in shapes.items()}


def broken(path: Path, header: Any, body: bytes = b"\0" * 8) -> Path:
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    path.write_bytes(len(text).to_bytes(8, "little") + text + body)
    return path


def entry(begin: Any = 0, end: Any = 8, shape: Any = (4,), dtype: Any = "F16") -> dict[str, Any]:
    return {"dtype": dtype, "shape": list(shape) if isinstance(shape, tuple) else shape, "data_offsets": [begin, end]}


@pytest.mark.parametrize("kinds", [("f2", "f2"), ("f4", "f4"), ("f2", "f4")])
def test_reads_what_the_formats_library_writes(tmp_path: Path, kinds: tuple[str, str]) -> None:
    tensors = halves(a=(3, 5), b=(7,), empty=(4, 0))
    tensors["b"] = tensors["b"].astype(kinds[1])
    tensors["a"] = tensors["a"].astype(kinds[0])
    (tmp_path / "x").write_bytes(save(tensors, {"trunkline": "äöü"}))
    found, metadata = read(tmp_path / "x")
    assert metadata == {"trunkline": "äöü"}
    assert found.keys() == tensors.keys()
    for name, tensor in tensors.items():
        assert found[name].dtype == np.float32
        assert found[name].shape == tensor.shape
        assert (found[name] == tensor.astype(np.float32)).all()


def test_the_formats_library_reads_what_is_written_and_equal_content_gives_equal_bytes() -> None:
    tensors = halves(b=(2, 3), a=(5,)) | {"wide": np.ones((2, 2), np.float32)}
    content = write_tensors(tensors, {"k": "v"})
    assert content == write_tensors(dict(reversed(tensors.items())), {"k": "v"})
    found = load(content)
    assert found.keys() == tensors.keys()
    assert all((found[name] == tensors[name]).all() and found[name].dtype == tensors[name].dtype for name in tensors)


@pytest.mark.parametrize("kind", [np.float16, np.float32])
@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_values_that_are_not_finite_are_refused_and_named(tmp_path: Path, kind: Any, value: float) -> None:
    tensors = halves(good=(3,)) | {"bad": np.array([1, value], kind)}
    (tmp_path / "x").write_bytes(save(tensors))
    with pytest.raises(DataError, match="bad has values that are not finite"):
        read(tmp_path / "x")


@pytest.mark.parametrize(
    "header",
    [
        b"{",
        b"\xff\xfe",
        b"[" * 100_000,
        [],
        {"a": 1},
        {"a": entry(dtype="I64", end=8, shape=(1,))},
        {"a": entry(dtype=["F16"])},
        {"a": entry(shape=(5,))},
        {"a": entry(shape=(-4,))},
        {"a": entry(shape=(2**60, 2**60))},
        {"a": entry(shape=(4,) + (1,) * 8)},
        {"a": entry(shape="4")},
        {"a": entry(begin=-8, end=0)},
        {"a": entry(end=4.0)},
        {"a": entry(0, 4, (2,))},
        {"a": entry(4, 8, (2,))},
        {"a": entry(), "b": entry()},
        {"a": entry(0, 16, (8,))},
        {"__metadata__": {"a": 1}, "b": entry()},
    ],
)
def test_broken_headers_are_refused(tmp_path: Path, header: Any) -> None:
    with pytest.raises(DataError) as caught:
        read(broken(tmp_path / "x", header))
    assert str(tmp_path / "x") in str(caught.value)


def test_every_truncation_is_refused(tmp_path: Path) -> None:
    content = write_tensors(halves(a=(3, 2)), {"k": "v"})
    for size in range(len(content)):
        (tmp_path / "x").write_bytes(content[:size])
        with pytest.raises(DataError):
            read(tmp_path / "x")


def test_sizes_are_checked_before_reading(tmp_path: Path) -> None:
    with (tmp_path / "large").open("wb") as stream:
        stream.truncate(2**40)
    with pytest.raises(DataError, match="at most 1048576"):
        read(tmp_path / "large")
    (tmp_path / "header").write_bytes((2**62).to_bytes(8, "little"))
    with pytest.raises(DataError, match="a header of"):
        read(tmp_path / "header")


def test_only_plain_files_are_read(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    for name in ("pipe", "missing", ".", "nul\0"):
        with pytest.raises(DataError):
            read_file(tmp_path / name, LIMIT)
