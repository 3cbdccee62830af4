"""Looking texts up: what is the same, what is near, what is neither; the index against brute force."""

from __future__ import annotations

import random
from collections.abc import Sequence
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from trunkline.data.overlap import Match, OverlapIndex, jaccard, match_key, normalise, shingles

_LIST = """
river stone market winter garden letter window bridge orange silver doctor engine forest island kitchen ladder
mirror number ocean pencil quarter rocket saddle tunnel umbrella valley wagon yellow zipper anchor basket
candle
"""
WORDS = _LIST.split()
SENTENCE = " ".join(WORDS[:20])


def find(index: OverlapIndex, texts: Sequence[str], **options: Any) -> list[Match | None]:
    return [index.find(text, **options) for text in texts]


def sentence(rng: random.Random, words: int) -> str:
    return " ".join(rng.choice(WORDS) for _ in range(words))


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("Hello,  World!", "hello world"),
        ("a_b-c d", "a b c d"),
        ("ﬁne ＡＢ½", "fine ab1 2"),
        ("Straße ÉCOLE", "straße école"),
        ("cafe\u0301", "café"),
        ("की का", "की का"),
        ("東京 Tower", "東 京 tower"),
        ("❤\ufe0f 1\ufe0f\u20e3 ok", "1 ok"),
        ("...", ""),
        ("", ""),
    ],
)
def test_normalise(text: str, expected: str) -> None:
    assert normalise(text) == expected


@given(st.text(max_size=60))
def test_normalise_is_idempotent_and_has_single_blanks(text: str) -> None:
    once = normalise(text)
    assert once == " ".join(once.split())
    assert match_key(normalise(once)) == match_key(once)


@given(st.text(st.characters(max_codepoint=127), max_size=60))
def test_both_ways_to_normalise_agree(text: str) -> None:
    assert normalise(f"{text} é") == f"{normalise(text)} é".strip()


def test_match_key_joins_words_but_not_numbers() -> None:
    assert match_key("top up 1 23 now") == "topup1 23now"
    assert match_key("1 23") != match_key("12 3")


def test_copies_and_rewritings() -> None:
    index = OverlapIndex([("a@test", f"{SENTENCE.capitalize()}."), ("b@dev", "Top-up, please")])
    exact, case, joined = find(index, [f" {SENTENCE.capitalize()}.\n", f"{SENTENCE.upper()} !", "topup please"])
    assert exact and (exact.owner, exact.kind, exact.similarity) == ("a@test", "exact", 1.0)
    assert case and (case.kind, case.text) == ("normalised", f"{SENTENCE.capitalize()}.")
    assert joined and (joined.owner, joined.kind) == ("b@dev", "normalised")


def test_one_word_in_twenty_is_near_and_others_are_not() -> None:
    changed = SENTENCE.split()
    changed[9] = "purple"
    index = OverlapIndex([("a", SENTENCE)])
    near, unrelated, half = find(index, [" ".join(changed), " ".join(WORDS[12:]), " ".join([*WORDS[:10], *WORDS[22:]])])
    assert near is not None and near.kind == "near" and 0.8 <= near.similarity < 1
    assert near.similarity == jaccard(shingles(" ".join(changed)), shingles(SENTENCE))
    assert unrelated is None and half is None


def test_short_texts_match_only_as_they_are() -> None:
    index = OverlapIndex([("a", "show me flights now"), ("a", "yes please"), ("a", "!?")], min_words=5)
    assert find(index, ["show me flight now", "yes please!"])[0] is None
    assert [match and match.kind for match in find(index, ["yes please!", "!?", "??"])] == ["normalised", "exact", None]
    assert find(index, ["yes please", "!?", "show me flights now"], min_exact_words=3)[:2] == [None, None]
    assert find(index, ["show me flights now"], min_exact_words=3)[0] is not None


def test_near_can_be_left_out_and_the_first_owner_counts() -> None:
    index = OverlapIndex([("first", SENTENCE), ("second", SENTENCE.upper()), ("second", "other text")])
    assert find(index, [f"{SENTENCE} indeed"], near=False) == [None]
    match = find(index, [SENTENCE.upper()])[0]
    assert match is not None and (match.owner, match.kind) == ("first", "exact")
    assert [m and m.owner for m in find(index, [SENTENCE, "Other text!"])] == ["first", "second"]


def test_the_best_of_several_is_reported() -> None:
    words = SENTENCE.split()
    index = OverlapIndex([("far", " ".join([*words[:-1], "purple"])), ("close", f"{SENTENCE} a")])
    match = find(index, [SENTENCE])[0]
    assert match is not None and match.owner == "close"


def brute_force(texts: list[str], queries: list[str], threshold: float) -> dict[str, float]:
    sets = [shingles(text) for text in texts]
    best = {query: max(jaccard(shingles(query), other) for other in sets) for query in queries}
    return {query: value for query, value in best.items() if value >= threshold}


@pytest.mark.parametrize("threshold", [0.6, 0.8, 0.9])
@pytest.mark.parametrize("seed", range(2))
def test_candidates_equal_brute_force(threshold: float, seed: int) -> None:
    rng = random.Random(seed)
    texts = sorted({sentence(rng, rng.randint(8, 25)) for _ in range(120)})
    queries = set()
    for text in texts:
        words = text.split()
        for _ in range(rng.randint(1, 3)):
            place = rng.randrange(len(words))
            words[place] = rng.choice([rng.choice(WORDS), f"{words[place]}s", words[place][1:]])
        queries.add(" ".join(words))
    asked = sorted(queries - set(texts))
    truth = brute_force(texts, asked, threshold)
    index = OverlapIndex((("a", text) for text in texts), threshold)
    found = {q: m for q, m in zip(asked, find(index, asked), strict=True) if m is not None and m.kind == "near"}
    assert len(truth) >= 15
    assert {query: match.similarity for query, match in found.items()} == truth


def test_nothing_is_near_in_an_empty_index() -> None:
    assert OverlapIndex().find(SENTENCE) is None
