"""Windows of long texts: every token is owned once, with context around it, and its word's feature is its own."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

import tiny_models
from trunkline.encoder.encoder import TokenBatch
from trunkline.errors import EncoderError
from trunkline.text.tokens import TextTokenizer, pack, text_unit, word_units
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
    assert tokens.ids[tokens.place].tolist() == ids
    assert (np.diff(tokens.place) > 0).all()
    begins = np.cumsum([0, *tokens.sizes])
    for number, window in enumerate(tokens.windows):
        assert len(window) <= max_length
        assert (window[0], window[-1]) == (made.opening, made.closing)
        own = np.flatnonzero((begins[number] < tokens.place) & (tokens.place < begins[number + 1] - 1))
        assert own.tolist() == list(range(own[0], own[-1] + 1)) if ids else not len(own)
        first = own[0] - (tokens.place[own[0]] - begins[number] - 1) if ids else 0
        assert window[1:-1].tolist() == ids[first : first + len(window) - 2]
        # A token at a seam has half of the overlap as context on its side.
        assert number == 0 or own[0] - first == made.overlap // 2
    assert len(tokens.sizes) == 1 or len(ids) > max_length - 2


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
    assert sorted(chosen) == sorted([*ids, *[made.opening, made.closing] * len(tokens.sizes)])


def test_a_tokenizer_saved_and_loaded_gives_the_same_tokens(folder: Path, tmp_path: Path) -> None:
    first = TextTokenizer.from_folder(folder, 16)
    first.tokenizer.save(str(tmp_path / "tokenizer.json"))
    again = TextTokenizer.from_folder(tmp_path, 16)
    for ours, theirs in zip(first.encode(tiny_models.SENTENCES), again.encode(tiny_models.SENTENCES), strict=True):
        assert (ours.offsets == theirs.offsets).all()
        assert (ours.ids == theirs.ids).all()


def test_truncation_and_padding_in_a_tokenizer_file_do_not_apply(folder: Path, tmp_path: Path) -> None:
    from tokenizers import Tokenizer

    raw = Tokenizer.from_file(str(folder / "tokenizer.json"))
    raw.enable_truncation(4)
    raw.enable_padding(length=50)
    raw.save(str(tmp_path / "tokenizer.json"))
    (tokens,) = TextTokenizer.from_folder(tmp_path, 64).encode(["ann lives in berlin and works at acme"])
    assert len(tokens.offsets) == 8


def pieces_of(tokenizer: TextTokenizer, text: str) -> list[str]:
    return [text[start:end] for start, end in tokenizer.encode([text])[0].borders("pieces")]


def test_pieces_are_words_cut_where_the_tokenizer_cuts_them(tokenizer: Callable[[int], TextTokenizer]) -> None:
    made = tokenizer(64)
    assert pieces_of(made, "Berlining, annxq 7pm") == ["Berlin", "ing", ",", "ann", "x", "q", "7", "p", "m"]
    # The tokenizer has one unknown token for two words.
    assert pieces_of(made, "żółć7 北京") == ["żółć", "7", "北", "京"]
    assert pieces_of(made, "annie\u0301") == ["ann", "i", "e\u0301"], "a mark stays with its letter"
    assert pieces_of(made, " \u200b ") == []


@settings(max_examples=60, deadline=None)
@given(st.lists(st.sampled_from([*"abé 7.-\u0301\u200d北ก้", "ing", "berlin"]), max_size=20).map("".join))
def test_pieces_hold_what_words_hold(tokenizer: Callable[[int], TextTokenizer], text: str) -> None:
    (tokens,) = tokenizer(16).encode([text])
    words, pieces = split_words(text), tokens.borders("pieces")
    for side in (0, 1):
        assert {word[side] for word in words} <= {piece[side] for piece in pieces}
    covered = [[place for start, end in units for place in range(start, end)] for units in (words, pieces)]
    assert covered[0] == covered[1]
    assert all(text[start] not in "\u0301\u200d" or (start, end) in words for start, end in pieces)
    assert all(start in {0, *tokens.offsets.ravel()} or start in {word[0] for word in words} for start, _ in pieces), (
        "no cuts but the tokenizer's"
    )


def test_the_share_of_unknown_tokens(tokenizer: Callable[[int], TextTokenizer]) -> None:
    texts = ["ann lives in berlin", "ann łódź berlin łódź"]
    for length in (5, 64):
        made = tokenizer(length)
        tokens = made.encode(texts)
        assert made.unknown_share(tokens) == 2 / 8
        assert made.unknown_share(tokens[:1]) == 0
    assert made.unknown_share([]) == made.unknown_share(made.encode([""])) == 0


def test_the_unknown_token_of_tokenizers() -> None:
    from tokenizers import Tokenizer, models, processors

    def made(model: object, *tokens: str) -> TextTokenizer:
        tokenizer = Tokenizer(model)
        tokenizer.add_special_tokens([*tokens, "<a>", "<b>"])
        ends = [(name, tokenizer.token_to_id(name)) for name in ("<a>", "<b>")]
        tokenizer.post_processor = processors.TemplateProcessing(single="<a> $A <b>", special_tokens=ends)
        return TextTokenizer(tokenizer, 16)

    for model, share in (
        (models.WordPiece({"x": 0, "??": 1}, unk_token="??"), 1),
        (models.Unigram([("x", 0.0), ("<unk>", 0.0)], unk_id=1), 1),
        (models.BPE({"x": 0, "y": 1}, []), 0),
    ):
        tokenizer = made(model)
        assert tokenizer.unknown_share(tokenizer.encode(["x"])) == 0
        assert tokenizer.unknown_share(tokenizer.encode(["y"])) == share


@pytest.mark.parametrize(
    ("config", "message"),
    [
        ({"do_lower_case": False}, "do_lower_case false, and tokenizer.json lowercase true"),
        ({"do_lower_case": True, "strip_accents": False}, "strip_accents false, and tokenizer.json strip_accents null"),
        ({"tokenize_chinese_chars": False, "tokenizer_class": "BertTokenizer"}, "tokenize_chinese_chars false"),
        ({"do_lower_case": True, "tokenize_chinese_chars": True, "strip_accents": None}, ""),
        ({"do_lower_case": False, "tokenizer_class": "PreTrainedTokenizerFast"}, ""),
        ({}, ""),
    ],
)
def test_a_config_that_tokenises_otherwise_is_refused(
    config: dict[str, object], message: str, folder: Path, tmp_path: Path
) -> None:
    TextTokenizer.from_folder(folder, 16).tokenizer.save(str(tmp_path / "tokenizer.json"))
    (tmp_path / "tokenizer_config.json").write_text(json.dumps(config))
    if message:
        with pytest.raises(EncoderError, match=message):
            TextTokenizer.from_folder(tmp_path, 16)
        return
    assert TextTokenizer.from_folder(tmp_path, 16).encode(["Ann"])[0].offsets.tolist() == [[0, 3]]


@pytest.mark.parametrize("content", [None, "{", "{}"])
def test_a_folder_without_a_usable_tokenizer_is_refused(content: str | None, tmp_path: Path) -> None:
    # With this alone, transformers makes a tokenizer that knows no word.
    (tmp_path / "config.json").write_text('{"model_type": "bert"}')
    if content is not None:
        (tmp_path / "tokenizer.json").write_text(content)
    with pytest.raises(EncoderError, match=r"no usable tokenizer(?s:.*)tokenizer\.json"):
        TextTokenizer.from_folder(tmp_path, 64)


def test_a_tokenizer_without_special_tokens_is_refused(tmp_path: Path) -> None:
    from tokenizers import Tokenizer, models

    Tokenizer(models.WordPiece({"[UNK]": 0}, unk_token="[UNK]")).save(str(tmp_path / "tokenizer.json"))
    with pytest.raises(EncoderError, match="adds 0 special tokens"):
        TextTokenizer.from_folder(tmp_path, 64)


def test_a_fingerprint_is_that_of_the_tokenizer_and_its_windows(folder: Path) -> None:
    from tokenizers import Tokenizer, normalizers

    one, other = (Tokenizer.from_file(str(folder / "tokenizer.json")) for _ in range(2))
    other.normalizer = normalizers.BertNormalizer(lowercase=False)
    made = [
        TextTokenizer(one, 32, 8),
        TextTokenizer(one, 64, 8),
        TextTokenizer(one, 32, 4),
        TextTokenizer(other, 32, 8),
    ]
    assert len({tokenizer.fingerprint for tokenizer in made}) == 4
    assert TextTokenizer.from_file(folder / "tokenizer.json", 32, 8).fingerprint == made[0].fingerprint
