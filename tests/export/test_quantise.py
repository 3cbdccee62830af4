"""8-bit and 4-bit weights: what rounding keeps, that graphs compute what it says, and what is refused."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest

import onnx_graphs as graphs
import tiny_models
from trunkline.encoder.architectures import EncoderConfig
from trunkline.encoder.bundle_files import Loaded, load_any
from trunkline.engine.onnx import open_session
from trunkline.engine.rounding import linear_layers, round_int8, round_linear, round_table, smoothing
from trunkline.errors import TrunklineError
from trunkline.export.graph import EncoderGraph, branch_graph, trunk_graph
from trunkline.export.weights import (
    PLANS,
    BackboneWeights,
    Calibration,
    Plan,
    calibrate,
    int4_linear,
    int4_table,
    quantised,
    take_weights,
)

TEXTS = tiny_models.SENTENCES
Array = graphs.Array


def random_matrix(inputs: int, outputs: int, seed: int = 0) -> Array:
    return np.random.default_rng(seed).normal(size=(inputs, outputs)).astype(np.float32)


def round_int4(weight: Array, block: int, moments: Array | None = None) -> tuple[Any, Any, Any]:
    """Numbers, steps and scale of a linear weight in 4 bits."""
    found = int4_linear("y", weight, block, moments)
    numbers = np.concatenate([found["y.weight"] & 15, found["y.weight"] >> 4]).astype(np.int8) - 8
    return numbers, found["y.steps"][:, 0], found["y.scale"]


def round_table_int4(table: Array, block: int) -> tuple[Any, Any, Any]:
    """The same of an embedding."""
    found = int4_table("y", table, block)
    numbers = np.concatenate([found["y.weight"] & 15, found["y.weight"] >> 4], axis=1).astype(np.int8) - 8
    return numbers, found["y.steps"][:, :, 0], found["y.scale"][:, 0, 0]


def int8_of(numbers: Any, steps: Any, scale: Any) -> tuple[Any, Array]:
    """A weight in 4 bits as whole numbers in 8 bits, and in float32."""
    wide = np.repeat(steps.astype(np.float32), len(numbers) // len(steps), axis=0)
    values = np.rint(numbers * wide / 8).astype(np.int8)
    return values, values * scale


def run_node(config: EncoderConfig, kind: str, tensors: dict[str, Any], x: np.ndarray[Any, Any]) -> Array:
    """The output of a linear layer or an embedding, `y`, on one input."""
    graph = EncoderGraph(BackboneWeights(config, 0, "", tensors))
    name = "x" if kind == "linear" else "ids"
    graph.input(name, [f"axis{n}" for n in range(x.ndim)])
    graph.output(
        getattr(graph, kind)("y", name), ["rows", "outputs"] if kind == "linear" else ["rows", "width", "size"]
    )
    return np.asarray(open_session(graph.model("nodes", "")).run(None, {name: x})[0])


def seen(start: Loaded, adapters: Any = (), **options: Any) -> Calibration:
    return calibrate(start.encoder, start.tokenizer, TEXTS, adapters, **options)


def states(sessions: tuple[Any, Any], start: Loaded, inputs: Any = None) -> Array:
    """[tokens, hidden] of all sentences, one run each."""
    found = []
    for tokens in start.tokenizer.encode(TEXTS):
        rows = graphs.rows_of([tokens.windows[0]], start.encoder.config.pad_id)
        found.append(graphs.features(*sessions, rows, inputs)[0])
    return np.concatenate(found)


def quantised_states(start: Loaded, plan: Plan, adapter: Any = None) -> Array:
    weights = quantised(take_weights(start.encoder), plan, seen(start, [adapter] if adapter else []))
    return states(graphs.sessions(weights), start, graphs.adapter_inputs(adapter) if adapter else None)


def torch_states(start: Loaded, adapter: Any = None) -> Array:
    # Every text in a row of its own: the rounded encoder takes one step a row, the graphs one a run.
    rows = [graphs.read_states(start.encoder, start.tokenizer, [text], adapter)[0] for text in TEXTS]
    return np.concatenate(rows)


def cosine(left: Array, right: Array) -> float:
    norms = np.linalg.norm(left, axis=1) * np.linalg.norm(right, axis=1)
    return float(((left * right).sum(1) / norms).mean())


def test_rounding_to_int8_is_within_half_a_step_of_each_output() -> None:
    weight = random_matrix(40, 7)
    weight[:, 2] *= 1e-4
    weight[:, 3] = 0
    for rounded, scales in ((round_linear("y", weight), (7,)), (round_table("y", weight), (40, 1))):
        values, scale = rounded["y.weight"], rounded["y.scale"]
        assert np.abs(values).max() == 127 and scale.shape == scales
        assert (np.abs(values * scale - weight) <= scale / 2 * 1.0001).all()
        assert (values[:, 3] == 0).all()
    assert round_int8(weight)[1].shape == (40,)


def test_an_int4_weight_is_at_once_an_int8_weight() -> None:
    weight = random_matrix(64, 5)
    numbers, steps, scale = round_int4(weight, 16)
    assert steps.shape == (4, 5) and numbers.shape == (64, 5)
    assert numbers.min() >= -8 and numbers.max() <= 7
    values, found = int8_of(numbers, steps, scale)
    assert np.abs(values.astype(int)).max() <= 127
    # Making whole numbers of it costs little beside the rounding to 4 bits.
    exact = numbers * np.repeat(steps * (scale / 8), 16, axis=0)
    coarse = np.square(exact - weight).mean()
    assert np.square(found - exact).mean() < coarse / 20
    assert coarse < 0.01 * np.square(weight).mean()


def test_int4_takes_the_largest_block_that_divides_the_inputs_and_refuses_odd_ones() -> None:
    assert round_int4(random_matrix(48, 3), 32)[1].shape == (2, 3)
    with pytest.raises(TrunklineError, match="width 33"):
        round_int4(random_matrix(33, 3), 32)
    with pytest.raises(TrunklineError, match="width 33"):
        round_table_int4(random_matrix(3, 33), 32)
    with pytest.raises(TrunklineError, match="float16"):
        round_table_int4(random_matrix(4, 32) * 1e6, 32)


def test_errors_are_taken_up_by_inputs_that_vary_together() -> None:
    rng = np.random.default_rng(0)
    inputs = (rng.normal(size=(500, 6)) @ rng.normal(size=(6, 64)) + 0.1 * rng.normal(size=(500, 64))).astype(
        np.float32
    )
    weight = random_matrix(64, 20)
    moments = inputs.T @ inputs / len(inputs)
    plain, better = (int8_of(*round_int4(weight, 32, given))[1] for given in (None, moments))
    error = [float(np.square(inputs @ (found - weight)).mean()) for found in (plain, better)]
    assert error[1] < 0.5 * error[0]


def test_smoothing_changes_no_product_and_evens_out_inputs() -> None:
    x, weight = random_matrix(50, 12), random_matrix(12, 6, seed=1)
    x[:, 4] *= 100
    largest = np.abs(x).max(axis=0)
    factors = smoothing(weight, largest, 0.8)
    np.testing.assert_allclose((x / factors) @ (weight * factors[:, None]), x @ weight, rtol=1e-3, atol=1e-3)
    spread = [value.max() / value.min() for value in (largest, largest / factors)]
    assert spread[1] < spread[0] / 10
    assert (smoothing(weight, largest, 0.0) == 1).all()
    assert (smoothing(weight, np.zeros(12, np.float32), 0.8) == 1).all()
    # A channel that calibration never saw has a factor that is no outlier itself.
    assert smoothing(weight, largest * (np.arange(12) != 3), 0.8).min() > 1e-4


@pytest.mark.parametrize("block", [16, 32])
def test_nodes_of_int4_compute_exactly_what_those_of_int8_do(block: int, tiny: Loaded) -> None:
    x, weight, config = random_matrix(9, 64, seed=2), random_matrix(64, 10), tiny.encoder.config
    bias = {"y.bias": random_matrix(1, 10, seed=3)[0]}
    numbers, steps, scale = round_int4(weight, block)
    values, exact = int8_of(numbers, steps, scale)
    found = run_node(config, "linear", int4_linear("y", weight, block) | bias, x)
    wanted = run_node(config, "linear", {"y.weight": values, "y.scale": scale, **bias}, x)
    assert graphs.same_bits(found, wanted)
    np.testing.assert_allclose(found, x @ exact + bias["y.bias"], atol=0.05 * np.abs(wanted).max())


@pytest.mark.parametrize("shape", [(1, 5), (3, 4)])
def test_nodes_of_embeddings_look_up_their_tables(shape: tuple[int, int], tiny: Loaded) -> None:
    table, config = random_matrix(20, 48), tiny.encoder.config
    ids = np.random.default_rng(1).integers(20, size=shape)
    eight, (numbers, steps, scale) = round_table("y", table), round_table_int4(table, 16)
    found = run_node(config, "embedding", eight, ids)
    np.testing.assert_allclose(found, (eight["y.weight"] * eight["y.scale"])[ids], rtol=1e-6)
    four = numbers * np.repeat(steps * scale[:, None].astype(np.float32), 16, axis=1)
    found = run_node(config, "embedding", int4_table("y", table, 16), ids)
    np.testing.assert_allclose(found, four[ids], rtol=1e-5)
    assert cosine(four, table) > 0.99


@pytest.mark.parametrize(
    ("plan", "least"),
    [
        (Plan(), 0.9985),
        (Plan(per_token=("qkv", "out", "up", "down")), 0.9985),
        (PLANS["int4"], 0.93),
    ],
    ids=["int8", "a step a token", "int4"],
)
def test_graphs_stay_close_to_torch_with_and_without_an_adapter(plan: Plan, least: float, tiny: Loaded) -> None:
    adapter = tiny_models.random_adapter(tiny.encoder.config, (2, 3), targets=tiny_targets())
    for own in (None, adapter):
        found = quantised_states(tiny, plan, own)
        assert least < cosine(found, torch_states(tiny, own)) < 0.999999


def tiny_targets() -> tuple[str, ...]:
    return ("query", "value", "out", "down")


def test_factors_are_folded_only_where_no_adapter_comes_in_between(tiny: Loaded) -> None:
    weights = take_weights(tiny.encoder)
    changed = quantised(weights, Plan(), seen(tiny))
    trunk, branch = (
        {node.name for node in onnx.load_from_string(content).graph.node}
        for content in (trunk_graph(changed), branch_graph(changed))
    )
    assert "layers.0.out.smoothed" not in trunk and "layers.0.down.smoothed" in trunk
    assert "layers.2.out.smoothed" in branch
    adapter = tiny_models.random_adapter(tiny.encoder.config, (2, 3), targets=("value", "out"))
    folded = quantised(dataclasses.replace(weights, fork=4), Plan(), seen(tiny))
    everywhere = graphs.sessions(dataclasses.replace(folded, fork=weights.fork))
    wanted = torch_states(tiny, adapter)
    assert cosine(states(everywhere, tiny), torch_states(tiny)) > 0.995
    assert cosine(states(everywhere, tiny, graphs.adapter_inputs(adapter)), wanted) < 0.99
    assert cosine(quantised_states(tiny, Plan(), adapter), wanted) > 0.995


@pytest.mark.parametrize("kind", ["electra", "xlm-roberta", "distilbert"])
def test_other_architectures_are_quantised(kind: str, tiny_folder: Callable[[str], Path]) -> None:
    start = load_any(str(tiny_folder(kind)), fork=1, max_length=60)
    assert cosine(quantised_states(start, Plan()), torch_states(start)) > 0.995


def test_float32_is_exact_and_every_plan_gives_the_same_bytes_again(tiny: Loaded) -> None:
    weights = take_weights(tiny.encoder)
    assert graphs.same_bits(quantised_states(tiny, PLANS["float32"]), states(graphs.sessions(weights), tiny))
    for plan in (Plan(), PLANS["int4"]):
        contents = [trunk_graph(quantised(weights, plan, seen(tiny, moments=True))) for _ in range(2)]
        assert contents[0] == contents[1]


def test_facts_are_in_the_model_and_weights_take_an_eighth_or_a_quarter(tiny: Loaded) -> None:
    weights = take_weights(tiny.encoder)

    def model_of(plan: Plan) -> Any:
        return onnx.load_from_string(trunk_graph(quantised(weights, plan, seen(tiny))))

    facts = {item.key: item.value for item in model_of(Plan()).metadata_props}
    assert facts["weights"] == "int8" and facts["per_token"] == "down" and "block" not in facts
    assert facts["smoothing"] == "0.8" and facts["embedding"] == "int8"

    def bytes_of(plan: Plan) -> int:
        tensors = {t.name: len(t.raw_data) for t in model_of(plan).graph.initializer}
        return tensors["layers.0.up.weight"] + tensors["embeddings.word.weight"]

    full = bytes_of(PLANS["float32"])
    assert bytes_of(Plan()) == full / 4 and bytes_of(PLANS["int4"]) == full / 8


def test_calibration_sees_every_layer_and_the_adapters(tiny: Loaded) -> None:
    names = set(linear_layers(take_weights(tiny.encoder).tensors))
    adapter = tiny_models.random_adapter(tiny.encoder.config, (2,), targets=("down",))
    plain, adapted = seen(tiny), seen(tiny, [adapter], moments=True)
    assert set(plain.largest) == names == set(adapted.moments)
    for name in names:
        assert plain.largest[name].min() > 0
        assert np.allclose(adapted.moments[name], adapted.moments[name].T, rtol=1e-3, atol=1e-4)
        behind = name.startswith("layers.3")
        assert (adapted.largest[name] > plain.largest[name] * 1.0001).any() == behind, name
    assert plain.tokens == sum(len(t.windows[0]) for t in tiny.tokenizer.encode(TEXTS))
