"""OpenVINO runs the graphs whose inputs are all required, as they are. Skipped where it is not installed."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

import onnx_graphs as graphs
import tiny_models
from trunkline.encoder.bundle_files import Loaded
from trunkline.export.graph import branch_graph, trunk_graph
from trunkline.export.parity import Adapter, Tolerance, check_parity, forked
from trunkline.export.weights import take_weights

openvino = pytest.importorskip("openvino", reason="openvino is not installed: pip install openvino")

pytestmark = [pytest.mark.slow, pytest.mark.timeout(900)]


class Compiled:
    """A graph in OpenVINO, with as much of ONNX Runtime's interface as the parity gate uses."""

    def __init__(self, content: bytes) -> None:
        core = openvino.Core()
        # Otherwise it computes in bf16 where the processor has it.
        settings = {"INFERENCE_PRECISION_HINT": "f32", "INFERENCE_NUM_THREADS": 1}
        self._model = core.compile_model(core.read_model(content), "CPU", settings)

    def get_inputs(self) -> list[Any]:
        return [_Input(item) for item in self._model.inputs]

    def run(self, names: list[str], given: dict[str, Any]) -> list[Any]:
        found = self._model(given)
        return [np.array(found[name]) for name in names]


class _Input:
    def __init__(self, item: Any) -> None:
        self.name = item.any_name
        self.shape = [size.get_length() if size.is_static else str(size) for size in item.partial_shape]


def test_openvino_computes_what_torch_does(tiny: Loaded) -> None:
    config, weights = tiny.encoder.config, take_weights(tiny.encoder)
    layers = tuple(range(tiny.encoder.fork, config.n_layers))
    head = graphs.random_head(config)
    adapters = {
        "none": Adapter(head=head),
        "small": Adapter(tiny_models.random_adapter(config, layers, rank=4), graphs.random_head(config, 2, seed=1)),
        "all": Adapter(tiny_models.random_adapter(config, layers, rank=16, targets=graphs.ALL_LINEARS, seed=2), head),
    }
    trunk, branch = Compiled(trunk_graph(weights)), Compiled(branch_graph(weights, "required", graphs.ALL_TARGETS))
    run = forked(trunk, branch, graphs.inputs_of(adapters, graphs.shapes_of(weights)))
    check_parity(tiny.encoder, tiny.tokenizer, run, tiny_models.SENTENCES, adapters, tolerance=Tolerance(features=1e-4))
