"""GradCache against the plain loss: same gradients, same value, same random numbers, a fraction of the memory."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

import tiny_models
from trunkline.encoder.bundle_files import Loaded
from trunkline.encoder.encoder import TokenBatch
from trunkline.encoder.lora import LoraAdapter
from trunkline.prefinetune.model import Source, chunk_slices, embed_chunks
from trunkline.prefinetune.objectives import ConceptTargets, PairTargets, TextPairObjective, TokenConceptObjective
from trunkline.text.examples import PairExample
from trunkline.text.tokens import UnitText, pack, text_unit

WIDTH = 6
SIZES = st.lists(st.integers(0, 5), min_size=1, max_size=6).filter(lambda sizes: sum(sizes) > 0)

# Greatest difference of a gradient, relative to the largest entry of the parameter's gradient. Both sides add the same
# numbers in another order, so what remains is rounding.
TOLERANCE = {torch.float64: 1e-12, torch.float32: 1e-5}

Encode = Callable[[Any], Tensor]
Loss = Callable[[Tensor], Tensor]


def dropping_encoder(dtype: torch.dtype) -> nn.Module:
    layers = nn.Linear(4, 8), nn.Dropout(0.4), nn.Tanh(), nn.Linear(8, WIDTH), nn.Dropout(0.2)
    return nn.Sequential(*layers).to(dtype)


def pair_loss(units: int, rng: np.random.Generator) -> tuple[nn.Module, PairTargets]:
    objective = TextPairObjective(0.1)
    kept = np.flatnonzero(rng.random(units // 2) < 0.8)
    return objective, PairTargets(torch.tensor(kept), torch.tensor(rng.integers(0, 4, len(kept))))


def concept_loss(units: int, rng: np.random.Generator) -> tuple[nn.Module, ConceptTargets]:
    source = Source("s", [], [], {f"L{i}": f"concept {i}" for i in range(7)})
    table = torch.from_numpy(rng.normal(size=(7, WIDTH)).astype(np.float32))
    objective = TokenConceptObjective([source], lambda texts: table, 0, 0)
    chosen = torch.tensor(rng.permutation(7)[:5])
    positive = torch.from_numpy(rng.random((units, 5)) < 0.3)
    return objective, ConceptTargets(chosen, positive, positive | torch.from_numpy(rng.random((units, 5)) < 0.5))


def by_chunks(chunks: Sequence[Any], encode: Encode, loss: Loss, factor: float) -> float:
    value = loss(embed_chunks(chunks, encode))
    (value * factor).backward()
    return float(value.detach())


def at_once(chunks: Sequence[Any], encode: Encode, loss: Loss, factor: float) -> float:
    value = loss(torch.cat([encode(chunk) for chunk in chunks]))
    (value * factor).backward()
    return float(value.detach())


def gradients(step: Callable[..., float], seed: int, modules: nn.Module, *arguments: Any) -> tuple[float, list[Tensor]]:
    """The value of a step from a random state, and the gradient of every parameter (and what is drawn next)."""
    modules.zero_grad(set_to_none=True)
    torch.manual_seed(seed)
    value = step(*arguments)
    found = [torch.zeros_like(p) if p.grad is None else p.grad.clone() for p in modules.parameters()]
    return value, [*found, torch.rand(3)]


def assert_close(found: Sequence[Tensor], expected: Sequence[Tensor], tolerance: float) -> None:
    assert any(bool(part.any()) for part in expected[:-1])
    for ours, theirs in zip(found, expected, strict=True):
        assert float((ours - theirs).abs().max()) <= tolerance * max(1.0, float(theirs.abs().max()))


@pytest.mark.parametrize("dtype", TOLERANCE)
@pytest.mark.parametrize("kind", [pair_loss, concept_loss])
@settings(max_examples=25, deadline=None)
@given(sizes=SIZES, seed=st.integers(0, 10**6), factor=st.sampled_from([1.0, 0.25, 3.0]))
def test_gradients_and_value_are_those_of_the_plain_loss(
    kind: Callable[..., Any], dtype: torch.dtype, sizes: list[int], seed: int, factor: float
) -> None:
    rng = np.random.default_rng(seed)
    if sum(sizes) % 2:
        sizes = [*sizes, 1]
    torch.manual_seed(seed)
    encoder = dropping_encoder(dtype)
    objective, targets = kind(sum(sizes), rng)
    modules = nn.ModuleList([encoder, objective.to(dtype)])
    chunks = [torch.from_numpy(rng.normal(size=(size, 4))).to(dtype) for size in sizes]
    arguments = chunks, encoder, lambda features: objective(features, targets), factor
    if isinstance(targets, PairTargets) and not len(targets.kept):
        return
    value, expected = gradients(at_once, seed, modules, *arguments)
    again, found = gradients(by_chunks, seed, modules, *arguments)
    assert again == pytest.approx(value, rel=TOLERANCE[dtype])
    for ours, theirs in zip(found, expected, strict=True):
        assert float((ours - theirs).abs().max()) <= TOLERANCE[dtype] * max(1.0, float(theirs.abs().max()))


def test_every_parameter_of_encoder_and_loss_is_reached() -> None:
    rng = np.random.default_rng(0)
    chunks = [torch.randn(size, 4) for size in (4, 2, 6)]
    for kind in (pair_loss, concept_loss):
        encoder = dropping_encoder(torch.float32)
        objective, targets = kind(12, rng)
        by_chunks(chunks, encoder, lambda f, o=objective, t=targets: o(f, t), 1.0)
        for name, parameter in nn.ModuleList([encoder, objective]).named_parameters():
            assert parameter.grad is not None and bool(parameter.grad.any()), (kind, name)


def test_gradients_are_added_to_those_that_are_there() -> None:
    encoder, scale = dropping_encoder(torch.float64), nn.Parameter(torch.tensor(2.0, dtype=torch.float64))
    modules = nn.ModuleList([encoder, nn.ParameterList([scale])])
    chunks = [torch.randn(3, 4, dtype=torch.float64) for _ in range(3)]
    arguments = chunks, encoder.eval(), lambda features: (scale * features).square().sum(), 1.0
    _, once = gradients(by_chunks, 0, modules, *arguments)
    _, twice = gradients(lambda *given: by_chunks(*given) + by_chunks(*given), 0, modules, *arguments)
    assert_close(twice[:-1], [2 * part for part in once[:-1]], 1e-12)


def test_a_loss_that_leaves_out_the_embeddings_still_trains_its_parameter() -> None:
    encoder, scale = dropping_encoder(torch.float32), nn.Parameter(torch.tensor(2.0))
    found = by_chunks([torch.randn(2, 4)] * 2, encoder, lambda features: scale**2, 0.5)
    assert found == pytest.approx(4.0)
    assert float(scale.grad) == pytest.approx(2.0)
    assert all(p.grad is None for p in encoder.parameters())


def test_the_encoder_runs_twice_a_chunk_and_the_loss_once() -> None:
    encoder, calls = dropping_encoder(torch.float32), {"encode": 0, "loss": 0}

    def encode(chunk: Tensor) -> Tensor:
        calls["encode"] += 1
        return encoder(chunk)

    def loss(features: Tensor) -> Tensor:
        calls["loss"] += 1
        return features.square().mean()

    by_chunks([torch.randn(2, 4)] * 5, encode, loss, 1.0)
    assert calls == {"encode": 10, "loss": 1}


def test_under_autocast_weights_get_the_gradient_of_the_plain_loss() -> None:
    encoder = dropping_encoder(torch.float32)
    chunks = [torch.randn(4, 4) for _ in range(3)]

    def encode(chunk: Tensor) -> Tensor:
        with torch.autocast("cpu", dtype=torch.bfloat16):
            return encoder(chunk).float()

    arguments = chunks, encode, lambda features: features.square().sum(), 1.0
    _, expected = gradients(at_once, 0, encoder, *arguments)
    _, found = gradients(by_chunks, 0, encoder, *arguments)
    # Products in bf16 have 8 significant bits.
    assert_close(found, expected, 2**-8)


def bytes_at_peak(step: Callable[..., float], n_chunks: int, trace: Path) -> int:
    """Bytes that torch holds at once during a step, over those before it."""
    encoder = nn.Sequential(*(part for _ in range(8) for part in (nn.Linear(16, 16), nn.Tanh(), nn.Dropout(0.1))))
    for parameter in encoder.parameters():
        parameter.grad = torch.zeros_like(parameter)
    chunks = [torch.randn(512, 16) for _ in range(n_chunks)]
    with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CPU], profile_memory=True) as profile:
        step(chunks, encoder, lambda features: features.square().mean(), 1.0)
    profile.export_chrome_trace(str(trace))
    rows = [row["args"] for row in json.loads(trace.read_text())["traceEvents"] if row["name"] == "[memory]"]
    held = [row["Total Allocated"] for row in rows]
    return int(max(held) - held[0] + rows[0]["Bytes"])


def test_the_graph_of_one_chunk_is_in_memory_at_a_time(tmp_path: Path) -> None:
    one, many = (bytes_at_peak(at_once, count, tmp_path / "trace.json") for count in (1, 16))
    assert many >= 12 * one
    # Embeddings and their gradients are those of all chunks.
    assert bytes_at_peak(by_chunks, 16, tmp_path / "trace.json") <= many / 3


@given(st.lists(st.integers(1, 50), max_size=30), st.integers(1, 60))
def test_chunks_cover_all_texts_in_order_within_the_budget(sizes: list[int], budget: int) -> None:
    slices = chunk_slices(sizes, budget)
    assert [size for part in slices for size in sizes[part]] == sizes
    for number, part in enumerate(slices):
        assert sum(sizes[part]) <= budget or len(sizes[part]) == 1
        if number:
            assert sum(sizes[slices[number - 1]]) + sizes[part.start] > budget, "chunks are as few as can be"


def chunked_encoder(tiny: Loaded, texts: Sequence[UnitText], adapter: LoraAdapter) -> tuple[list[TokenBatch], Encode]:
    slices = chunk_slices([text.size for text in texts], 80)
    chunks = [TokenBatch.from_packed(pack(texts[part], tiny.encoder.config.pad_id, 48)) for part in slices]
    return chunks, lambda batch: batch.pool(tiny.encoder(batch, adapter))


def test_a_packed_encoder_with_an_adapter_gets_the_gradients_of_the_whole_batch(tiny: Loaded) -> None:
    rows = {row["left"]: row["right"] for row in tiny_models.pair_rows(30)}
    pairs = [PairExample(left, right) for left, right in rows.items()]
    texts = [text_unit(t) for t in tiny.tokenizer.encode([x for pair in pairs for x in (pair.left, pair.right)])]
    adapter = tiny_models.random_adapter(tiny.encoder.config, [2, 3])
    objective = TextPairObjective(0.1)
    targets = objective.targets([(0, pair) for pair in pairs], 0)
    assert len(targets.kept) > 10
    chunks, encode = chunked_encoder(tiny, texts, adapter)
    assert len(chunks) > 4
    modules = nn.ModuleList([tiny.encoder, adapter, objective]).train()

    def loss(features: Tensor) -> Tensor:
        return objective(features, targets)

    whole = [TokenBatch.from_packed(pack(texts, tiny.encoder.config.pad_id))]
    _, expected = gradients(at_once, 0, modules, whole, encode, loss, 0.5)
    _, found = gradients(by_chunks, 0, modules, chunks, encode, loss, 0.5)
    assert_close(found, expected, 1e-5)
    tiny.encoder.dropout = 0.2
    _, dropped = gradients(at_once, 1, modules, chunks, encode, loss, 0.5)
    _, found = gradients(by_chunks, 1, modules, chunks, encode, loss, 0.5)
    assert_close(found, dropped, 1e-6)
    assert not torch.allclose(dropped[0], expected[0], atol=1e-4), "dropout is at work"
