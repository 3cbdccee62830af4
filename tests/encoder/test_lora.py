"""Ranks that grow with depth: the budget of equal ranks, the same promises, and equal ranks as they were written."""

from __future__ import annotations

import hashlib
import itertools

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

import tiny_models
from trunkline.config import AdapterSection
from trunkline.encoder.adapter_file import lora_hash
from trunkline.encoder.architectures import LINEARS
from trunkline.encoder.bundle_files import Loaded
from trunkline.encoder.encoder import Encoder
from trunkline.encoder.lora import LoraAdapter, LoraBank, LoraConfig, growing_ranks, lora_config
from trunkline.errors import MismatchError

SENTENCES = tiny_models.SENTENCES
GROWTHS = st.one_of(st.floats(1, 8), st.floats(1, 1e308), st.just(1.0))


@given(rank=st.integers(1, 512), growth=GROWTHS, layers=st.integers(1, 24))
def test_growing_ranks_keep_the_budget_and_never_fall(rank: int, growth: float, layers: int) -> None:
    ranks = growing_ranks(rank, growth, layers)
    assert len(ranks) == layers
    assert sum(ranks) == rank * layers
    assert all(low <= high for low, high in itertools.pairwise((1, *ranks)))


@given(rank=st.integers(0, 512), layers=st.integers(0, 24))
def test_a_growth_of_one_is_one_rank_for_all_layers(rank: int, layers: int) -> None:
    assert growing_ranks(rank, 1.0, layers) == (rank,) * layers
    section = AdapterSection(rank=rank, alpha=3.0)
    assert section == AdapterSection(rank=rank, alpha=3.0, rank_growth=1.0)
    config = LoraConfig(rank, 3.0, ("query",), tuple(range(layers)), growing_ranks(rank, 1.0, layers))
    assert config == LoraConfig(rank, 3.0, ("query",), tuple(range(layers)))


@given(rank=st.integers(8, 256), growth=st.floats(1, 2), layers=st.integers(2, 4))
def test_ranks_are_within_one_of_their_share_of_the_budget(rank: int, growth: float, layers: int) -> None:
    weights = [growth**number for number in range(layers)]
    shares = [rank * layers * weight / sum(weights) for weight in weights]
    if min(shares) >= 1:
        found = growing_ranks(rank, growth, layers)
        assert all(abs(whole - share) < 1 + 1e-9 for whole, share in zip(found, shares, strict=True))


@pytest.mark.parametrize(
    ("rank", "growth", "layers", "expected"),
    [
        (16, 2.0, 3, (7, 14, 27)),  # shares 6.86, 13.71, 27.43
        (4, 2.0, 4, (1, 2, 4, 9)),  # shares 1.07, 2.13, 4.27, 8.53
        (2, 3.0, 4, (1, 1, 1, 5)),  # the two lowest have 1, and of the 6 that are left the third would have 1.5
        (5, 1e308, 3, (1, 1, 13)),
        (1, 4.0, 3, (1, 1, 1)),
        (16, 2.0, 1, (16,)),
        (0, 2.0, 3, (0, 0, 0)),
    ],
)
def test_ranks_of_a_few_cases(rank: int, growth: float, layers: int, expected: tuple[int, ...]) -> None:
    assert growing_ranks(rank, growth, layers) == expected


@pytest.mark.parametrize("growth", [1.0, 2.0, 3.5])
def test_an_adapter_has_as_many_parameters_with_any_growth(growth: float, tiny: Loaded) -> None:
    config = tiny.encoder.config
    section = AdapterSection(rank=6, targets=LINEARS, rank_growth=growth)
    equal = LoraAdapter(lora_config(AdapterSection(rank=6, targets=LINEARS), config, 1), config)
    grown = LoraAdapter(lora_config(section, config, 1), config)
    assert sum(p.numel() for p in grown.parameters()) == sum(p.numel() for p in equal.parameters())
    ranks = {layer: {part.a.shape[0] for part in map_parts(grown, layer)} for layer in grown.config.layers}
    assert ranks == {layer: {grown.config.rank_of(layer)} for layer in (1, 2, 3)}


def map_parts(adapter: LoraAdapter, layer: int) -> list:
    return [adapter.part(layer, target) for target in adapter.config.targets]


def grown_adapter(tiny: Loaded, layers: tuple[int, ...] = (2, 3), seed: int = 0) -> LoraAdapter:
    """An adapter with a B that is not zero and ranks 2, 6 (and 9)."""
    pattern = (2, 6, 9)[: len(layers)]
    return tiny_models.random_adapter(
        tiny.encoder.config, layers, 4, seed, targets=LINEARS, alpha=6.0, rank_pattern=pattern
    )


