"""LoRA in the encoder, and as the arrays of files: nothing changes on the way, and what does not fit is refused."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch

import tiny_models
from trunkline.bundle.manifest import LINEARS
from trunkline.bundle.parts import primary_bytes
from trunkline.encoder.bundle_files import Loaded
from trunkline.encoder.encoder import Encoder
from trunkline.encoder.lora import adapter_arrays, lora_from_arrays
from trunkline.errors import MismatchError


@pytest.mark.parametrize(
    ("rank", "alpha", "targets", "layers"),
    [
        (4, 8.0, ("query", "value"), (2, 3)),
        (3, 7.0, LINEARS, (0, 3)),
        (1, 0.3, ("down",), (3,)),
        (0, 8.0, ("up",), (2,)),
    ],
)
def test_the_arrays_of_a_file_survive_the_round_trip_bit_for_bit(
    rank: int, alpha: float, targets: tuple[str, ...], layers: tuple[int, ...], tiny: Loaded
) -> None:
    config = tiny.encoder.config
    adapter = tiny_models.random_adapter(config, layers, rank, alpha=alpha, targets=targets)
    arrays = {name: array.astype(np.float16) for name, array in adapter_arrays(adapter).items()}
    assert {name: array.shape for name, array in arrays.items()} == {
        f"lora.{layer}.{target}.{side}": shape
        for layer in layers
        for target in targets
        for side, shape in (
            ("a", (48 if target == "down" else 32, rank)),
            ("b", (rank, 48 if target == "up" else 32)),
        )
    }
    read = lora_from_arrays(arrays, alpha, config)
    assert read.config == adapter.config
    again = {name: array.astype(np.float16) for name, array in adapter_arrays(read).items()}
    assert again.keys() == arrays.keys()
    assert all(again[name].tobytes() == arrays[name].tobytes() for name in arrays)
    for name, tensor in adapter.state_dict().items():
        assert torch.allclose(read.state_dict()[name], tensor, rtol=2e-3, atol=1e-6)


def test_the_scale_is_folded_in_and_taken_out_again(tiny: Loaded) -> None:
    adapter = tiny_models.random_adapter(tiny.encoder.config, (2, 3), rank=5, alpha=7.0)
    arrays = adapter_arrays(adapter)
    part = adapter.part(3, "value")
    with torch.no_grad():
        update = (part.scale * part.b @ part.a).T.numpy()
    found = arrays["lora.3.value.a"] @ arrays["lora.3.value.b"]
    np.testing.assert_allclose(found, update, rtol=1e-5, atol=1e-6)
    read = lora_from_arrays(arrays, 7.0, tiny.encoder.config)
    states = [tiny_models.states(tiny.encoder, tiny.tokenizer, deltas=lora) for lora in (adapter, read)]
    assert tiny_models.difference(*states) < 1e-5


def test_unequal_ranks_are_filled_with_zeros_and_compute_the_same(tiny: Loaded) -> None:
    small = tiny_models.random_adapter(tiny.encoder.config, (2,), rank=2, targets=("query",), alpha=4.0)
    large = tiny_models.random_adapter(tiny.encoder.config, (3,), rank=5, targets=("up", "value"), alpha=3.0, seed=1)
    both = lora_from_arrays(adapter_arrays(small) | adapter_arrays(large), 9.0, tiny.encoder.config)
    assert (both.config.rank, both.config.targets, both.config.layers) == (5, ("query", "value", "up"), (2, 3))

    def joined(index: int) -> Any:
        return (small if index == 2 else large)(index)

    states = [tiny_models.states(tiny.encoder, tiny.tokenizer, deltas=lora) for lora in (joined, both)]
    assert tiny_models.difference(*states) < 2e-2
    assert tiny_models.difference(states[1], tiny_models.states(tiny.encoder, tiny.tokenizer)) > 1e-1


@pytest.mark.parametrize(
    ("shapes", "message"),
    [
        ({}, "without LoRA tensors"),
        ({"lora.2.query.a": (32, 2)}, "is alone"),
        ({"lora.2.query.a": (32, 2), "lora.2.query.b": (3, 32)}, r"a \(32, 2\) and b \(3, 32\)"),
        ({"lora.2.query.a": (40, 2), "lora.2.query.b": (2, 32)}, r"\[32, rank\] and \[rank, 32\]"),
        ({"lora.2.query.a": (32,), "lora.2.query.b": (2, 32)}, r"a \(32,\)"),
        ({"lora.2.gate.a": (32, 2), "lora.2.gate.b": (2, 32)}, r"lora\.2\.gate\.a.*query, key"),
        ({"lora.02.query.a": (32, 2), "lora.02.query.b": (2, 32)}, r"lora\.02"),
        ({"head.weight": (32, 2)}, r"head\.weight"),
        ({"lora.4.query.a": (32, 2), "lora.4.query.b": (2, 32)}, r"LoRA on layers \[4\]"),
        ({"lora.2.query.a": (32, 33), "lora.2.query.b": (33, 32)}, "LoRA rank 33"),
    ],
)
def test_what_is_no_lora_of_the_encoder_is_refused(
    shapes: dict[str, tuple[int, ...]], message: str, tiny: Loaded
) -> None:
    arrays = {name: np.zeros(shape, np.float16) for name, shape in shapes.items()}
    with pytest.raises(MismatchError, match=message):
        lora_from_arrays(arrays, 8.0, tiny.encoder.config)


def test_values_that_are_not_finite_are_refused(tiny: Loaded) -> None:
    adapter = tiny_models.random_adapter(tiny.encoder.config, (3,))
    arrays = adapter_arrays(adapter)
    arrays["lora.3.query.a"][0, 0] = np.nan
    with pytest.raises(MismatchError, match=r"lora\.3\.query has values that are not finite"):
        lora_from_arrays(arrays, 8.0, tiny.encoder.config)
    part = adapter.part(3, "value")
    with torch.no_grad():
        part.b[0, 0] = float("inf")
    with pytest.raises(MismatchError, match=r"lora\.3\.value\.b"):
        primary_bytes("ner", "0" * 64, 2, adapter_arrays(adapter), 8.0)


def test_each_layer_adds_its_product(tiny: Loaded) -> None:
    adapter = tiny_models.random_adapter(tiny.encoder.config, (2, 3), 4, targets=LINEARS, alpha=6.0)
    adapted = tiny_models.states(tiny.encoder, tiny.tokenizer, deltas=adapter)
    with torch.no_grad():
        for layer in (2, 3):
            for target in LINEARS:
                part = adapter.part(layer, target)
                getattr(tiny.encoder.layers[layer], target).weight += 6.0 / 4 * part.b @ part.a
    merged = tiny_models.states(tiny.encoder, tiny.tokenizer)
    assert tiny_models.difference(adapted, merged) < 1e-4
    assert tiny_models.difference(adapted, tiny_models.states(tiny.encoder, tiny.tokenizer, deltas=adapter)) > 1e-2


@pytest.mark.parametrize("fork", [0, 1])
def test_forked_is_unforked(fork: int, tiny: Loaded) -> None:
    encoder = Encoder(tiny.encoder.config, fork)
    encoder.load_state_dict(tiny.encoder.state_dict())
    adapter = tiny_models.random_adapter(tiny.encoder.config, (1, 2, 3), 4, targets=LINEARS)
    batch = tiny_models.token_batch(tiny.tokenizer, tiny_models.SENTENCES)
    with torch.no_grad():
        whole = encoder(batch, adapter)
        assert torch.equal(whole, encoder.branch(encoder.trunk(batch), batch, adapter))
