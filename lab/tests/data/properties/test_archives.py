"""Damaged archives: all of the examples, or an error that names the file."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given, settings

from properties.checks import read_or_refuse
from properties.damage import altered, truncated
from properties.disk import ARCHIVES, pack
from properties.form import Format
from properties.formats import FORMATS
from trunkline.text.examples import PairExample

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
