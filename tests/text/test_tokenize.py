"""Windows of long texts: every token is owned once, with context around it, and its word's feature is its own."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

import tiny_models
from trunkline.encoder.batch import TokenBatch
from trunkline.errors import EncoderError
from trunkline.text.packing import pack, text_unit, word_units
from trunkline.text.tokens import TextTokenizer
from trunkline.text.words import split_words

texts = st.lists(st.sampled_from([*tiny_models.NAMES, "walking", "xq", "7pm", "never-ending", "€5"]), max_size=70).map(
    " ".join
)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("tokenizer")
    tiny_models.write_tokenizer(path)
    return path


@pytest.fixture(scope="module")
def tokenizer(folder: Path) -> Callable[[int], TextTokenizer]:
    return lambda max_length: TextTokenizer.from_folder(folder, max_length)


@settings(max_examples=60, deadline=None)
@given(text=texts, max_length=st.sampled_from([3, 8, 9, 16, 64, 128]))
def test_windows_own_every_token_once_and_hold_what_they_own(
    tokenizer: Callable[[int], TextTokenizer], text: str, max_length: int
) -> None:
    made = tokenizer(max_length)
    (tokens,) = made.encode([text])
    ids = made.tokenizer.encode(text, add_special_tokens=False).ids
    owned = [index for window in tokens.windows for index in range(*window.own)]
    assert owned == list(range(len(ids)))
    for number, window in enumerate(tokens.windows):
        assert len(window.ids) <= max_length
        assert (window.ids[0], window.ids[-1]) == (made.opening, made.closing)
        inner = window.ids[1:-1]
        assert inner.tolist() == ids[window.first : window.first + len(inner)]
        assert window.first <= window.own[0] <= window.own[1] <= window.first + len(inner)
        # A token at a seam has half of the overlap as context on its side.
        assert number == 0 or window.own[0] - window.first == made.overlap // 2
    assert len(tokens.windows) == 1 or len(ids) > max_length - 2


@settings(max_examples=40, deadline=None)
@given(shape=st.lists(texts, min_size=1, max_size=5), max_length=st.sampled_from([9, 16, 128]))
def test_a_words_feature_is_the_mean_of_its_tokens_wherever_they_are_packed(
    tokenizer: Callable[[int], TextTokenizer], shape: list[str], max_length: int
) -> None:
    made = tokenizer(max_length)
    encoded = made.encode(shape)
    words = [split_words(text) for text in shape]
    packed = pack([word_units(tokens, spans) for tokens, spans in zip(encoded, words, strict=True)], pad_id=1, width=40)
    batch = TokenBatch.from_packed(packed)
    # A token's state stands for its id here, so that a mean names the tokens it is made of.
    features = batch.pool(torch.nn.functional.one_hot(batch.input_ids, len(tiny_models.vocabulary())).float())
    expected = []
    for text, spans in zip(shape, words, strict=True):
        encoding = made.tokenizer.encode(text, add_special_tokens=False)
        for start, end in spans:
            row = np.zeros(features.shape[1])
            inside = [i for i, (a, b) in zip(encoding.ids, encoding.offsets, strict=True) if a < end and b > start]
            np.add.at(row, inside, 1 / len(inside))
            expected.append(row)
    assert features.numpy() == pytest.approx(np.array(expected).reshape(features.shape), abs=1e-6)
    assert packed.n_units == sum(len(spans) for spans in words)


@settings(max_examples=40, deadline=None)
@given(text=texts, max_length=st.sampled_from([9, 16, 128]))
def test_a_text_unit_has_every_token_once_and_the_special_ones_of_each_window(
    tokenizer: Callable[[int], TextTokenizer], text: str, max_length: int
) -> None:
    made = tokenizer(max_length)
    (tokens,) = made.encode([text])
    unit = text_unit(tokens)
    chosen = unit.ids[unit.token].tolist()
    ids = made.tokenizer.encode(text, add_special_tokens=False).ids
    assert sorted(chosen) == sorted([*ids, *[made.opening, made.closing] * len(tokens.windows)])


def test_a_tokenizer_saved_and_loaded_gives_the_same_tokens(folder: Path, tmp_path: Path) -> None:
    first = TextTokenizer.from_folder(folder, 16)
    first.save(tmp_path)
    again = TextTokenizer.from_folder(tmp_path, 16)
    for ours, theirs in zip(first.encode(tiny_models.SENTENCES), again.encode(tiny_models.SENTENCES), strict=True):
        assert (ours.offsets == theirs.offsets).all()
        assert all((x.ids == y.ids).all() for x, y in zip(ours.windows, theirs.windows, strict=True))


def test_truncation_and_padding_in_a_tokenizer_file_do_not_apply(folder: Path, tmp_path: Path) -> None:
    from tokenizers import Tokenizer

    raw = Tokenizer.from_file(str(folder / "tokenizer.json"))
    raw.enable_truncation(4)
    raw.enable_padding(length=50)
    raw.save(str(tmp_path / "tokenizer.json"))
    (tokens,) = TextTokenizer.from_folder(tmp_path, 64).encode(["ann lives in berlin and works at acme"])
    assert len(tokens.offsets) == 8


@pytest.mark.parametrize("content", [None, "{", "{}"])
def test_a_folder_without_a_usable_tokenizer_is_refused(content: str | None, tmp_path: Path) -> None:
    if content is not None:
        (tmp_path / "tokenizer.json").write_text(content)
    with pytest.raises(EncoderError, match=r"no usable tokenizer(?s:.*)tokenizer\.json"):
        TextTokenizer.from_folder(tmp_path, 64)


def test_a_tokenizer_without_special_tokens_is_refused(tmp_path: Path) -> None:
    from tokenizers import Tokenizer, models

    Tokenizer(models.WordPiece({"[UNK]": 0}, unk_token="[UNK]")).save(str(tmp_path / "tokenizer.json"))
    with pytest.raises(EncoderError, match="adds 0 special tokens"):
        TextTokenizer.from_folder(tmp_path, 64)
