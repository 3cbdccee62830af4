"""The parity gate: what it covers, and that it lets nothing wrong through."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx
import pytest
from onnx import numpy_helper

import onnx_graphs as graphs
import tiny_models
from trunkline.bundle.manifest import LORA_TARGETS
from trunkline.encoder.bundle_files import Loaded
from trunkline.engine.onnx import open_session
from trunkline.errors import TrunklineError
from trunkline.export.graph import branch_graph, trunk_graph
from trunkline.export.parity import Adapter, Tolerance, banked, check_parity, forked
from trunkline.export.weights import take_weights

TEXTS = tiny_models.SENTENCES


def changed(content: bytes, name: str, value: float | None = None) -> bytes:
    """The model with one number of a weight changed by a twentieth of the weight's spread, or set."""
    model = onnx.load_from_string(content)
    tensor = next(item for item in model.graph.initializer if item.name == name)
    array = numpy_helper.to_array(tensor).copy()
    array.flat[7] = array.flat[7] + array.std() / 20 if value is None else value
    tensor.CopyFrom(numpy_helper.from_array(array, name))
    return bytes(model.SerializeToString())


@pytest.fixture
def adapters(tiny: Loaded) -> dict[str, Adapter]:
    config = tiny.encoder.config
    return {
        "none": Adapter(head=graphs.random_head(config)),
        "small": Adapter(tiny_models.random_adapter(config, (3,), rank=2), graphs.random_head(config, 2, seed=1)),
        "large": Adapter(tiny_models.random_adapter(config, (2, 3), rank=9, targets=("key", "out"), seed=1)),
    }


@pytest.fixture
def made(tiny: Loaded) -> tuple[bytes, bytes]:
    weights = take_weights(tiny.encoder)
    return trunk_graph(weights), branch_graph(weights, lora_targets=tuple(LORA_TARGETS))


def run_gate(tiny: Loaded, made: tuple[bytes, bytes], adapters: dict[str, Adapter], **options: Any) -> Any:
    run = forked(open_session(made[0]), open_session(made[1]), graphs.inputs_of(adapters))
    return check_parity(tiny.encoder, tiny.tokenizer, run, TEXTS, adapters, **options)


def test_the_report_covers_lengths_batches_paddings_and_adapters(
    tiny: Loaded, made: tuple[bytes, bytes], adapters: dict[str, Adapter]
) -> None:
    seen: list[tuple[int, int, bool, str]] = []
    run = forked(open_session(made[0]), open_session(made[1]), graphs.inputs_of(adapters))

    def watched(rows: Any, names: Any) -> Any:
        seen.append((*rows["ids"].shape, bool((rows["mask"] == 0).any()), names[0]))
        return run(rows, names)

    report = check_parity(tiny.encoder, tiny.tokenizer, watched, TEXTS, adapters)
    assert report["adapters"] == list(adapters) and {name for *_, name in seen} == set(adapters)
    assert {width for rows, width, _, name in seen if rows == 1 and name == "none"} >= {2, 3, 8, 17, 64}
    assert any(padding for rows, _, padding, _ in seen if rows > 1) and report["runs"] == len(seen)
    assert 0 < report["largest_feature_difference"] <= Tolerance().features
    assert 0 < report["largest_probability_difference"] <= Tolerance().probabilities
    assert 0.99999 < report["least_cosine"] <= 1.0001


@pytest.mark.parametrize(
    "name",
    ["embeddings.position.weight", "layers.0.qkv.weight", "layers.0.qkv.bias", "layers.1.output_norm.weight"],
)
def test_one_changed_number_of_the_trunk_is_refused(
    name: str, tiny: Loaded, made: tuple[bytes, bytes], adapters: dict[str, Adapter]
) -> None:
    with pytest.raises(TrunklineError, match=r"differ from torch in \d+ of \d+ runs; the worst: adapter"):
        run_gate(tiny, (changed(made[0], name), made[1]), adapters)