def test_a_new_adapter_with_growing_ranks_is_the_base_exactly(tiny: Loaded) -> None:
    section = AdapterSection(rank=8, targets=LINEARS, rank_growth=2.0)
    adapter = LoraAdapter(lora_config(section, tiny.encoder.config, tiny.encoder.fork), tiny.encoder.config)
    assert adapter.config.rank_pattern == (5, 11)
    base = tiny_models.states(tiny.encoder, tiny.tokenizer)
    adapted = tiny_models.states(tiny.encoder, tiny.tokenizer, deltas=adapter)
    assert all(torch.equal(x, y) for x, y in zip(base, adapted, strict=True))


def test_each_layer_adds_its_product_over_its_own_rank(tiny: Loaded) -> None:
    adapter = grown_adapter(tiny)
    adapted = tiny_models.states(tiny.encoder, tiny.tokenizer, deltas=adapter)
    with torch.no_grad():
        for layer, rank in ((2, 2), (3, 6)):
            for target in LINEARS:
                part = adapter.part(layer, target)
                assert part is not None
                getattr(tiny.encoder.layers[layer], target).weight += 6.0 / rank * part.b @ part.a
    merged = tiny_models.states(tiny.encoder, tiny.tokenizer)
    assert tiny_models.difference(adapted, merged) < 1e-4
    assert tiny_models.difference(adapted, tiny_models.states(tiny.encoder, tiny.tokenizer, deltas=adapter)) > 1e-2


@pytest.mark.parametrize("fork", [0, 1])
def test_forked_is_unforked_with_growing_ranks(fork: int, tiny: Loaded) -> None:
    encoder = Encoder(tiny.encoder.config, fork)
    encoder.load_state_dict(tiny.encoder.state_dict())
    adapter = grown_adapter(tiny, (1, 2, 3))
    batch = tiny_models.token_batch(tiny.tokenizer, SENTENCES)
    with torch.no_grad():
        whole = encoder(batch, adapter)
        assert torch.equal(whole, encoder.branch(encoder.trunk(batch), batch, adapter))


def test_a_bank_of_different_ranks_by_layer_gives_each_row_its_own_adapter(tiny: Loaded) -> None:
    adapters = [grown_adapter(tiny, seed=1), tiny_models.random_adapter(tiny.encoder.config, (2, 3), 4, 2), None]
    choice = [1, 0, 2, 0, 1]
    bank = LoraBank(adapters, torch.tensor(choice))
    mixed = tiny_models.states(tiny.encoder, tiny.tokenizer, deltas=bank, width=0)
    alone = [
        tiny_models.states(tiny.encoder, tiny.tokenizer, [text], adapters[number])[0]
        for text, number in zip(SENTENCES, choice, strict=True)
    ]
    assert tiny_models.difference(mixed, alone) < 1e-5


def test_the_hash_of_an_adapter_of_one_rank_knows_nothing_of_patterns(tiny: Loaded) -> None:
    adapter = tiny_models.random_adapter(tiny.encoder.config, (2, 3), rank_pattern=(4, 4))
    assert adapter.config.rank_pattern == ()
    text = "LoraConfig(rank=4, alpha=8.0, targets=('query', 'value'), layers=(2, 3))"
    digest = hashlib.sha256(text.encode())
    for name, tensor in sorted(adapter.state_dict().items()):
        digest.update(name.encode())
        digest.update(tensor.numpy().tobytes())
    assert lora_hash(adapter) == digest.hexdigest()
    assert "rank_pattern=(2, 6)" in repr(grown_adapter(tiny).config)


@pytest.mark.parametrize(
    ("config", "message"),
    [
        (LoraConfig(8, 1.0, ("query",), (2, 3), (4, 33)), "rank 33 in layer 3.*1 to the width 32.*rank_growth"),
        (LoraConfig(8, 1.0, ("query",), (2, 3), (0, 16)), "rank 0 in layer 2.*1 to the width 32"),
        (LoraConfig(8, 1.0, ("query",), (2, 3), (4, 5, 6)), "3 LoRA ranks.*each of the 2 layers"),
        (LoraConfig(8, 1.0, ("query",), (2, 3), (4,)), "1 LoRA ranks.*each of the 2 layers"),
    ],
)
def test_ranks_that_do_not_fit_are_refused(config: LoraConfig, message: str, tiny: Loaded) -> None:
    with pytest.raises(MismatchError, match=message):
        config.check(tiny.encoder.config, tiny.encoder.fork)


def test_a_growth_that_takes_a_layer_above_the_width_is_refused(tiny: Loaded) -> None:
    section = AdapterSection(rank=20, rank_growth=8.0)
    with pytest.raises(MismatchError, match=r"rank 36 in layer 3.*width 32.*rank_growth"):
        lora_config(section, tiny.encoder.config, tiny.encoder.fork)
