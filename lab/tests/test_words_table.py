"""The table of character classes that the product ships."""

from __future__ import annotations

import unicodedata
from pathlib import Path

import pytest

import trunkline
from trunkline.text.words import word_table
from trunkline_lab.words_table import make_table, write_table


@pytest.mark.skipif(
    unicodedata.unidata_version != word_table()["unicode"], reason="this Python has another version of Unicode"
)
def test_the_shipped_table_is_what_the_generator_makes(tmp_path: Path) -> None:
    assert word_table() == make_table()
    write_table(tmp_path / "words.json")
    shipped = Path(trunkline.__file__).with_name("text") / "words.json"
    assert (tmp_path / "words.json").read_bytes() == shipped.read_bytes()
    assert shipped.stat().st_size < 30_000
