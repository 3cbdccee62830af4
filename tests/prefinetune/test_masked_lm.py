"""Masked language modelling: which tokens are chosen, what becomes of them, and that it can be learnt."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

import tiny_models
from trunkline.encoder.bundle_files import Loaded
from trunkline.errors import EncoderError
from trunkline.prefinetune import masked_text as text
from trunkline.prefinetune.masked_text import MaskedTextObjective
from trunkline.text.tokens import IntArray


@pytest.fixture
def made(tiny: Loaded) -> MaskedTextObjective:
    return MaskedTextObjective(tiny.encoder, tiny.tokenizer, 0)


@settings(max_examples=50, deadline=None)
@given(st.integers(0, 10**6), st.integers(0, 200), st.floats(0.01, 1.0))
def test_the_stated_share_of_ordinary_tokens_is_chosen_and_nothing_else_is_changed(
    tiny_objective: MaskedTextObjective, seed: int, count: int, share: float
) -> None:
    ids = np.random.default_rng(seed).integers(0, len(tiny_models.vocabulary()), count)
    before = ids.copy()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(text, "SHARE", share)
        masked, chosen = tiny_objective.mask(ids, seed)
    ordinary = np.flatnonzero(~np.isin(ids, tiny_objective.special))
    assert len(chosen) == min(len(ordinary), max(1, round(share * len(ordinary))))
    assert set(chosen.tolist()) <= set(ordinary.tolist()) and (np.diff(chosen) > 0).all()
    rest = np.setdiff1d(np.arange(count), chosen)
    assert (masked[rest] == ids[rest]).all() and (ids == before).all()
    others = np.setdiff1d(tiny_objective.special, [tiny_objective.mask_id])
    assert not np.isin(masked[chosen], others).any()


@pytest.fixture(scope="module")
def tiny_objective(_tiny: Loaded) -> MaskedTextObjective:
    return MaskedTextObjective(_tiny.encoder, _tiny.tokenizer, 0)


def test_eighty_ten_ten(made: MaskedTextObjective, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(text, "SHARE", 0.5)
    masked, chosen = made.mask(np.full(20_000, 7), 0)
    became = masked[chosen]
    assert len(became) == 10_000
    n = len(made.ordinary)
    # Three standard deviations of a share of 10,000 are 0.012 and 0.009; a random token is the same in 1 of n cases.
    assert (became == made.mask_id).mean() == pytest.approx(0.8, abs=0.012)
    assert (became == 7).mean() == pytest.approx(0.1 + 0.1 / n, abs=0.012)
    random_tokens = set(became[(became != made.mask_id) & (became != 7)].tolist())
    assert random_tokens <= set(made.ordinary.tolist()) and len(random_tokens) > 0.8 * n


def test_the_choice_depends_on_seed_and_step_alone(tiny: Loaded, made: MaskedTextObjective) -> None:
    ids = np.random.default_rng(0).integers(10, 200, 300)

    def chosen(objective: MaskedTextObjective, step: int) -> IntArray:
        return np.concatenate(objective.mask(ids, step))

    first = chosen(made, 3)
    torch.rand(5)
    assert (chosen(made, 3) == first).all()
    for other in (chosen(made, 4), chosen(MaskedTextObjective(tiny.encoder, tiny.tokenizer, 1), 3)):
        assert other.tolist() != first.tolist()


def test_the_loss_equals_its_definition(tiny: Loaded) -> None:
    encoder = tiny.encoder.double()
    made = MaskedTextObjective(encoder, tiny.tokenizer, 0).double().requires_grad_(False)
    words = encoder.embeddings.word.weight.detach()
    states = torch.randn(3, made.transform[0].in_features, dtype=torch.float64)
    made.bias.normal_()
    targets, total = torch.tensor([9, 30, 9]), 0.0
    for state, target in zip(states, targets.tolist(), strict=True):
        scores = [float(made.transform(state) @ word + bias) for word, bias in zip(words, made.bias, strict=True)]
        total -= scores[target] - math.log(sum(math.exp(score) for score in scores))
    assert float(made(states, targets).detach()) == pytest.approx(total / 3, abs=1e-10)


def test_the_word_embeddings_are_the_output_layer_and_nothing_to_predict_costs_nothing(
    tiny: Loaded, made: MaskedTextObjective
) -> None:
    words = tiny.encoder.embeddings.word.weight
    made(torch.randn(2, 32), torch.tensor([5, 6])).backward()
    assert words.grad.any(-1).all() and not any(parameter is words for parameter in made.parameters())
    masked, chosen = made.mask(np.asarray([tiny.tokenizer.opening, tiny.tokenizer.closing]), 0)
    assert masked.tolist() == [tiny.tokenizer.opening, tiny.tokenizer.closing] and not len(chosen)
    assert float(made(torch.randn(0, 32), torch.zeros(0, dtype=torch.long)).detach()) == 0.0


def test_a_tokenizer_without_a_mask_is_an_error(tiny: Loaded, monkeypatch: pytest.MonkeyPatch) -> None:
    assert MaskedTextObjective(tiny.encoder, tiny.tokenizer, 0).mask_id == tiny_models.vocabulary()["[MASK]"]
    monkeypatch.setattr(text, "MASK_NAMES", ("<other>",))
    with pytest.raises(EncoderError, match="no mask token"):
        MaskedTextObjective(tiny.encoder, tiny.tokenizer, 0)
