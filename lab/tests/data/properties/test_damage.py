"""Damaged files: a reader gives valid examples or raises an error that names the file, and never an empty result."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from properties.checks import read_or_refuse
from properties.damage import damaged, truncated, wrong_values
from properties.disk import store
from properties.form import Format
from properties.formats import DAMAGED

pytestmark = pytest.mark.slow

SETTINGS = settings(derandomize=True, deadline=None, max_examples=30)
every_format = pytest.mark.parametrize("format_", DAMAGED, ids=lambda item: item.name)
BESIDE = [
    item
    for item in DAMAGED
    if item.name in ("linked_gazetteer", "tabfact", "aligned_lines") or item.reader == "parallel"
]
json_formats = pytest.mark.parametrize("format_", [item for item in DAMAGED if item.json], ids=lambda item: item.name)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("damage")


@every_format
def test_damaged_content(folder: Path, format_: Format) -> None:
    @settings(SETTINGS, max_examples=35)
    @given(st.data())
    def run(data: st.DataObject) -> None:
        sample = format_.encode(data.draw(format_.examples))
        content = data.draw(damaged(sample.content))
        read_or_refuse(format_.reader, *store(sample.with_content(content), folder, ".tar" * format_.archive))

    run()


@pytest.mark.parametrize("format_", BESIDE, ids=lambda item: item.name)
def test_damaged_files_beside(folder: Path, format_: Format) -> None:
    @SETTINGS
    @given(st.data())
    def run(data: st.DataObject) -> None:
        sample = format_.encode(data.draw(format_.examples))
        beside = {option: data.draw(damaged(content)) for option, content in sample.beside.items()}
        read_or_refuse(format_.reader, *store(replace(sample, beside=beside), folder))

    run()


@every_format
def test_a_file_that_is_cut_off_gives_the_first_examples(folder: Path, format_: Format) -> None:
    @settings(SETTINGS, max_examples=15)
    @given(st.data())
    def run(data: st.DataObject) -> None:
        examples = data.draw(format_.examples)
        sample = format_.encode(examples)
        cut = sample.with_content(data.draw(truncated(sample.content)))
        found = read_or_refuse(format_.reader, *store(cut, folder, ".tar" * format_.archive))
        found = format_.reduced(found or [])
        if format_.ordered and not sample.members:
            assert len(found) <= len(examples)
            assert found[:-1] == format_.expect(examples)[: len(found[:-1])]

    run()


@json_formats
def test_wrong_values(folder: Path, format_: Format) -> None:
    @settings(SETTINGS, max_examples=2)
    @given(format_.examples)
    def run(examples: list) -> None:
        sample = format_.encode(examples)
        path, options = store(sample, folder)
        for content in wrong_values(sample.content, whole=format_.json == "file"):
            path.write_bytes(content)
            read_or_refuse(format_.reader, path, options)

    run()
