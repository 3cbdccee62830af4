"""The rule that turns table headers into concepts."""

from __future__ import annotations

import pytest

from trunkline_lab.data.headers import (
    MEASURE_HEADERS,
    MEASURE_WORDS,
    NOISE_HEADERS,
    NOISE_WORDS,
    normalise_header,
)


@pytest.mark.parametrize(
    ("header", "expected"),
    [
        ("Home team", "home team"),
        ("  Driver(s) [2]", "driver"),
        ("Nationality/Origin", "nationality origin"),
        ("Men's singles", "mens singles"),
        ("team 1", "team"),
        ("Navigation v t e", "navigation"),
        ("Ländername", "ländername"),
        ("rank", ""),
        ("Points", ""),
        ("2nd opponent", ""),
        ("1999 winner", ""),
        ("of", ""),
        ("a b", "a b"),
        ("ab", ""),
        ("a list of very many words", ""),
        ("list of ships", ""),
        ("", ""),
        ("!?", ""),
    ],
)
def test_normalise_header(header: str, expected: str) -> None:
    assert normalise_header(header) == expected


@pytest.mark.parametrize("header", ["lost", "Total yards", "no in series", "points classification", "US viewers"])
def test_measures_are_noise_only_when_strict(header: str) -> None:
    assert normalise_header(header)
    assert normalise_header(header, strict=True) == ""


@pytest.mark.parametrize("header", ["player", "home team", "city of license", "original air date", "vacator"])
def test_kinds_of_things_stay(header: str) -> None:
    assert normalise_header(header, strict=True) == header


@pytest.mark.parametrize("header", ["Points [1]", "Driver(s)", "Men's singles", "team 1", "a 1 2"])
def test_a_concept_is_its_own_header(header: str) -> None:
    once = normalise_header(header)
    assert normalise_header(once) == once


def test_the_lists_hold_what_the_rule_can_meet() -> None:
    for phrase in NOISE_HEADERS | MEASURE_HEADERS:
        assert phrase == " ".join(phrase.lower().split())
        assert not any(character.isdigit() for character in phrase)
    assert all(" " not in word for word in NOISE_WORDS | MEASURE_WORDS)
    assert not NOISE_HEADERS & MEASURE_HEADERS