@pytest.mark.parametrize("name", ["layers.2.up.weight", "layers.3.down.weight", "layers.3.attention_norm.bias"])
def test_one_changed_number_of_the_branch_is_refused(
    name: str, tiny: Loaded, made: tuple[bytes, bytes], adapters: dict[str, Adapter]
) -> None:
    with pytest.raises(TrunklineError, match="differ from torch"):
        run_gate(tiny, (made[0], changed(made[1], name)), adapters)


def test_a_number_that_is_none_is_refused_whatever_the_tolerance(
    tiny: Loaded, made: tuple[bytes, bytes], adapters: dict[str, Adapter]
) -> None:
    content = changed(made[1], "layers.2.up.weight", float("nan"))
    with pytest.raises(TrunklineError, match="nan"):
        run_gate(tiny, (made[0], content), adapters, tolerance=Tolerance(1e9, 1e9, -2.0))


def test_an_adapter_in_place_of_another_is_refused(
    tiny: Loaded, made: tuple[bytes, bytes], adapters: dict[str, Adapter]
) -> None:
    swapped = dict(zip(adapters, [adapters["none"], adapters["large"], adapters["small"]], strict=True))
    run = forked(open_session(made[0]), open_session(made[1]), graphs.inputs_of(swapped))
    with pytest.raises(TrunklineError, match=r"the worst: adapter (small|large)"):
        check_parity(tiny.encoder, tiny.tokenizer, run, TEXTS, adapters)


def test_mixed_rows_of_a_bank_and_required_inputs_pass(
    tiny: Loaded, made: tuple[bytes, bytes], adapters: dict[str, Adapter]
) -> None:
    weights = take_weights(tiny.encoder)
    shapes, trunk = graphs.shapes_of(weights), open_session(made[0])
    run = banked(
        trunk, open_session(branch_graph(weights, "bank", tuple(LORA_TARGETS))), graphs.inputs_of(adapters), shapes
    )
    report = check_parity(tiny.encoder, tiny.tokenizer, run, TEXTS, adapters, mixed=True)
    assert report["largest_probability_difference"] is None
    first = next(iter(adapters))
    with pytest.raises(TrunklineError, match="differ from torch"):
        # The bank's first adapter for every row.
        check_parity(
            tiny.encoder,
            tiny.tokenizer,
            lambda rows, names: run(rows, [first] * len(names)),
            TEXTS,
            adapters,
            mixed=True,
        )
    required = open_session(branch_graph(weights, "required", tuple(LORA_TARGETS)))
    check_parity(
        tiny.encoder, tiny.tokenizer, forked(trunk, required, graphs.inputs_of(adapters, shapes)), TEXTS, adapters
    )


def test_nothing_to_compare_is_refused(tiny: Loaded, made: tuple[bytes, bytes], adapters: dict[str, Adapter]) -> None:
    run = forked(open_session(made[0]), open_session(made[1]), graphs.inputs_of(adapters))
    with pytest.raises(TrunklineError, match="0 texts"):
        check_parity(tiny.encoder, tiny.tokenizer, run, [], adapters)
    with pytest.raises(TrunklineError, match="0 adapters"):
        check_parity(tiny.encoder, tiny.tokenizer, run, TEXTS, {})
    with pytest.raises(TrunklineError, match="no tokens"):
        check_parity(tiny.encoder, tiny.tokenizer, run, ["", " "], adapters)


def test_differences_are_shares_of_the_largest_feature(tiny: Loaded) -> None:
    adapters = {"none": Adapter()}

    def run_with(factor: float) -> Any:
        trunk, branch = graphs.sessions(take_weights(tiny.encoder))
        plain = forked(trunk, branch, graphs.inputs_of(adapters))

        def run(rows: Any, names: Any) -> Any:
            return {"features": plain(rows, names)["features"] * np.float32(factor)}

        return check_parity(
            tiny.encoder, tiny.tokenizer, run, TEXTS, adapters, tolerance=Tolerance(features=1.0, cosine=0.9)
        )

    assert run_with(1.01)["largest_feature_difference"] == pytest.approx(0.01, rel=0.01)
    assert run_with(1.01)["least_cosine"] == pytest.approx(1.0, abs=1e-6)
