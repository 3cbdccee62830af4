"""The graphs compute what torch does, however they are forked, padded and fed."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import onnx_graphs as graphs
import tiny_models
from trunkline.bundle.parts import complete
from trunkline.encoder.bundle_files import Loaded, load_any
from trunkline.engine.onnx import bank, open_session
from trunkline.errors import EncoderError, MismatchError, TrunklineError
from trunkline.export.graph import branch_graph, trunk_graph
from trunkline.export.parity import Adapter, check_parity, forked
from trunkline.export.weights import BackboneWeights, take_weights

Folders = Callable[[str], Path]
SETTINGS = settings(derandomize=True, deadline=None, max_examples=25)


@pytest.fixture(scope="module")
def base(tiny_folder: Folders) -> Loaded:
    """The tiny BERT: 4 layers, fork at 2; tests of this module do not change it."""
    return load_any(str(tiny_folder("bert")), fork=2, max_length=64)


@pytest.fixture(scope="module")
def weights(base: Loaded) -> BackboneWeights:
    return take_weights(base.encoder)


@pytest.fixture(scope="module")
def pair(weights: BackboneWeights) -> tuple[Any, Any]:
    return graphs.sessions(weights)


@pytest.mark.parametrize("kind", tiny_models.KINDS)
def test_every_architecture_computes_what_torch_does(kind: str, tiny_folder: Folders) -> None:
    loaded = load_any(str(tiny_folder(kind)), fork=1, max_length=60)
    config = loaded.encoder.config
    trunk, branch = graphs.sessions(take_weights(loaded.encoder))
    head = graphs.random_head(config)
    adapters = {
        "none": Adapter(head=head),
        "query and value": Adapter(tiny_models.random_adapter(config, (1, 2)), head),
        "one": Adapter(tiny_models.random_adapter(config, (2,), rank=1, targets=("down",), seed=1)),
        "all": Adapter(tiny_models.random_adapter(config, (1, 2), rank=7, targets=graphs.ALL_LINEARS, seed=2), head),
    }
    run = forked(trunk, branch, graphs.inputs_of(adapters))
    assert check_parity(loaded.encoder, loaded.tokenizer, run, tiny_models.SENTENCES, adapters)["runs"] > len(adapters)


def test_fast_attention_computes_what_torch_does_with_and_without_padding(
    base: Loaded, weights: BackboneWeights
) -> None:
    adapters = {"some": Adapter(tiny_models.random_adapter(base.encoder.config, (2, 3)))}
    trunk, branch = (open_session(made(weights, attention="fast")) for made in (trunk_graph, branch_graph))
    run = forked(trunk, branch, graphs.inputs_of(adapters))
    check_parity(base.encoder, base.tokenizer, run, tiny_models.SENTENCES, adapters)


@pytest.mark.parametrize("activation", ["gelu_new", "gelu_pytorch_tanh", "relu", "silu"])
def test_every_activation_computes_what_torch_does(activation: str, base: Loaded) -> None:
    encoder = graphs.with_activation(base.encoder, activation)
    trunk, branch = graphs.sessions(take_weights(encoder))
    adapters = {"none": Adapter()}
    run = forked(trunk, branch, graphs.inputs_of(adapters))
    check_parity(encoder, base.tokenizer, run, tiny_models.SENTENCES, adapters)
    with pytest.raises(TrunklineError, match="differ from torch"):
        check_parity(base.encoder, base.tokenizer, run, tiny_models.SENTENCES, adapters)


def test_no_adapter_and_rank_zero_are_the_backbone_bit_for_bit(
    base: Loaded, weights: BackboneWeights, pair: tuple[Any, Any]
) -> None:
    rows = graphs.sentence_rows(base.tokenizer)
    trunk, branch = pair
    plain = graphs.features(*graphs.sessions(weights, lora_targets=()), rows)
    assert graphs.same_bits(graphs.features(trunk, branch, rows), plain)
    zero = complete({}, graphs.shapes_of(weights), tiny_models.WIDTH)
    assert graphs.same_bits(graphs.features(trunk, branch, rows, zero), plain)
    required = open_session(branch_graph(weights, "required", graphs.ALL_TARGETS))
    assert graphs.same_bits(graphs.features(trunk, required, rows, zero), plain)


def test_any_rank_of_any_linear_layer_is_what_torch_adds(base: Loaded, pair: tuple[Any, Any]) -> None:
    rows = graphs.sentence_rows(base.tokenizer)
    hidden = pair[0].run(["hidden"], rows)[0]
    targets = st.lists(st.sampled_from(graphs.ALL_LINEARS), min_size=1, unique=True).map(tuple)
    layers = st.sampled_from([(2,), (3,), (2, 3)])

    @SETTINGS
    @given(st.integers(0, tiny_models.WIDTH), targets, layers, st.sampled_from([0.5, 4.0, 9.0]))
    def run(rank: int, chosen: tuple[str, ...], where: tuple[int, ...], alpha: float) -> None:
        adapter = tiny_models.random_adapter(base.encoder.config, where, rank, targets=chosen, alpha=alpha)
        found = graphs.run_branch(pair[1], hidden, rows["mask"], graphs.adapter_inputs(adapter))
        for row, wanted in enumerate(graphs.read_states(base.encoder, base.tokenizer, deltas=adapter)):
            assert graphs.largest(found[row, : len(wanted)], wanted) < 1e-4

    run()


def test_required_inputs_give_the_same_as_optional_ones_and_cannot_be_left_out(
    base: Loaded, weights: BackboneWeights, pair: tuple[Any, Any]
) -> None:
    rows = graphs.sentence_rows(base.tokenizer)
    adapter = tiny_models.random_adapter(base.encoder.config, (3,), targets=("key", "up"))
    inputs = graphs.adapter_inputs(adapter, graphs.random_head(base.encoder.config))
    required = open_session(branch_graph(weights, "required", graphs.ALL_TARGETS))
    all_feeds = complete(inputs, graphs.shapes_of(weights), tiny_models.WIDTH)
    own = {"hidden", "mask", "pool"}
    assert {item.name for item in required.get_inputs()} == own | all_feeds.keys()
    assert {item.name for item in pair[1].get_inputs()} == own
    assert {item.name for item in pair[1].get_overridable_initializers()} == all_feeds.keys()
    given = graphs.features(pair[0], required, rows, all_feeds)
    assert graphs.same_bits(given, graphs.features(*pair, rows, inputs))
    with pytest.raises(ValueError, match=r"lora\.2\.out\.a"):
        graphs.features(pair[0], required, rows, inputs)


def test_each_row_of_a_bank_is_what_its_adapter_gives_alone(
    base: Loaded, weights: BackboneWeights, pair: tuple[Any, Any]
) -> None:
    config = base.encoder.config
    adapters = [
        tiny_models.random_adapter(config, (2, 3), rank=4, seed=1),
        tiny_models.random_adapter(config, (3,), rank=7, seed=2, targets=("out", "up", "down", "query"), alpha=3.0),
        None,
    ]
    single = [graphs.adapter_inputs(adapter) for adapter in adapters]
    choice = [1, 0, 2, 0, 1]
    head = complete({}, {}, tiny_models.WIDTH)
    inputs = bank(single, graphs.shapes_of(weights)) | head | {"adapter_ids": np.array(choice)}
    session = open_session(branch_graph(weights, "bank", graphs.ALL_TARGETS))
    rows = graphs.sentence_rows(base.tokenizer)
    mixed = graphs.features(pair[0], session, rows, inputs)
    for row, number in enumerate(choice):
        alone = graphs.features(*pair, rows, single[number])
        assert graphs.largest(mixed[row], alone[row]) < 1e-5
    other = graphs.features(*pair, rows, single[0])
    assert graphs.largest(mixed[0], other[0]) > 1e-2


@pytest.mark.parametrize("kind", ["bert", "electra"])
def test_the_fork_may_be_anywhere(kind: str, tiny_folder: Folders) -> None:
    loaded = load_any(str(tiny_folder(kind)), fork=0, max_length=60)
    weights = take_weights(loaded.encoder)
    rows = graphs.sentence_rows(loaded.tokenizer)
    for fork in range(weights.config.n_layers + 1):
        loaded.encoder.fork = fork
        found = graphs.features(*graphs.sessions(dataclasses.replace(weights, fork=fork)), rows)
        for row, wanted in enumerate(graphs.read_states(loaded.encoder, loaded.tokenizer)):
            assert graphs.largest(found[row, : len(wanted)], wanted) < 2e-5


@pytest.mark.parametrize("kind", ["bert", "roberta"])
def test_a_row_with_padding_is_the_row_alone(kind: str, tiny_folder: Folders) -> None:
    loaded = load_any(str(tiny_folder(kind)), fork=1, max_length=60)
    trunk, branch = graphs.sessions(take_weights(loaded.encoder))
    vocabulary = loaded.encoder.config.vocab_size
    tokens = st.lists(st.integers(2, vocabulary - 1), min_size=1, max_size=48)

    @SETTINGS
    @given(st.lists(tokens, min_size=1, max_size=5), st.integers(0, 12), st.integers(0, vocabulary - 1))
    def run(rows: list[list[int]], extra: int, filler: int) -> None:
        together = graphs.features(trunk, branch, graphs.rows_of(rows, filler, extra))
        for row, own in enumerate(rows):
            alone = graphs.features(trunk, branch, graphs.rows_of([own], 1))
            assert graphs.largest(together[row, : len(own)], alone[0]) < 2e-5

    run()


def test_positions_of_roberta_are_counted_from_the_mask(tiny_folder: Folders) -> None:
    loaded = load_any(str(tiny_folder("roberta")), fork=1, max_length=60)
    trunk, branch = graphs.sessions(take_weights(loaded.encoder))
    tokens = [list(range(5, 12)), list(range(20, 40))]
    behind = graphs.features(trunk, branch, graphs.rows_of(tokens, 1, 2))
    before = graphs.features(trunk, branch, graphs.rows_of(tokens, 1, 2, left=True))
    for row, own in enumerate(tokens):
        assert graphs.largest(behind[row, : len(own)], before[row, -len(own) :]) < 2e-5


def test_a_row_of_nothing_but_padding_is_finite_and_disturbs_no_other(base: Loaded, pair: tuple[Any, Any]) -> None:
    rows = graphs.sentence_rows(base.tokenizer)
    empty = {name: np.concatenate([value, np.zeros_like(value[:1])]) for name, value in rows.items()}
    hidden = pair[0].run(["hidden"], empty)[0]
    found = pair[1].run(["features"], {"hidden": hidden, "mask": empty["mask"], "pool": graphs.eye_pool(empty["mask"])})
    assert np.isfinite(found[0]).all()
    assert graphs.largest(found[0][:-1] * rows["mask"][:, :, None], graphs.features(*pair, rows)) < 2e-5


def test_the_same_encoder_gives_the_same_bytes(tiny_folder: Folders) -> None:
    def made() -> list[bytes]:
        loaded = load_any(str(tiny_folder("electra")), fork=1, max_length=60)
        weights = take_weights(loaded.encoder)
        branches = [branch_graph(weights, form, graphs.ALL_TARGETS) for form in ("optional", "required", "bank")]
        return [trunk_graph(weights), *branches]

    first = made()
    assert first == made()
    assert len(set(first)) == len(first)


@pytest.mark.parametrize("fork", [0, 2, 4])
def test_graphs_are_valid_and_say_what_they_belong_to(fork: int, base: Loaded, weights: BackboneWeights) -> None:
    moved = dataclasses.replace(weights, fork=fork)
    forms = ("optional", "required", "bank")
    contents = [trunk_graph(moved), *(branch_graph(moved, form, graphs.ALL_TARGETS) for form in forms)]
    contents += [trunk_graph(moved, "fast"), branch_graph(moved, attention="fast")]
    for content, part in zip(contents, ("trunk", *["branch"] * 3, "trunk", "branch"), strict=True):
        model = onnx.load_from_string(content)
        onnx.checker.check_model(model, full_check=True)
        assert (model.ir_version, {item.domain: item.version for item in model.opset_import}) == (
            9,
            {"": 17, "com.microsoft": 1},
        )
        facts = open_session(content).get_modelmeta().custom_metadata_map
        assert (facts["backbone"], facts["part"], facts["fork"]) == (base.backbone, part, str(fork))
        assert facts["weights"] == "float32"


def test_no_level_of_optimisation_brings_in_the_slow_normalisation(weights: BackboneWeights, tmp_path: Path) -> None:
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_ENABLE_ALL
    options.optimized_model_filepath = str(tmp_path / "optimised.onnx")
    onnxruntime.InferenceSession(branch_graph(weights), options, providers=["CPUExecutionProvider"])
    found = [node.op_type for node in onnx.load(tmp_path / "optimised.onnx").graph.node]
    assert found.count("LayerNormalization") == 4
    assert "SkipLayerNormalization" not in found


def test_a_graph_only_has_the_inputs_it_was_asked_for(weights: BackboneWeights) -> None:
    names = {item.name for item in open_session(branch_graph(weights)).get_overridable_initializers()}
    lora = {f"lora.{layer}.qkv.{side}" for layer in (2, 3) for side in "ab"}
    assert names == lora | {"head.weight", "head.bias"}
    with pytest.raises(MismatchError, match=r"targets \['gate'\].*qkv, out, up, down"):
        branch_graph(weights, lora_targets=("gate",))


def test_weights_that_are_not_finite_are_named(tiny: Loaded) -> None:
    graphs.spoiled(tiny.encoder, "layers.1.up.weight", float("nan"))
    with pytest.raises(EncoderError, match=r"layers\.1\.up\.weight"):
        take_weights(tiny.encoder)


def test_a_model_too_large_for_one_file_is_refused(weights: BackboneWeights, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("trunkline.export.graph.MAX_BYTES", 2**20 + 1000)
    with pytest.raises(TrunklineError, match="less than 2 GiB"):
        trunk_graph(weights)


def test_a_file_that_is_no_model_is_refused(tmp_path: Path, weights: BackboneWeights) -> None:
    path = tmp_path / "branch.onnx"
    with pytest.raises(TrunklineError, match=r"cannot load.*branch\.onnx"):
        open_session(path)
    content = branch_graph(weights)
    path.write_bytes(content[: len(content) // 2])
    with pytest.raises(TrunklineError, match=r"cannot load.*branch\.onnx"):
        open_session(path)
    path.write_bytes(content)
    assert open_session(path).get_modelmeta().custom_metadata_map["backbone"] == weights.hash
