"""Adapters on their way into a graph: fused, in float16; and what does not fit."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import onnx_graphs as graphs
import tiny_models
from trunkline.bundle.manifest import lora_shapes
from trunkline.bundle.parts import check_inputs, complete, fuse
from trunkline.encoder.bundle_files import Loaded
from trunkline.encoder.lora import adapter_arrays
from trunkline.encoder.peft_format import export_peft, import_peft
from trunkline.engine.onnx import bank
from trunkline.errors import MismatchError
from trunkline.export.weights import take_weights

QKV = lora_shapes(range(2, 4), 32, 48, ("qkv",))


def outputs(branch: Any, rows: dict[str, Any], hidden: Any, inputs: dict[str, Any], options: Any = None) -> list[Any]:
    given = {"hidden": hidden, "mask": rows["mask"], "pool": graphs.mean_pool(rows["mask"]), **inputs}
    return list(branch.run(None, given, options))


def test_query_key_and_value_become_one_pair(tiny: Loaded) -> None:
    adapter = tiny_models.random_adapter(tiny.encoder.config, (2, 3), rank=5, targets=("query", "value", "up"))
    tensors = adapter_arrays(adapter)
    assert {name: value.shape for name, value in tensors.items() if name.startswith("lora.3.")} == {
        "lora.3.query.a": (32, 5),
        "lora.3.query.b": (5, 32),
        "lora.3.value.a": (32, 5),
        "lora.3.value.b": (5, 32),
        "lora.3.up.a": (32, 5),
        "lora.3.up.b": (5, 48),
    }
    inputs = fuse(tensors)
    assert inputs["lora.3.qkv.a"].shape == (32, 10)
    update = inputs["lora.3.qkv.a"] @ inputs["lora.3.qkv.b"]
    for place, target in enumerate(("query", "key", "value")):
        with torch.no_grad():
            wanted = np.zeros((32, 32), np.float32)
            if target in adapter.config.targets:
                part = adapter.part(3, target)
                wanted = (part.scale * part.b @ part.a).T.numpy()
        assert graphs.largest(update[:, place * 32 : (place + 1) * 32], wanted) < 1e-5


def test_an_adapter_in_half_precision_stays_close(tiny: Loaded) -> None:
    adapter = tiny_models.random_adapter(tiny.encoder.config, (2, 3), targets=graphs.ALL_LINEARS)
    arrays = adapter_arrays(adapter)
    halves = {name: array.astype(np.float16) for name, array in arrays.items()}
    trunk, branch = graphs.sessions(take_weights(tiny.encoder))
    rows = graphs.sentence_rows(tiny.tokenizer)
    hidden = trunk.run(None, rows)[0]
    full, half = (outputs(branch, rows, hidden, fuse(part)) for part in (arrays, halves))
    assert 0 < graphs.largest(full[0], half[0]) < 0.02


def test_an_adapter_of_peft_runs_in_the_graph(tiny: Loaded, tmp_path: Path) -> None:
    adapter = tiny_models.random_adapter(tiny.encoder.config, (2, 3), rank=3, targets=("query", "value", "out"))
    export_peft(adapter, tiny.encoder.config, tmp_path)
    read = graphs.adapter_inputs(import_peft(tmp_path, tiny.encoder.config))
    ours = graphs.adapter_inputs(adapter)
    assert read.keys() == ours.keys()
    assert all(graphs.same_bits(read[name], ours[name]) for name in ours)


def test_an_adapter_that_has_no_place_in_the_graph_is_refused(tiny: Loaded) -> None:
    config = tiny.encoder.config
    with pytest.raises(MismatchError, match=r"lora\.2\.up\.a.*2\.qkv, 3\.qkv.*target"):
        check_inputs(graphs.adapter_inputs(tiny_models.random_adapter(config, (2,), targets=("query", "up"))), QKV)
    with pytest.raises(MismatchError, match=r"lora\.1\.qkv\.a.*lower fork"):
        complete(graphs.adapter_inputs(tiny_models.random_adapter(config, (1, 2))), QKV, 32)
    wide = {"lora.2.qkv.a": np.zeros((40, 2), np.float32), "lora.2.qkv.b": np.zeros((2, 96), np.float32)}
    with pytest.raises(MismatchError, match=r"\(40, 2\).*32"):
        bank([{}, wide], QKV)
    with pytest.raises(MismatchError, match="no adapters"):
        bank([], QKV)


@pytest.mark.parametrize(
    ("tensors", "message"),
    [
        ({"lora.2.query.a": (4, 2)}, "is alone"),
        ({"lora.2.query.a": (4, 2), "lora.2.query.b": (3, 4)}, r"a \(4, 2\) and b \(3, 4\)"),
        ({"lora.2.query.a": (4,), "lora.2.query.b": (3, 4)}, r"a \(4,\)"),
        ({"lora.2.gate.a": (4, 2), "lora.2.gate.b": (2, 4)}, r"lora\.2\.gate\.a"),
        ({"lora.2.query.c": (4, 2)}, "is alone"),
        ({"lora.x.query.a": (4, 2), "lora.x.query.b": (2, 4)}, r"lora\.x"),
        ({"transformer.weight": (4, 2)}, "transformer"),
        (
            {"lora.2.query.a": (4, 2), "lora.2.query.b": (2, 4), "lora.2.key.a": (4, 2), "lora.2.key.b": (2, 5)},
            r"outputs \[4, 5\]",
        ),
        (
            {"lora.2.query.a": (4, 2), "lora.2.query.b": (2, 4), "lora.2.key.a": (5, 2), "lora.2.key.b": (2, 4)},
            r"inputs \[4, 5\]",
        ),
    ],
)
def test_tensors_that_are_no_adapter_are_refused(tensors: dict[str, tuple[int, ...]], message: str) -> None:
    with pytest.raises(MismatchError, match=message):
        fuse({name: np.zeros(shape, np.float16) for name, shape in tensors.items()})
