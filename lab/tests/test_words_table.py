"""The table of character classes that the product ships."""

from __future__ import annotations

import json
import unicodedata
from pathlib import Path

import pytest

import trunkline
from trunkline_lab.words_table import make_table, write_table

SHIPPED = Path(trunkline.__file__).with_name("text") / "words.json"
TABLE = json.loads(SHIPPED.read_text("utf-8"))


@pytest.mark.skipif(unicodedata.unidata_version != TABLE["unicode"], reason="this Python has another Unicode")
def test_the_shipped_table_is_what_the_generator_makes(tmp_path: Path) -> None:
    assert make_table() == TABLE
    write_table(tmp_path / "words.json")
    assert (tmp_path / "words.json").read_bytes() == SHIPPED.read_bytes()
    assert SHIPPED.stat().st_size < 30_000
