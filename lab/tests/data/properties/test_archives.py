"""Damaged archives: all of the examples, or an error that names the file."""

from __future__ import annotations

import tarfile
from pathlib import Path

import pytest
from hypothesis import given, settings

from properties.checks import read_or_refuse
from properties.damage import altered, truncated
from properties.disk import ARCHIVES, TARS, make_tar, pack, squeeze
from properties.form import Format
from properties.formats import FORMATS
from trunkline.errors import DataError
from trunkline.text.examples import PairExample
from trunkline_lab.data.readers import READERS

pytestmark = pytest.mark.slow

SETTINGS = settings(derandomize=True, deadline=None, max_examples=30)
XML = next(item for item in FORMATS if item.name == "medquad")
PAIRS = [PairExample(f"title {number}", f"body {number}") for number in range(40)]
PACKED = [(XML, PAIRS, packing) for packing in ARCHIVES]
every_packing = pytest.mark.parametrize(
    ("format_", "examples", "packing"), PACKED, ids=[f"{item.reader}{packing}" for item, _, packing in PACKED]
)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("archives")


@every_packing
def test_truncated_archives_lose_nothing(folder: Path, format_: Format, examples: list, packing: str) -> None:
    sample = format_.encode(examples)
    path = folder / f"main{packing}"

    @SETTINGS
    @given(truncated(pack({sample.member: sample.content}, packing)))
    def run(content: bytes) -> None:
        path.write_bytes(content)
        assert read_or_refuse(format_.reader, path, {}) in (None, examples)

    run()


@every_packing
def test_altered_archives(folder: Path, format_: Format, examples: list, packing: str) -> None:
    sample = format_.encode(examples)
    path = folder / f"main{packing}"

    @SETTINGS
    @given(altered(pack({sample.member: sample.content}, packing)))
    def run(content: bytes) -> None:
        path.write_bytes(content)
        found = read_or_refuse(format_.reader, path, {})
        # A plain tar has no checksum of what its files hold; all others have one.
        assert packing == ".tar" or found in (None, examples)

    run()


@pytest.mark.parametrize("packing", TARS)
def test_a_damaged_header_is_not_the_end_of_an_archive(folder: Path, packing: str) -> None:
    tar = bytearray(make_tar({f"{n}.xml": XML.encode([pair]).content for n, pair in enumerate(PAIRS[:3])}))
    path = folder / f"main{packing}"
    path.write_bytes(squeeze(bytes(tar), packing))
    assert list(READERS["medquad"].read(path)) == PAIRS[:3]
    whole = bytes(tar)
    tar[tar.index(b"1.xml")] ^= 1
    for damaged in (bytes(tar), whole[: whole.index(b"1.xml")], whole[: whole.index(b"1.xml") + 100]):
        path.write_bytes(squeeze(damaged, packing))
        with pytest.raises(DataError, match="the archive is damaged"):
            list(READERS["medquad"].read(path))


def test_a_negative_size_does_not_lead_back_for_ever(folder: Path) -> None:
    entry = tarfile.TarInfo("1.xml")
    entry.size = -512
    path = folder / "main.tar"
    path.write_bytes(entry.tobuf(tarfile.GNU_FORMAT) + bytes(1024))
    with pytest.raises(DataError, match="the archive is damaged"):
        list(READERS["medquad"].read(path))
