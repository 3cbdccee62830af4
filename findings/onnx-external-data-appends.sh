#!/usr/bin/env bash
# onnx 1.23.2: saving a model with external data a second time to the same names appends to the data file.
# The model is right, but its data file holds the dead weights of every earlier save.
# Seen: 400000, 800000, 1200000 bytes after three saves of one weight of 400000 bytes.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet onnx==1.23.2 numpy==2.4.6
"$folder/venv/bin/python" - "$folder" <<'PY'
import sys
from pathlib import Path

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

folder = Path(sys.argv[1])
weight = numpy_helper.from_array(np.ones((1000, 100), np.float32), "w")
x, y = (
    helper.make_tensor_value_info(name, TensorProto.FLOAT, [None, width]) for name, width in (("x", 1000), ("y", 100))
)
graph = helper.make_graph([helper.make_node("MatMul", ["x", "w"], ["y"])], "graph", [x], [y], [weight])
sizes = []
for _ in range(3):
    model = helper.make_model(graph)
    onnx.save_model(
        model, str(folder / "m.onnx"), save_as_external_data=True, location="m.data", size_threshold=0
    )
    sizes.append((folder / "m.data").stat().st_size)
print(f"onnx {onnx.__version__}: bytes of m.data after each save: {sizes}")
assert sizes == [400_000, 800_000, 1_200_000], sizes
PY
