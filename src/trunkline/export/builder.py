"""Putting an ONNX model together node by node; the same calls give the same bytes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx
from onnx import TensorProto, helper, numpy_helper

from trunkline.errors import TrunklineError

OPSET = 17
"""The first with LayerNormalization; ONNX Runtime from 1.20, onnxruntime-web and OpenVINO all read it."""

IR_VERSION = 9  # of ONNX 1.14, which the runtimes above read
CONTRIB = "com.microsoft"
"""Domain of the operators that are not in ONNX but in all three runtimes."""
MAX_BYTES = 2**31 - 1
"""A protobuf message cannot be larger."""


class Builder:
    """Collects the nodes, constants, inputs and outputs of a graph. Values are known by their names."""

    def __init__(self) -> None:
        self._nodes: list[onnx.NodeProto] = []
        self._constants: dict[str, onnx.TensorProto] = {}
        self._inputs: list[onnx.ValueInfoProto] = []
        self._outputs: list[onnx.ValueInfoProto] = []
        self._values: set[str] = set()

    def input(
        self, name: str, shape: Sequence[int | str], doc: str = "", default: npt.NDArray[Any] | None = None
    ) -> None:
        """An input, of int64 if its name ends in `ids`, else of float32; with `default`, one that may be left out.

        Sizes given as text are free.
        """
        kind = TensorProto.INT64 if name.endswith("ids") else TensorProto.FLOAT
        self._inputs.append(helper.make_tensor_value_info(name, kind, list(shape), doc_string=doc))
        if default is not None:
            self._constants[name] = numpy_helper.from_array(default, name)
        self.new(name)

    def constant(self, name: str, value: Any, kind: type | None = None) -> str:
        """A constant; one that is there already under this name is used again."""
        if name not in self._constants:
            self._constants[name] = numpy_helper.from_array(np.ascontiguousarray(value, kind), self.new(name))
        return name

    def add(self, name: str, op: str, inputs: Sequence[str], domain: str = "", **attributes: Any) -> str:
        """A node with one output, both called `name`; an empty name among the inputs leaves that input out."""
        return self.split([name], op, inputs, domain, **attributes)

    def split(self, names: Sequence[str], op: str, inputs: Sequence[str], domain: str = "", **attributes: Any) -> str:
        """A node with several outputs, called by the first."""
        found = [self.new(name) for name in names]
        self._nodes.append(helper.make_node(op, list(inputs), found, name=found[0], domain=domain, **attributes))
        return found[0]

    def has(self, name: str) -> bool:
        """Whether there is such a value."""
        return name in self._values

    def output(self, name: str, shape: Sequence[int | str], doc: str = "") -> None:
        """Makes the value of this name an output."""
        self._outputs.append(helper.make_tensor_value_info(name, TensorProto.FLOAT, list(shape), doc_string=doc))

    def new(self, name: str) -> str:
        """Takes a name for a value; raises ValueError if it is taken."""
        if name in self._values:
            raise ValueError(f"the graph has a value {name} already")
        self._values.add(name)
        return name

    def model(self, name: str, doc: str, facts: Mapping[str, str]) -> bytes:
        """The finished model, serialised, with `facts` as its metadata.

        Raises:
            TrunklineError: The weights take more than the 2 GiB that one ONNX file can hold.
        """
        constants = list(self._constants.values())
        size = sum(len(tensor.raw_data) for tensor in constants)
        if size > MAX_BYTES - 2**20:
            raise TrunklineError(
                f"the weights of {name} take {size / 2**30:.2f} GiB",
                expected="less than 2 GiB, the most that one ONNX file can hold",
                todo="Choose a smaller encoder, or quantise it",
            )
        graph = helper.make_graph(self._nodes, name, self._inputs, self._outputs, constants, doc_string=doc)
        opsets = [helper.make_opsetid("", OPSET), helper.make_opsetid(CONTRIB, 1)]
        about = {"ir_version": IR_VERSION, "producer_name": "trunkline", "doc_string": doc}
        model = helper.make_model(graph, opset_imports=opsets, **about)
        helper.set_model_props(model, dict(sorted(facts.items())))
        return bytes(model.SerializeToString(deterministic=True))
