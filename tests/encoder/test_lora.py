"""LoRA whose rank differs from layer to layer, as PEFT's `rank_pattern` has it."""

from __future__ import annotations

import pytest
import torch

import tiny_models
from trunkline.encoder.architectures import LINEARS
from trunkline.encoder.bundle_files import Loaded
from trunkline.encoder.encoder import Encoder
from trunkline.encoder.lora import LoraAdapter, LoraConfig
from trunkline.errors import MismatchError

SENTENCES = tiny_models.SENTENCES


def patterned(tiny: Loaded, layers: tuple[int, ...] = (2, 3), seed: int = 0) -> LoraAdapter:
    """An adapter with a B that is not zero and ranks 2, 6 (and 9)."""
    pattern = (2, 6, 9)[: len(layers)]
    return tiny_models.random_adapter(
        tiny.encoder.config, layers, 4, seed, targets=LINEARS, alpha=6.0, rank_pattern=pattern
    )


def test_each_layer_adds_its_product_over_its_own_rank(tiny: Loaded) -> None:
    adapter = patterned(tiny)
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
def test_forked_is_unforked_with_ranks_by_layer(fork: int, tiny: Loaded) -> None:
    encoder = Encoder(tiny.encoder.config, fork)
    encoder.load_state_dict(tiny.encoder.state_dict())
    adapter = patterned(tiny, (1, 2, 3))
    batch = tiny_models.token_batch(tiny.tokenizer, SENTENCES)
    with torch.no_grad():
        whole = encoder(batch, adapter)
        assert torch.equal(whole, encoder.branch(encoder.trunk(batch), batch, adapter))


def test_equal_ranks_have_one_spelling(tiny: Loaded) -> None:
    adapter = tiny_models.random_adapter(tiny.encoder.config, (2, 3), rank_pattern=(4, 4))
    assert adapter.config == LoraConfig(4, 8.0, ("query", "value"), (2, 3))
    assert patterned(tiny).config.rank_pattern == (2, 6)


@pytest.mark.parametrize(
    ("config", "message"),
    [
        (LoraConfig(8, 1.0, ("query",), (2, 3), (4, 33)), "rank 33 in layer 3.*1 to the width 32"),
        (LoraConfig(8, 1.0, ("query",), (2, 3), (0, 16)), "rank 0 in layer 2.*1 to the width 32"),
        (LoraConfig(8, 1.0, ("query",), (2, 3), (4, 5, 6)), "3 LoRA ranks.*each of the 2 layers"),
        (LoraConfig(8, 1.0, ("query",), (2, 3), (4,)), "1 LoRA ranks.*each of the 2 layers"),
    ],
)
def test_ranks_that_do_not_fit_are_refused(config: LoraConfig, message: str, tiny: Loaded) -> None:
    with pytest.raises(MismatchError, match=message):
        config.check(tiny.encoder.config, tiny.encoder.fork)
