"""Sentences, word borders and names of concepts."""

from __future__ import annotations

from collections import Counter
from itertools import pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from trunkline.label.files import split_passages
from trunkline.label.weak import find_all, is_whole, iterate_sentences, normalise_type


def test_sentences_of_a_document() -> None:
    text = "# Heading\n\nAnn lives\nin  Oslo. She likes it!\n \n123\n\nbroken \ud800 text\n\nlast"
    skipped: Counter[str] = Counter()
    passages = [*split_passages(text.split("\n")), "one more"]
    found = list(iterate_sentences(passages, 60, skipped))
    assert found == ["# Heading", "Ann lives in Oslo.", "She likes it!", "last", "one more"]
    assert skipped == {"no letter": 1, "damaged": 1}
    assert list(iterate_sentences(["a b c d e f g"], 5, skipped)) == ["a b c d e", "f g"]


@pytest.mark.parametrize(
    ("text", "surface", "whole"),
    [
        ("in Oslo.", "Oslo", True),
        ("Oslo's fjord", "Oslo", True),
        ("the Jones' house", "Jones", True),
        ("Oslos", "Oslo", False),
        ("aOslo", "Oslo", False),
        ("anti-Oslo", "Oslo", False),
        ("Oslo-based", "Oslo", False),
        ("don't", "don", False),
        ("don't", "t", False),
        ("AT&T", "T", False),
        ("me@acme.org", "acme", False),
        ("Oslo_1", "Oslo", False),
        ("- Oslo -", "Oslo", True),
        ("(Oslo)", "Oslo", True),
        ("C++ code", "C++", True),
        ("7pm", "pm", False),
    ],
)
def test_word_borders(text: str, surface: str, whole: bool) -> None:
    start = text.rindex(surface)
    assert is_whole(text, start, start + len(surface)) is whole


def test_every_place_of_a_surface() -> None:
    assert find_all("Ann met Anna and Ann.", "Ann") == [(0, 3), (17, 20)]
    assert find_all("no no no", "no no") == [(0, 5)]
    assert find_all("Ann", "Bob") == []
    assert find_all("Ange\u0301 and Ange", "Ange") == [(10, 14)]
    assert find_all("Ange\u0301 and Ange", "Ange\u0301") == [(0, 5)]
    assert find_all("私は東京に住む", "東京") == [(2, 4)]
    assert find_all("ในเมือง", "เมือง") == [(2, 7)]


@settings(deadline=None)
@given(st.text("ab -'", max_size=30), st.text("ab -'", min_size=1, max_size=3))
def test_places_hold_the_surface_and_do_not_overlap(text: str, surface: str) -> None:
    places = find_all(text, surface)
    assert all(text[start:end] == surface for start, end in places)
    assert all(left[1] <= right[0] for left, right in pairwise(places))


@pytest.mark.parametrize(
    ("given", "name"),
    [
        ("Football_Club", "football club"),
        (" capital-city. ", "capital city"),
        ("*person*", "person"),
        ("café", "café"),
        ("x", ""),
        ("42", ""),
        ("", ""),
        ("one two three four five six seven", ""),
        ("a\ud800b", ""),
        ("a" * 81, ""),
    ],
)
def test_names_of_concepts(given: str, name: str) -> None:
    assert normalise_type(given) == name
