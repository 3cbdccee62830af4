"""Texts as the graphs read them: pooling equals the mean over tokens, batches lose no row, odd characters count."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from trunkline.bundle.manifest import EncoderFacts
from trunkline.encoder.bundle_files import Loaded
from trunkline.engine.base import open_tokenizer
from trunkline.engine.onnx import Pooling, Row, batches, padded, pool_of, rows_of
from trunkline.errors import EncoderError, MismatchError
from trunkline.tasks.qa import Qa
from trunkline.text.tokens import UnitText, text_unit, word_units
from trunkline.text.words import split_words

FACTS = EncoderFacts("bert", 32, 48, 4, 4, 2, 64, 31, 1, "gelu", 10_000)


@pytest.fixture
def file(tiny: Loaded, tmp_path: Path) -> Path:
    tiny.tokenizer.tokenizer.save(str(tmp_path / "tokenizer.json"))
    return tmp_path / "tokenizer.json"


def naive(units: UnitText, states: np.ndarray) -> np.ndarray:
    """The mean of each unit's tokens, one by one."""
    return np.stack([states[units.token[units.unit == unit]].mean(axis=0) for unit in range(units.n_units)])


def pooled(units: UnitText, states: np.ndarray) -> np.ndarray:
    pooling, rows = Pooling(units), rows_of(0, units)
    found = np.zeros((pooling.n_rows, states.shape[1]), np.float32)
    begins = np.cumsum([0, *units.sizes])
    for row in rows:
        pool = pool_of([(pooling, row.window)], len(row.ids))[0]
        rows = pooling.rows[row.window]
        found[rows] += (pool @ states[begins[row.window] : begins[row.window + 1]])[: len(rows)]
    return found if pooling.row_of is None else found[pooling.row_of]


@pytest.mark.parametrize("kind", ["words", "text", "question"])
@pytest.mark.parametrize(
    "text",
    [
        "what\nann works at acme in berlin",
        "where is it\n" + "the unhappy reader reads 42 books\x00, ann! " * 20,
        "a\n" + "\x01" * 300,
        "x" * 90 + "\n" + "7a" * 200,
        "?\n",
    ],
)
def test_units_are_the_mean_of_their_tokens(kind: str, text: str, tiny: Loaded) -> None:
    tokens, words = tiny.tokenizer.encode([text])[0], split_words(text)
    units = {
        "words": lambda: word_units(tokens, words),
        "text": lambda: text_unit(tokens),
        "question": lambda: Qa().units(tokens, words),
    }[kind]()
    states = np.random.default_rng(0).normal(size=(units.size, 5)).astype(np.float32)
    assert pooled(units, states) == pytest.approx(naive(units, states), abs=1e-5)
    assert np.concatenate([row.ids for row in rows_of(0, units)]).tolist() == units.ids.tolist()


def test_symbols_that_the_tokenizer_drops_are_computed_once(tiny: Loaded) -> None:
    text = "\ufffd" * 5000 + " ann"
    units = word_units(tiny.tokenizer.encode([text])[0], split_words(text))
    pooling = Pooling(units)
    assert (units.n_units, pooling.n_rows) == (5001, 2)


@settings(max_examples=60, deadline=None)
@given(st.lists(st.integers(2, 70), max_size=40), st.integers(1, 400))
def test_batches_hold_every_row_once_with_little_padding(lengths: list[int], budget: int) -> None:
    rows = [Row(number, 0, np.full(length, 7)) for number, length in enumerate(lengths)]
    found = list(batches(rows, budget))
    assert sorted(row.text for batch in found for row in batch) == list(range(len(rows)))
    for batch in found:
        sizes = [len(row.ids) for row in batch]
        assert len(batch) == 1 or max(sizes) * len(batch) <= budget
        assert max(sizes) <= min(sizes) * 1.125 + 2
        ids, mask = padded(batch, 1)
        assert [row.tolist() for row in mask] == [[1] * n + [0] * (max(sizes) - n) for n in sizes]
        assert ((ids == 7) == (mask == 1)).all()


@pytest.mark.parametrize("threads", [1, 2])
def test_texts_are_read_as_by_the_training_bundle(threads: int, file: Path, tiny: Loaded) -> None:
    texts = ["ann works at acme", "", "\x00", "berlin and ann " * 40, "e\u0301\u200b北京"]
    found = open_tokenizer(file, FACTS, threads).encode(texts)
    for text, read, tokens in zip(texts, found, tiny.tokenizer.encode(texts), strict=True):
        assert (read.text, read.words) == (text, split_words(text))
        assert read.sizes == tokens.sizes
        for name in ("offsets", "ids", "place"):
            assert np.array_equal(getattr(read, name), getattr(tokens, name))


def test_half_a_surrogate_pair_is_a_character_and_keeps_offsets(file: Path) -> None:
    read = open_tokenizer(file, FACTS).encode(["ann \ud800 bob"])[0]
    assert [read.text[a:b] for a, b in read.words] == ["ann", "\ud800", "bob"]
    assert read.offsets[-1].tolist() == [6, 9]


@pytest.mark.parametrize("content", [b"", b"{}", b"[1", b"\xff\xfe", b'{"model": {"type": "WordPiece"}}'])
def test_a_damaged_tokenizer_is_named(content: bytes, file: Path) -> None:
    file.write_bytes(content)
    with pytest.raises(EncoderError, match=r"tokenizer\.json: no usable tokenizer"):
        open_tokenizer(file, FACTS)


def test_a_tokenizer_that_panics_is_an_error_like_others(file: Path) -> None:
    raw = json.loads(file.read_text())
    raw["post_processor"]["special_tokens"].pop("[CLS]")
    file.write_text(json.dumps(raw))
    with pytest.raises(EncoderError, match=r"tokenizer\.json: no usable tokenizer"):
        open_tokenizer(file, FACTS).encode(["ann"])


def test_a_tokenizer_of_another_encoder_is_refused(file: Path) -> None:
    import dataclasses

    with pytest.raises(MismatchError, match="at most 100, the encoder's vocabulary"):
        open_tokenizer(file, dataclasses.replace(FACTS, vocabulary_size=100))
