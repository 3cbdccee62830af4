"""What is written in a format is read back from it, plain and packed."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from properties.disk import store
from properties.form import Format
from properties.formats import FORMATS
from trunkline_lab.data.readers import READERS

SETTINGS = settings(derandomize=True, deadline=None, max_examples=15)
every_format = pytest.mark.parametrize("format_", FORMATS, ids=lambda item: item.name)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("round_trip")


def test_every_reader_has_a_format() -> None:
    assert {item.reader for item in FORMATS} == READERS.keys()


@every_format
def test_random_rows_round_trip(folder: Path, format_: Format) -> None:
    @SETTINGS
    @given(format_.examples, st.sampled_from(format_.packings))
    def run(examples: list, packing: str) -> None:
        path, options = store(format_.encode(examples), folder, packing)
        assert format_.read(path, options) == format_.expect(examples)

    run()


@pytest.mark.parametrize("format_", [item for item in FORMATS if item.rows], ids=lambda item: item.name)
def test_shuffled_rows_are_shuffled_examples(folder: Path, format_: Format) -> None:
    @SETTINGS
    @given(format_.examples, st.randoms(use_true_random=False))
    def run(examples: list, order) -> None:
        sample = format_.encode(examples)
        rows = [row + b"\n" for row in sample.content.split(b"\n")[:-1]]
        order.shuffle(rows)
        path, options = store(sample.with_content(b"".join(rows)), folder)
        assert Counter(format_.read(path, options)) == Counter(format_.expect(examples))

    run()
