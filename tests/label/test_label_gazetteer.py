"""Gazetteers: reading them, and what a match has to be."""

from __future__ import annotations

import gzip
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from trunkline.bundle.files import write_atomic
from trunkline.errors import DataError
from trunkline.label.weak import SurfaceIndex, is_whole, read_gazetteer, word_keys
from trunkline.text.examples import Span


def read(path: Path, content: str | bytes) -> dict[str, tuple[str, ...]]:
    write_atomic(path, content)
    return read_gazetteer(path)


def found(concepts: dict[str, tuple[str, ...]], text: str) -> list[tuple[str, str]]:
    return [(text[span.start : span.end], span.label) for span in SurfaceIndex(concepts).find(text)]


ROWS = {"Oslo": ("city",), "river horse": ("animal",)}


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("g.tsv", "surface\tconcept\nOslo\tcity\nriver  horse\tAnimal\n"),
        ("g.csv", 'surface,concept\nOslo,city\n"river horse",animal\n'),
        ("g.csv", "concept;note;surface\ncity;x;Oslo\n\nanimal;x;river horse\n"),
        ("g.jsonl", '{"surface": "Oslo", "concept": "city"}\n{"surface": "river horse", "concept": "animal", "x": 1}'),
    ],
)
def test_files(tmp_path: Path, name: str, content: str) -> None:
    assert read(tmp_path / name, content) == ROWS
    packed = tmp_path / f"{name}.gz"
    packed.write_bytes(gzip.compress(content.encode()))
    assert read_gazetteer(packed) == ROWS


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("g.tsv", "surface\tconcept\nOslo\n", r"g\.tsv:2: 1 column"),
        ("g.tsv", "surface\tconcept\nOslo\tcity\n\tcity\n", r"g\.tsv:3: the surface '' with the concept 'city'"),
        ("g.tsv", "Oslo\tcity\nBonn\tcity\n", r"g\.tsv:2: no key 'surface'; the keys are 'Oslo', 'city'"),
        ("g.jsonl", '{"surface": "x", "count": 3}\n', r"g\.jsonl:1: no key 'concept'"),
        ("g.jsonl", '{"surface": "x", "concept": ["y"]}\n', r"g\.jsonl:1: the value of 'concept' is \['y'\]"),
        ("g.jsonl", "[]\n", r"g\.jsonl:1: the line holds list"),
        ("g.tsv", "", "the file is empty"),
        ("g.tsv", "surface\tconcept\nthe\t42\n", r"g\.tsv:2: .*a concept that is a name"),
        ("g.tsv", "surface\tconcept\n \u200b\tword\n", r"g\.tsv:2: the surface"),
        ("g.jsonl", "\n", "the file is empty"),
        ("g.parquet", "x", r"Expected files that end in \.csv, \.tsv, \.jsonl"),
    ],
)
def test_problems_are_named(tmp_path: Path, name: str, content: str, message: str) -> None:
    with pytest.raises(DataError, match=message):
        read(tmp_path / name, content)


def test_ambiguity_is_kept(tmp_path: Path) -> None:
    rows = "surface\tconcept\nJordan\tcountry\nJordan\tRiver\nNile\triver\nJordan\triver\n"
    assert read(tmp_path / "g.tsv", rows) == {"Jordan": ("country", "river"), "Nile": ("river",)}


def test_case_and_length_of_matches() -> None:
    concepts = {
        "New York": ("state", "city"),
        "New York Times": ("newspaper",),
        "york ham": ("food",),
        "Polish": ("x",),
    }
    assert found(concepts, "new york times") == []
    assert found(concepts, "the New York Times of New York") == [
        ("New York Times", "newspaper"),
        ("New York", "state"),
        ("New York", "city"),
    ]
    assert found(concepts, "York ham, polish it") == [("York ham", "food")]
    assert found({"Johnny's Inn": ("inn",)}, "at Johnny 's Inn") == [("Johnny 's Inn", "inn")]
    assert found({"A4": ("road",)}, "the A 4, the A4") == [("A4", "road")]
    assert found({"東京": ("city",), "東京大学": ("university",)}, "私は東京にある東京大学へ") == [
        ("東京", "city"),
        ("東京大学", "university"),
    ]


WORD = st.sampled_from(["ann", "Ann", "lee", "Lee", "x1", "'s", "-", "é"])
SURFACES = st.dictionaries(
    st.lists(WORD, min_size=1, max_size=3).map(" ".join), st.tuples(st.sampled_from(["a", "b"])), min_size=1, max_size=8
)
TEXT = st.lists(st.tuples(WORD, st.sampled_from([" ", ""])), max_size=12).map(lambda p: "".join(a + b for a, b in p))


@settings(deadline=None)
@given(SURFACES, TEXT)
def test_matches_are_surfaces_and_whole_words(concepts: dict[str, tuple[str, ...]], text: str) -> None:
    known = {tuple(word_keys(surface)[0]) for surface in concepts}
    for span in SurfaceIndex(concepts).find(text):
        piece = text[span.start : span.end]
        assert {tuple(word_keys(piece)[0]), tuple(word_keys(piece.lower())[0])} & known
        assert is_whole(text, span.start, span.end)


@settings(deadline=None)
@given(SURFACES, TEXT)
def test_the_longest_match_wins(concepts: dict[str, tuple[str, ...]], text: str) -> None:
    """Compared with the slow way: at each word, try every surface."""
    keys, words = word_keys(text)
    expected, first = [], 0
    while first < len(words):
        best = first
        for surface in concepts:
            wanted = word_keys(surface)[0]
            last = first + len(wanted)
            given = keys[first:last] if surface != surface.lower() else [key.lower() for key in keys[first:last]]
            if given == wanted and last > best and is_whole(text, words[first][0], words[last - 1][1]):
                best = last
        if best > first:
            expected.append((words[first][0], words[best - 1][1]))
        first = max(best, first + 1)
    spans = SurfaceIndex(concepts).find(text)
    assert list(dict.fromkeys((span.start, span.end) for span in spans)) == expected


def test_offsets() -> None:
    assert SurfaceIndex({"Nile": ("river",)}).find("the Nile") == [Span(4, 8, "river")]
