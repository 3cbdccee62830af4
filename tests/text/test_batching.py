"""Packing: nothing is lost, nothing is mixed up."""

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from trunkline.text.tokens import Tokens, by_budget, pack, text_unit, word_units
from trunkline.text.words import split_words

texts_of_windows = st.lists(st.lists(st.integers(2, 40), min_size=1, max_size=3), min_size=1, max_size=8)


def text(sizes, start):
    """A text whose windows have these sizes; ids are unique over all texts."""
    ends = np.cumsum(sizes)
    place = np.setdiff1d(np.arange(ends[-1]), (ends - sizes, ends - 1))
    offsets = np.array([[i, i + 1] for i in range(len(place))]).reshape(-1, 2)
    return Tokens("", offsets, np.arange(start, start + ends[-1]), tuple(sizes), place), start + ends[-1]


def made(shape):
    start, found = 100, []
    for sizes in shape:
        tokens, start = text(sizes, start)
        found.append(tokens)
    return found


@settings(max_examples=80, deadline=None)
@given(texts_of_windows, st.sampled_from([1, 16, 64]))
def test_every_token_is_packed_once_and_segments_are_whole(shape, width):
    tokens = made(shape)
    packed = pack([text_unit(part) for part in tokens], pad_id=0, width=width)
    real = packed.input_ids[packed.segments >= 0]
    expected = np.concatenate([part.ids for part in tokens])
    assert sorted(real.tolist()) == sorted(expected.tolist())
    assert (packed.input_ids[packed.segments < 0] == 0).all()
    windows = {int(window[0]): window for part in tokens for window in part.windows}
    for segment in range(packed.segments.max() + 1):
        ids = packed.input_ids[packed.segments == segment]
        assert (ids == windows[int(ids[0])]).all()
        assert (packed.positions[packed.segments == segment] == np.arange(len(ids))).all()


@settings(max_examples=80, deadline=None)
@given(texts_of_windows)
def test_units_point_to_the_tokens_of_their_own_text(shape):
    tokens = made(shape)
    packed = pack([text_unit(part) for part in tokens], pad_id=0)
    flat = packed.input_ids.reshape(-1)
    for number, part in enumerate(tokens):
        assert sorted(flat[packed.unit_tokens[packed.unit_ids == number]].tolist()) == sorted(part.ids.tolist())


def test_a_token_belongs_to_every_word_that_it_overlaps():
    tokens = Tokens("", np.array([[0, 3], [4, 5], [5, 7]]), np.arange(5), (5,), np.arange(1, 4))
    units = word_units(tokens, ((0, 3), (4, 6), (6, 7)))
    assert list(zip(units.token.tolist(), units.unit.tolist(), strict=True)) == [(1, 0), (2, 1), (3, 1), (3, 2)]


def test_a_word_that_the_tokenizer_drops_gets_the_opening_token():
    tokens = Tokens("", np.array([[0, 3]]), np.arange(3), (3,), np.arange(1, 2))
    units = word_units(tokens, ((0, 3), (4, 5)))
    assert list(zip(units.token.tolist(), units.unit.tolist(), strict=True)) == [(1, 0), (0, 1)]


def test_texts_without_words_or_tokens():
    tokens = Tokens("", np.zeros((0, 2), dtype=np.int64), np.array([1, 2]), (2,), np.zeros(0, dtype=np.int64))
    assert word_units(tokens, ()).n_units == 0
    assert text_unit(tokens).token.tolist() == [0, 1]
    assert pack([], pad_id=0).n_units == 0


def test_packing_leaves_little_padding():
    rng = np.random.default_rng(0)
    tokens = made([[int(size)] for size in rng.integers(5, 60, size=400)])
    packed = pack([text_unit(part) for part in tokens], pad_id=0)
    assert (packed.segments < 0).mean() < 0.05


def test_budget_is_kept_and_every_text_is_in_one_batch():
    tokens = made([[size] for size in (30, 5, 12, 50, 8)])
    units = [text_unit(part) for part in tokens]
    batches = list(by_budget(units, 40))
    assert sorted(index for batch in batches for index in batch) == [0, 1, 2, 3, 4]
    assert all(len(batch) == 1 or sum(units[i].size for i in batch) <= 40 for batch in batches)


def test_words_split_letters_digits_and_symbols():
    text = "Zoë's 7pm, €5.20"
    assert [text[a:b] for a, b in split_words(text)] == ["Zoë", "'", "s", "7", "pm", ",", "€", "5", ".", "20"]
