"""Inputs that are small on disk and huge in memory: refused early, by name, in little memory."""

from __future__ import annotations

import gzip
import tarfile
import tracemalloc
import zipfile
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from hypothesis import given, settings

from properties.disk import store
from properties.form import Format
from properties.formats import DAMAGED
from trunkline.data import load
from trunkline.errors import DataError
from trunkline_lab.data import archives
from trunkline_lab.data.readers import READERS

pytestmark = pytest.mark.slow

MIB = 1024**2
BOMB = 1024 * MIB
MEMORY = 64 * MIB
STEP = 16 * MIB
ZEROS = gzip.compress(bytes(STEP), 6) * (BOMB // STEP)  # a gzip file may have several parts


@contextmanager
def bounded(most: int = MEMORY) -> Iterator[None]:
    tracemalloc.start()
    try:
        yield
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert peak < most, f"{peak / MIB:.0f} MiB"


@pytest.fixture
def low_limits(monkeypatch: pytest.MonkeyPatch) -> None:
    for read in (load.read_lines, archives.read_bytes):
        monkeypatch.setitem(read.__kwdefaults__, "limit", 4 * MIB)
    monkeypatch.setattr(archives, "DEFAULT_LIMIT", 4 * MIB)
    monkeypatch.setattr(load, "LINE_LIMIT", MIB)


def refuse(reader: str, path: Path, message: str, **options: str) -> None:
    with bounded(), pytest.raises(DataError, match=message) as caught:
        list(READERS[reader].read(path, options))
    assert path.name in str(caught.value)


def zip_of_zeros() -> bytes:
    """A zip whose member unpacks to `BOMB` zeros, without packing them all."""
    packer = zlib.compressobj(6, zlib.DEFLATED, -15)
    part = packer.compress(bytes(STEP)) + packer.flush(zlib.Z_FULL_FLUSH)
    body = part * (BOMB // STEP) + packer.flush()
    name = b"a.xml"
    sizes = len(body).to_bytes(4, "little") + BOMB.to_bytes(4, "little")
    shared = b"\x14\0\0\0\x08\0\0\0\0\0" + bytes(4) + sizes + len(name).to_bytes(2, "little") + bytes(2)
    local = b"PK\x03\x04" + shared + name + body
    central = b"PK\x01\x02\x14\0" + shared + bytes(14) + name
    end = b"PK\x05\x06" + bytes(4) + b"\1\0\1\0" + len(central).to_bytes(4, "little") + len(local).to_bytes(4, "little")
    return local + central + end + bytes(2)


@pytest.mark.usefixtures("low_limits")
@pytest.mark.parametrize("reader", ["pair_jsonl", "table", "conll", "captions"])
def test_gzip_of_zeros(tmp_path: Path, reader: str) -> None:
    path = tmp_path / "bomb.gz"
    path.write_bytes(ZEROS)
    refuse(reader, path, "a line of more than 1048576 bytes")


@pytest.mark.usefixtures("low_limits")
def test_zip_of_zeros(tmp_path: Path) -> None:
    path = tmp_path / "bomb.zip"
    path.write_bytes(zip_of_zeros())
    assert zipfile.ZipFile(path).infolist()[0].file_size == BOMB
    refuse("medquad", path, "more than 4194304 bytes when unpacked")


@pytest.mark.usefixtures("low_limits")
def test_tar_of_zeros(tmp_path: Path) -> None:
    entry = tarfile.TarInfo("a.xml")
    entry.size = BOMB
    path = tmp_path / "bomb.tar.gz"
    path.write_bytes(gzip.compress(entry.tobuf()) + ZEROS + gzip.compress(bytes(1024)))
    refuse("medquad", path, "more than 4194304 bytes when unpacked")


LINES = [item for item in DAMAGED if not item.archive and item.json != "file"]


@pytest.mark.usefixtures("low_limits")
@pytest.mark.parametrize("format_", LINES, ids=lambda item: item.name)
def test_files_that_go_on_for_ever(tmp_path_factory: pytest.TempPathFactory, format_: Format) -> None:
    @settings(derandomize=True, deadline=None, max_examples=2)
    @given(format_.examples)
    def run(examples: list) -> None:
        sample = format_.encode(examples)
        path, options = store(sample, tmp_path_factory.mktemp("endless"), ".gz")
        path.write_bytes(gzip.compress(sample.content) + gzip.compress(b"x" * STEP))
        refuse(format_.reader, path, "a line of more than 1048576 bytes", **options)

    run()
