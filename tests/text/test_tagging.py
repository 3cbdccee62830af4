"""Tagging schemes: round trips as properties, repairs and errors as cases."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tagged import decode_tags, encode_tags
from trunkline.text.examples import (
    SCHEMES,
    TagError,
    WordSpan,
    decode_with_repairs,
    join_tokens,
)


@st.composite
def sentences(draw: st.DrawFn) -> tuple[int, list[WordSpan]]:
    position, spans = 0, []
    for gap, length, label in draw(
        st.lists(st.tuples(st.integers(0, 2), st.integers(1, 3), st.sampled_from(["a", "b-c", "D_e"])), max_size=6)
    ):
        spans.append((position + gap, position + gap + length, label))
        position += gap + length
    return position + draw(st.integers(0, 2)), spans


@given(sentences(), st.sampled_from([scheme for scheme in SCHEMES if scheme != "IO"]))
def test_round_trip(sentence: tuple[int, list[WordSpan]], scheme: str) -> None:
    n_words, spans = sentence
    tags = encode_tags(n_words, spans, scheme)
    assert len(tags) == n_words
    assert decode_tags(tags, scheme) == spans
    assert decode_with_repairs(tags, scheme) == (spans, [])


@given(st.lists(st.tuples(st.sampled_from("BIESLUO"), st.sampled_from("xy")), max_size=12), st.sampled_from(SCHEMES))
def test_any_tags_decode_to_spans_in_order(pairs: list[tuple[str, str]], scheme: str) -> None:
    tags = ["O" if prefix == "O" else f"{prefix}-{label}" for prefix, label in pairs]
    try:
        spans = decode_tags(tags, scheme)
    except TagError as error:
        assert tags[error.index] in str(error)
        return
    covered = [index for first, last, _ in spans for index in range(first, last)]
    assert covered == sorted(set(covered))
    assert covered == [index for index, tag in enumerate(tags) if tag != "O"]


@pytest.mark.parametrize(
    ("scheme", "tags", "spans", "broken"),
    [
        ("IO", "I-a I-a O I-b PER", [(0, 2, "a"), (3, 4, "b"), (4, 5, "PER")], []),
        ("IOB1", "I-a I-a B-a O I-b", [(0, 2, "a"), (2, 3, "a"), (4, 5, "b")], []),
        ("BIO", "I-a I-a I-b B-b", [(0, 2, "a"), (2, 3, "b"), (3, 4, "b")], [0, 2]),
        ("BIOES", "B-a O I-b S-a E-a", [(0, 1, "a"), (2, 3, "b"), (3, 4, "a"), (4, 5, "a")], [1, 2, 3, 4]),
        ("BIOES", "B-a", [(0, 1, "a")], [1]),
        ("BILOU", "B-a L-a U-b", [(0, 2, "a"), (2, 3, "b")], []),
        ("BIO", "", [], []),
    ],
)
def test_repairs(scheme: str, tags: str, spans: list[WordSpan], broken: list[int]) -> None:
    assert decode_with_repairs(tags.split(), scheme) == (spans, broken)


@pytest.mark.parametrize(
    ("scheme", "tag"),
    [
        ("BIO", "X-a"),
        ("BIO", "a"),
        ("BIO", "B-"),
        ("BIO", ""),
        ("BIO", "S-a"),
        ("BILOU", "E-a"),
        ("IO", "B-a"),
        ("IO", ""),
    ],
)
def test_unknown_tags_are_named(scheme: str, tag: str) -> None:
    with pytest.raises(TagError, match=f"the tag '{tag}' is not one of {scheme}") as caught:
        decode_tags(["O", tag], scheme)
    assert caught.value.index == 1


@pytest.mark.parametrize(
    ("tokens", "text"),
    [
        ("Ann lives in Berlin-Mitte .", "Ann lives in Berlin-Mitte ."),
        ("北 京 的 ， IBM 公司 3 个", "北京的， IBM 公司 3 个"),
        ("กิน ข้าว ที่ KFC é", "กินข้าวที่ KFC é"),
        ("東京 タワー", "東京タワー"),
        ("서울 시", "서울 시"),
        ("", ""),
    ],
)
def test_tokens_are_joined_as_they_are_written(tokens: str, text: str) -> None:
    joined, words = join_tokens(tokens.split())
    assert joined == text
    assert [joined[start:end] for start, end in words] == tokens.split()
