"""Masked language modelling: which tokens are chosen, what becomes of them, and that it can be learnt."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

import tiny_models
from trunkline.encoder.batch import TokenBatch
from trunkline.encoder.bundle_files import Loaded
from trunkline.errors import EncoderError
from trunkline.prefinetune.losses.masked_lm import (
    IGNORED,
    MaskedLMObjective,
    mask_token,
    mask_tokens,
    masked_lm_loss,
)

PAD, OPENING, CLOSING, MASK, VOCABULARY = 0, 1, 2, 3, 50
SPECIAL = (PAD, OPENING, CLOSING)


def rows_of(rng: np.random.Generator, rows: int, width: int) -> tuple[Tensor, Tensor]:
    """Random ids, some special, with padding at the ends of rows."""
    ids = torch.from_numpy(rng.integers(0, VOCABULARY, (rows, width)))
    segments = torch.from_numpy(np.where(np.arange(width) < rng.integers(0, width + 1, (rows, 1)), 0, -1))
    return ids.masked_fill(segments < 0, PAD), segments


@settings(max_examples=50, deadline=None)
@given(st.integers(0, 10**6), st.integers(1, 5), st.integers(1, 40), st.floats(0.01, 1.0))
def test_the_stated_share_of_ordinary_tokens_is_chosen_and_nothing_else_is_changed(
    seed: int, rows: int, width: int, share: float
) -> None:
    rng = np.random.default_rng(seed)
    ids, segments = rows_of(rng, rows, width)
    before = ids.clone()
    masked, targets = mask_tokens(ids, segments, SPECIAL, VOCABULARY, MASK, rng, share)
    chosen = targets != IGNORED
    ordinary = (segments >= 0) & (ids > MASK)
    count = int(ordinary.sum())
    assert int(chosen.sum()) == (min(count, max(1, round(share * count))))
    assert not (chosen & ~ordinary).any()
    assert torch.equal(targets[chosen], ids[chosen])
    assert torch.equal(masked[~chosen], ids[~chosen])
    assert not torch.isin(masked[chosen], torch.tensor(SPECIAL)).any()
    assert torch.equal(ids, before)


def test_eighty_ten_ten() -> None:
    ids = torch.full((100, 200), 7)
    masked, targets = mask_tokens(
        ids, torch.zeros_like(ids), SPECIAL, VOCABULARY, MASK, np.random.default_rng(0), share=0.5
    )
    became = masked[targets != IGNORED]
    assert len(became) == 10_000
    shares = [(became == MASK), (became != MASK) & (became != 7), (became == 7)]
    # Three standard deviations of a share of 10,000 are 0.012 and 0.009; a random token is the same in 1 of 46 cases.
    expected = (0.8, 0.1 * 45 / 46, 0.1 + 0.1 / 46)
    for found, wanted in zip(shares, expected, strict=True):
        assert float(found.float().mean()) == pytest.approx(wanted, abs=0.012)
    random_tokens = became[(became != MASK) & (became != 7)]
    assert set(random_tokens.tolist()) == set(range(4, VOCABULARY)) - {7}


def objective(seed: int = 0) -> MaskedLMObjective:
    return MaskedLMObjective(8, 6, VOCABULARY, MASK, SPECIAL, seed)


def test_the_choice_depends_on_seed_step_and_part_alone() -> None:
    ids, segments = rows_of(np.random.default_rng(0), 4, 60)
    first = objective().mask(ids, segments, 3)
    torch.rand(5)
    again = objective().mask(ids, segments, 3)
    assert all(torch.equal(a, b) for a, b in zip(first, again, strict=True))
    for other in (objective(1).mask(ids, segments, 3), objective().mask(ids, segments, 4)):
        assert not torch.equal(first[1], other[1])
    assert not torch.equal(first[1], objective().mask(ids, segments, 3, part=1)[1])


def test_the_loss_equals_its_definition() -> None:
    made = objective().double().requires_grad_(False)
    hidden = torch.randn(3, 5, 8, dtype=torch.float64)
    words = torch.randn(VOCABULARY, 6, dtype=torch.float64)
    made.bias.normal_()
    targets = torch.full((3, 5), IGNORED)
    targets[0, 1], targets[2, 4], targets[2, 0] = 9, 30, 9
    total = 0.0
    for row, column in (targets != IGNORED).nonzero().tolist():
        scores = [float(made.transform(hidden[row, column]) @ words[i] + made.bias[i]) for i in range(VOCABULARY)]
        total -= scores[targets[row, column]] - math.log(sum(math.exp(score) for score in scores))
    assert float(made(hidden, targets, words)) == pytest.approx(total / 3, abs=1e-10)


def test_only_chosen_positions_get_a_gradient_and_only_they_are_transformed() -> None:
    hidden = torch.randn(2, 4, 8, requires_grad=True)
    words = torch.randn(VOCABULARY, 8, requires_grad=True)
    targets = torch.full((2, 4), IGNORED)
    targets[1, 2] = 5
    seen = []
    transform = nn.Identity()
    transform.register_forward_hook(lambda module, given, result: seen.append(tuple(result.shape)))
    masked_lm_loss(hidden, targets, words, transform).backward()
    assert seen == [(1, 8)]
    assert hidden.grad[1, 2].any()
    hidden.grad[1, 2] = 0
    assert not hidden.grad.any()
    assert words.grad.any(-1).all(), "the word embeddings are the output layer"


def test_nothing_to_predict_costs_nothing() -> None:
    ids = torch.tensor([[OPENING, CLOSING, PAD]])
    masked, targets = objective().mask(ids, torch.tensor([[0, 0, -1]]), 0)
    assert torch.equal(masked, ids)
    loss = objective()(torch.randn(1, 3, 8, requires_grad=True), targets, torch.randn(VOCABULARY, 6))
    assert float(loss.detach()) == 0.0
    loss.backward()


def test_states_in_bf16_are_taken() -> None:
    targets = torch.tensor([[5, IGNORED]])
    loss = objective()(torch.randn(1, 2, 8).bfloat16(), targets, torch.randn(VOCABULARY, 6))
    assert torch.isfinite(loss)


def test_a_tokenizer_without_a_mask_is_an_error(tiny: Loaded, monkeypatch: pytest.MonkeyPatch) -> None:
    assert mask_token(tiny.tokenizer) == tiny_models.vocabulary()["[MASK]"]
    monkeypatch.setattr("trunkline.prefinetune.losses.masked_lm._MASK_NAMES", ("<other>",))
    with pytest.raises(EncoderError, match="no mask token"):
        mask_token(tiny.tokenizer)


def test_an_encoder_learns_to_predict_what_is_masked(tiny: Loaded) -> None:
    encoder, config = tiny.encoder.train(), tiny.encoder.config
    tokenizer = tiny.tokenizer
    made = MaskedLMObjective(
        config.hidden_size,
        config.embedding_size,
        config.vocab_size,
        mask_token(tokenizer),
        (tokenizer.opening, tokenizer.closing, config.pad_id),
        seed=0,
    )
    batch = tiny_models.token_batch(tokenizer, [row["text"] for row in tiny_models.ner_rows(8)])
    words = encoder.embeddings.word.weight
    optimizer = torch.optim.AdamW([*encoder.parameters(), *made.parameters()], lr=3e-3)

    def step(number: int) -> tuple[Tensor, Tensor]:
        masked, targets = made.mask(batch.input_ids, batch.segments, number)
        replaced = TokenBatch(masked, batch.positions, batch.segments, batch.unit_tokens, batch.unit_ids, batch.n_units)
        return encoder(replaced), targets

    start = float(made(*step(0), words).detach())
    for number in range(60):
        optimizer.zero_grad()
        made(*step(number), words).backward()
        optimizer.step()
    with torch.no_grad():
        name, hits = made.measure(*step(1000), words)
        assert float(made(*step(1000), words)) < start / 2
    assert name == "masked_accuracy"
    assert float(hits.mean()) > 0.3
