"""The graphs whose adapters must be fed give in a browser what they give in Python, whatever the rank."""

from __future__ import annotations

from typing import Any, Literal

import numpy as np
import pytest
from chromium import missing, run_graphs

import tiny_models
from trunkline.bundle.manifest import LORA_TARGETS, lora_shapes
from trunkline.bundle.parts import Head, complete, fuse
from trunkline.encoder.bundle_files import Loaded
from trunkline.encoder.lora import adapter_arrays
from trunkline.engine.onnx import open_session
from trunkline.export.graph import branch_graph, trunk_graph
from trunkline.export.weights import Plan, calibrate, quantised, take_weights

pytestmark = [pytest.mark.browser, pytest.mark.skipif(bool(missing()), reason=missing())]
RANKS = (0, 4, 16)
LABELS = 5


def rows_of(tiny: Loaded) -> dict[str, Any]:
    """The sentences as one batch with padding behind the shorter ones; every token is a unit."""
    tokens = [text.windows[0] for text in tiny.tokenizer.encode(tiny_models.SENTENCES)]
    width = max(map(len, tokens))
    ids = np.full((len(tokens), width), tiny.encoder.config.pad_id, np.int64)
    mask = np.zeros((len(tokens), width), np.float32)
    for row, own in enumerate(tokens):
        ids[row, : len(own)], mask[row, : len(own)] = own, 1
    pool = np.repeat(np.eye(width, dtype=np.float32)[None], len(tokens), axis=0)
    return {"ids": ids, "mask": mask, "pool": pool}


@pytest.mark.parametrize("linear", ["float32", "int8"])
def test_a_branch_with_adapters_of_any_rank_gives_in_a_browser_what_it_gives_in_python(
    linear: Literal["float32", "int8"], tiny: Loaded
) -> None:
    config = tiny.encoder.config
    weights = quantised(
        take_weights(tiny.encoder),
        Plan(linear, embedding=linear),
        calibrate(tiny.encoder, tiny.tokenizer, tiny_models.SENTENCES),
    )
    # A number on the border between two steps of 8 bits may be rounded to either.
    near = {"float32": 1e-4, "int8": 0.05}[linear]
    lora_targets = tuple(LORA_TARGETS)
    layers = range(weights.fork, config.n_layers)
    shapes = lora_shapes(layers, config.hidden_size, config.intermediate_size, lora_targets)
    rng = np.random.default_rng(0)
    head = Head(
        rng.normal(size=(config.hidden_size, LABELS)).astype(np.float32), rng.normal(size=LABELS).astype(np.float32)
    )
    adapters = {
        rank: tiny_models.random_adapter(config, tuple(layers), rank, targets=("query", "value", "out", "up", "down"))
        for rank in RANKS
    }
    rows = rows_of(tiny)
    mask, pool = rows["mask"], rows["pool"]
    graphs = {
        "trunk": trunk_graph(weights),
        "branch-required": branch_graph(weights, "required", lora_targets),
    }
    hidden = open_session(graphs["trunk"]).run(None, {"ids": rows["ids"], "mask": mask})[0]
    branch = open_session(branch_graph(weights, "optional", lora_targets))
    states = {"hidden": hidden, "mask": mask, "pool": pool}

    own = {"head.weight": head.weight, "head.bias": head.bias}
    inputs = {rank: {**fuse(adapter_arrays(adapter)), **own} for rank, adapter in adapters.items()}
    expected = {rank: branch.run(["features", "logits"], states | inputs[rank]) for rank in RANKS}
    plain = branch.run(["features"], states)[0]

    given = {f"rank {rank}": states | complete(inputs[rank], shapes, config.hidden_size) for rank in RANKS}
    given["nothing"] = states | complete({}, shapes, config.hidden_size)
    found = run_graphs(
        graphs,
        [
            ("trunk", "trunk", {"ids": rows["ids"], "mask": mask}),
            *((name, "branch-required", fed) for name, fed in given.items()),
        ],
    )

    np.testing.assert_allclose(found["trunk"]["hidden"][mask > 0], hidden[mask > 0], atol=near)
    for rank in RANKS:
        wanted = dict(zip(("features", "logits"), expected[rank], strict=True))
        for name, value in wanted.items():
            assert found[f"rank {rank}"][name].shape == value.shape
            np.testing.assert_allclose(found[f"rank {rank}"][name][mask > 0], value[mask > 0], atol=near)
        changed = float(np.abs(wanted["features"] - plain)[mask > 0].max())
        assert (changed > 0.01) == (rank > 0)
    assert found["nothing"]["logits"].shape == (*mask.shape, 0)
    np.testing.assert_allclose(found["nothing"]["features"][mask > 0], plain[mask > 0], atol=near)
    # Rank 0 is no adapter, to the last bit.
    np.testing.assert_array_equal(found["nothing"]["features"], found["rank 0"]["features"])


def test_an_input_left_out_is_named(tiny: Loaded) -> None:
    weights = take_weights(tiny.encoder)
    rows = rows_of(tiny)
    fed = {
        "hidden": np.zeros((*rows["mask"].shape, tiny_models.WIDTH), np.float32),
        "mask": rows["mask"],
        "pool": rows["pool"],
    }
    with pytest.raises(RuntimeError, match=r"lora\.\d\.qkv\.a"):
        run_graphs({"branch-required": branch_graph(weights, "required")}, [("bare", "branch-required", fed)])
