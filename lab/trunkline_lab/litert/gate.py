"""LiteRT files against torch, by the same gate as the ONNX graphs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from trunkline.export.parity import Adapter, Outputs, Rows, Run, Tolerance
from trunkline_lab.deployment_formats import adapter_inputs
from trunkline_lab.litert.export import LiteRtProcess

FLOAT32 = Tolerance(features=1e-4)
INT8 = Tolerance(features=0.5, probabilities=0.5, cosine=0.99)
"""What rounding to 8 bits may do to a single token; how much a task loses is for the gate on its metric."""


def litert_run(process: LiteRtProcess, adapters: Mapping[str, Adapter]) -> Run:
    """What `check_parity` calls; rows are run one by one."""
    inputs = {name: adapter_inputs(adapter.lora, adapter.head) for name, adapter in adapters.items()}

    def run(rows: Rows, names: Sequence[str]) -> Outputs:
        found = []
        for ids, mask, pool, name in zip(rows["ids"], rows["mask"], rows["pool"], names, strict=True):
            tokens = int(mask.sum())
            found.append(process.run(ids[:tokens], pool[:, :tokens], inputs[name]))
        return {name: np.stack([outputs[name] for outputs in found]) for name in found[0]}

    return run
