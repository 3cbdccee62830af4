"""The graphs of a backbone, trunk and branch, and the parts of an encoder as ONNX nodes that they are made of.

    trunk    ids, mask                                          -> hidden
    branch   hidden, mask, pool, lora.*, head.*                 -> features, logits
    bank     the same with several adapters, and adapter_ids    -> features, logits

Sizes: `ids` int64 and `mask` float32 (1 for tokens, 0 for padding) [rows, width]; `hidden` [rows, width, hidden];
`pool` [rows, units, width], whose rows average the states of one unit each; `features` [rows, units, hidden]; `logits`
[rows, units, labels]. LoRA inputs are those of `trunkline.bundle.manifest`; `head.weight` is [hidden, labels].

Inside a graph the states are one matrix, [rows * width, hidden]: a linear layer is then one Gemm, and so is adding a
low-rank update to its output. The sum before a normalisation is a node of its own, because ONNX Runtime's
SkipLayerNormalization on a CPU takes eight times as long as Add and LayerNormalization.

A linear layer or embedding is computed as its tensors say: with `.scale` in 8 bits, with `.steps` from 4 bits, which
for linear layers are unpacked once, when the graph is loaded, as that depends on constants alone.
"""

from __future__ import annotations

from collections.abc import Sequence
from types import MappingProxyType
from typing import Any, Literal

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from trunkline.bundle.manifest import FloatArray, Shapes, lora_shapes
from trunkline.errors import TrunklineError
from trunkline.export.weights import FRACTIONS, LOWEST, BackboneWeights

OPSET = 17
"""The first with LayerNormalization; ONNX Runtime from 1.20, onnxruntime-web and OpenVINO all read it."""

IR_VERSION = 9  # of ONNX 1.14, which the runtimes above read
CONTRIB = "com.microsoft"
"""Domain of the operators that are not in ONNX but in all three runtimes."""
MAX_BYTES = 2**31 - 1
"""A protobuf message cannot be larger."""

FORMAT = 2
"""Of the graphs; in the first one a branch gave the states of its last layer alone."""

DEFAULT_LORA_TARGETS = ("qkv",)
"""Adapters sit on query and value unless a recipe says otherwise. Each input costs time even if nothing is fed."""

Form = Literal["optional", "required", "bank"]
"""How a graph takes adapters: inputs that may be left out, inputs that must be given (onnxruntime-web cannot be fed the
others, OpenVINO not load them), or required inputs that hold several adapters, of which each row has one."""

Attention = Literal["portable", "fast"]
"""`portable` always gives attention the mask. `fast` leaves it out, by an If, where a run has no padding, because only
then ONNX Runtime takes its faster kernel (0.7 of the time of attention). For ONNX Runtime alone: OpenVINO 2026.4
computes an If of free sizes wrongly when it runs for the first time."""

_INPUTS: dict[str, tuple[list[int | str], str]] = {
    "ids": (["rows", "width"], "token ids, special tokens included"),
    "mask": (["rows", "width"], "1 for tokens, 0 for padding behind them"),
    "pool": (["rows", "units", "width"], "for each unit the share of each token; shares add up to 1"),
}
_GELU = {"gelu": "Gelu", "gelu_new": "FastGelu", "gelu_pytorch_tanh": "FastGelu"}
"""The exact activation, and its approximation by tanh."""


class EncoderGraph:
    """The nodes of a backbone's parts; values are known by their names, and the same calls give the same bytes."""

    form: Form = "optional"
    shapes: Shapes = MappingProxyType({})

    def __init__(self, weights: BackboneWeights, attention: Attention = "portable") -> None:
        self.weights, self.config, self.attention = weights, weights.config, attention
        self._nodes: list[onnx.NodeProto] = []
        self._constants: dict[str, onnx.TensorProto] = {}
        self._inputs: list[onnx.ValueInfoProto] = []
        self._outputs: list[onnx.ValueInfoProto] = []
        self._values: set[str] = set()  # outputs of nodes

    def input(self, name: str, shape: Sequence[int | str], doc: str = "", default: FloatArray | None = None) -> None:
        """An input, of int64 if its name ends in `ids`, else of float32; with `default`, one that may be left out.

        Sizes given as text are free.
        """
        kind = TensorProto.INT64 if name.endswith("ids") else TensorProto.FLOAT
        self._inputs.append(helper.make_tensor_value_info(name, kind, list(shape), doc_string=doc))
        if default is not None:
            self._constants[name] = numpy_helper.from_array(default, name)

    def constant(self, name: str, value: Any, kind: type | None = None) -> str:
        """A constant; one that is there already under this name is used again."""
        if name not in self._constants:
            self._constants[name] = numpy_helper.from_array(np.ascontiguousarray(value, kind), name)
        return name

    def add(
        self, name: str | Sequence[str], op: str, inputs: Sequence[str], domain: str = "", **attributes: Any
    ) -> str:
        """A node and its output, both called `name`, or several outputs, of which the node has the first one's name.

        An empty name among the inputs leaves that input out. A value that is there already is used again.
        """
        found = [name] if isinstance(name, str) else list(name)
        if found[0] in self._values:
            return found[0]
        self._values.update(found)
        self._nodes.append(helper.make_node(op, list(inputs), found, name=found[0], domain=domain, **attributes))
        return found[0]

    def output(self, name: str, shape: Sequence[int | str], doc: str = "") -> None:
        """Makes the value of this name an output."""
        self._outputs.append(helper.make_tensor_value_info(name, TensorProto.FLOAT, list(shape), doc_string=doc))

    def inputs(self, *names: str) -> None:
        """Adds some of the inputs `ids`, `mask` and `pool`."""
        for name in names:
            self.input(name, *_INPUTS[name])

    def adapter_inputs(self, form: Form, shapes: Shapes) -> None:
        """Adds the inputs of LoRA, each pair with a rank of its own, and of the head."""
        self.form, self.shapes = form, shapes
        first = ["adapters"] if form == "bank" else []
        for place, (inputs, outputs) in shapes.items():
            rank = f"rank.{place}"
            self.input(f"lora.{place}.a", [*first, inputs, rank], default=self._nothing(inputs, 0))
            self.input(f"lora.{place}.b", [*first, rank, outputs], default=self._nothing(0, outputs))
        hidden = self.config.hidden_size
        self.input("head.weight", [hidden, "labels"], default=self._nothing(hidden, 0))
        self.input("head.bias", ["labels"], default=self._nothing(0))

    def _nothing(self, *shape: int) -> FloatArray | None:
        return np.zeros(shape, np.float32) if self.form == "optional" else None

    def tensor(self, name: str) -> str:
        """A tensor of the backbone."""
        return self.constant(name, self.weights.tensors[name])

    def linear(self, name: str, x: str) -> str:
        """A linear layer, [n, inputs] -> [n, outputs]."""
        tensors, weight = self.weights.tensors, self.weights.tensors[f"{name}.weight"]
        if f"{name}.scale" not in tensors:
            return self.add(name, "Gemm", [x, self.tensor(f"{name}.weight"), self.tensor(f"{name}.bias")])
        if f"{name}.smooth" in tensors:
            x = self.add(f"{name}.smoothed", "Mul", [x, self.tensor(f"{name}.smooth")])
        values = self.tensor(f"{name}.weight")
        if f"{name}.steps" in tensors:
            blocks, _, outputs = tensors[f"{name}.steps"].shape
            block = 2 * len(weight) // blocks
            numbers = self._blocks_of_int4(name, values, 0, [blocks, block, outputs])
            wide = self.add(f"{name}.wide", "Cast", [self.tensor(f"{name}.steps")], to=TensorProto.FLOAT)
            step = self.add(f"{name}.step", "Mul", [wide, self.constant("fractions", 1 / FRACTIONS, np.float32)])
            whole = self.add(f"{name}.whole", "Round", [self.add(f"{name}.scaled", "Mul", [numbers, step])])
            joined = self.add(f"{name}.joined", "Reshape", [whole, self._shape([blocks * block, outputs])])
            values = self.add(f"{name}.int8", "Cast", [joined], to=TensorProto.INT8)
        # The operator rounds its inputs to 8 bits with one step for the whole run, and multiplies whole numbers.
        scale, bias = self.tensor(f"{name}.scale"), self.tensor(f"{name}.bias")
        if f"{name}.least" not in tensors:
            return self.add(name, "DynamicQuantizeMatMul", [x, values, scale, "", bias], CONTRIB)
        largest = self.add(f"{name}.largest", "ReduceMax", [x], axes=[-1], keepdims=1)
        size = self.add(f"{name}.size", "Max", [largest, self.tensor(f"{name}.least")])
        even = self.add(f"{name}.even", "Div", [x, size])
        product = self.add(f"{name}.product", "DynamicQuantizeMatMul", [even, values, scale], CONTRIB)
        return self.add(name, "Add", [self.add(f"{name}.sized", "Mul", [product, size]), bias])

    def _blocks_of_int4(self, name: str, packed: str, axis: int, shape: list[int]) -> str:
        """Bytes -> float32 numbers from -8 to 7, twice as many along an axis, in this shape."""
        both = self.add(f"{name}.bytes", "Cast", [packed], to=TensorProto.FLOAT)
        shifted = self.add(f"{name}.shifted", "Mul", [both, self.constant("sixteenth", 1 / 16, np.float32)])
        high = self.add(f"{name}.high", "Floor", [shifted])
        upper = self.add(f"{name}.upper", "Mul", [high, self.constant("sixteen", 16, np.float32)])
        low = self.add(f"{name}.low", "Sub", [both, upper])
        joined = self.add(f"{name}.halves", "Concat", [low, high], axis=axis)
        numbers = self.add(f"{name}.numbers", "Sub", [joined, self.constant("eight", -LOWEST, np.float32)])
        return self.add(f"{name}.blocks", "Reshape", [numbers, self._shape(shape)])

    def _shape(self, shape: list[int]) -> str:
        return self.constant("shape." + ".".join(map(str, shape)), shape)

    def embedding(self, name: str, ids: str) -> str:
        """An embedding, ids [rows, width] -> [rows, width, size]; only what is looked up becomes float32."""
        tensors, weight = self.weights.tensors, self.weights.tensors[f"{name}.weight"]

        def looked(part: str, value: str) -> str:
            return self.add(part, "Gather", [self.tensor(value), ids])

        def wide(part: str, rows: str) -> str:
            return self.add(f"{name}.{part}", "Cast", [rows], to=TensorProto.FLOAT)

        if f"{name}.scale" not in tensors:
            return looked(name, f"{name}.weight")
        if f"{name}.steps" not in tensors:
            values = wide("wide", looked(f"{name}.rounded", f"{name}.weight"))
            return self.add(name, "Mul", [values, looked(f"{name}.step", f"{name}.scale")])
        size, blocks = 2 * weight.shape[1], tensors[f"{name}.steps"].shape[1]
        packed = looked(f"{name}.packed", f"{name}.weight")
        numbers = self._blocks_of_int4(name, packed, -1, [0, 0, blocks, size // blocks])
        parts = [wide(f"{part}.wide", looked(f"{name}.{part}.rows", f"{name}.{part}")) for part in ("steps", "scale")]
        scaled = self.add(f"{name}.scaled", "Mul", [numbers, self.add(f"{name}.step", "Mul", parts)])
        return self.add(name, "Reshape", [scaled, self._shape([0, 0, size])])

    def adapted(self, layer: int, target: str, x: str) -> str:
        """A linear layer with its low-rank update, [n, inputs] -> [n, outputs]."""
        place, name = f"{layer}.{target}", f"layers.{layer}.{target}"
        y = self.linear(name, x)
        if place not in self.shapes:
            return y
        a, b = f"lora.{place}.a", f"lora.{place}.b"
        if self.form != "bank":
            return self.add(f"{name}.adapted", "Gemm", [self.add(f"{name}.narrow", "MatMul", [x, a]), b, y])
        inputs, outputs = self.shapes[place]
        chosen = [self.add(f"{name}.chosen.{s}", "Gather", [v, "adapter_ids"]) for s, v in (("a", a), ("b", b))]
        narrow = self.add(f"{name}.narrow", "MatMul", [self.rows(f"{name}.input", x, inputs), chosen[0]])
        update = self.add(f"{name}.update", "MatMul", [narrow, chosen[1]])
        return self.add(f"{name}.adapted", "Add", [y, self.matrix(f"{name}.flat", update, outputs)])

    def attended(self, name: str, parts: Sequence[str]) -> str:
        """Attention of query, key and value, each [rows, width, hidden], to the tokens that are no padding."""
        heads, masked = self.config.n_heads, [*parts, "", "mask.keys"]
        self.add("mask.keys", "Cast", ["mask"], to=TensorProto.INT32)
        if self.attention == "portable":
            return self.add(name, "MultiHeadAttention", masked, CONTRIB, num_heads=heads)
        least = self.add("mask.least", "ReduceMin", ["mask"], keepdims=0)
        self.add("mask.full", "Greater", [least, self.constant("half", 0.5, np.float32)])
        branches = []
        for value, inputs in ((f"{name}.yes", parts), (f"{name}.no", masked)):
            node = helper.make_node("MultiHeadAttention", inputs, [value], value, domain=CONTRIB, num_heads=heads)
            output = helper.make_tensor_value_info(value, TensorProto.FLOAT, ["rows", "width", self.config.hidden_size])
            branches.append(helper.make_graph([node], value, [], [output]))
        return self.add(name, "If", ["mask.full"], then_branch=branches[0], else_branch=branches[1])

    def rows(self, name: str, x: str, size: int) -> str:
        """[rows * width, size] -> [rows, width, size]; the value `size` [2] has rows and width."""
        shape = self.add(f"shape.{size}", "Concat", ["size", self.constant(f"size.{size}", [size])], axis=0)
        return self.add(name, "Reshape", [x, shape])

    def matrix(self, name: str, x: str, size: int) -> str:
        """[..., size] -> [n, size]."""
        return self.add(name, "Reshape", [x, self.constant(f"matrix.{size}", [-1, size])])

    def normalised(self, name: str, x: str) -> str:
        """Layer normalisation over the last axis."""
        inputs = [x, self.tensor(f"{name}.weight"), self.tensor(f"{name}.bias")]
        return self.add(name, "LayerNormalization", inputs, axis=-1, epsilon=self.config.norm_eps)

    def activated(self, name: str, x: str) -> str:
        """The encoder's activation."""
        kind = self.config.activation
        if kind in _GELU:
            return self.add(name, _GELU[kind], [x], CONTRIB)
        if kind == "silu":
            return self.add(name, "Mul", [x, self.add(f"{name}.gate", "Sigmoid", [x])])
        return self.add(name, "Relu", [x])

    def embeddings(self) -> str:
        """Inputs `ids` and `mask` [rows, width] -> normalised embeddings [rows * width, hidden]."""
        summed = self.add("embeddings.sum", "Add", [self.embedding("embeddings.word", "ids"), self._positions()])
        flat = self.matrix("embeddings.flat", summed, self.config.embedding_size)
        x, project = self.normalised("embeddings.norm", flat), "embeddings.project"
        return self.linear(project, x) if f"{project}.weight" in self.weights.tensors else x

    def _positions(self) -> str:
        name, offset = "embeddings.position", self.config.position_offset
        values = self.tensor(f"{name}.weight")
        if not offset:
            zero, axis = self.constant("zero", [0]), self.constant("axis.0", [0])
            return self.add(name, "Slice", [values, zero, self.add("width", "Shape", ["ids"], start=1, end=2), axis])
        # RoBERTa counts the tokens before each one; padding has the row of its id.
        real = self.add("positions.real", "Cast", ["mask"], to=TensorProto.INT64)
        counts = self.add("positions.counts", "CumSum", [real, self.constant("axis.1", 1)])
        inside = self.add("positions.inside", "Mul", [counts, real])
        first = self.constant("positions.first", [offset - 1])
        return self.add(name, "Gather", [values, self.add("positions", "Add", [inside, first])])

    def layer(self, number: int, x: str) -> str:
        """A transformer layer, [rows * width, hidden] states to states."""
        hidden, name = self.config.hidden_size, f"layers.{number}"
        fused = self.rows(f"{name}.qkv.rows", self.adapted(number, "qkv", x), 3 * hidden)
        parts = [f"{name}.{part}" for part in ("query", "key", "value")]
        self.add(parts, "Split", [fused], axis=-1)
        context = self.matrix(f"{name}.context", self.attended(f"{name}.attention", parts), hidden)
        summed = self.add(f"{name}.attention_sum", "Add", [self.adapted(number, "out", context), x])
        x = self.normalised(f"{name}.attention_norm", summed)
        inner = self.activated(f"{name}.active", self.adapted(number, "up", x))
        summed = self.add(f"{name}.output_sum", "Add", [self.adapted(number, "down", inner), x])
        return self.normalised(f"{name}.output_norm", summed)

    def trunk(self) -> str:
        """Inputs `ids` and `mask` -> the states that enter the branch, [rows * width, hidden]."""
        x = self.embeddings()
        self.add("size", "Shape", ["ids"])
        for number in range(self.weights.fork):
            x = self.layer(number, x)
        return x

    def branch(self, x: str, weight: str, bias: str) -> None:
        """The branch, from the states at the fork, [rows * width, hidden], with its pooling and head.

        Adds `features` [rows, units, hidden], the pooled mean of what the branch's layers give, or of the states at the
        fork where there are no such layers, and `logits` [rows, units, labels].
        """
        numbers, states = range(self.weights.fork, self.config.n_layers), [x]
        for number in numbers:
            states.append(self.layer(number, states[-1]))
        total, *others = states[1:] or states
        for number, other in zip(numbers[1:], others, strict=True):
            total = self.add(f"layers.{number}.sum", "Add", [total, other])
        pool = "pool"
        if others:
            # Of the sum, the shares and the features, which could all be divided, the shares are fewest.
            pool = self.add("pool.mean", "Mul", [pool, self.constant("pool.share", 1 / len(numbers), np.float32)])
        self.add("features", "MatMul", [pool, self.rows("states.sum", total, self.config.hidden_size)])
        self.add("logits", "Add", [self.add("head", "MatMul", ["features", weight]), bias])

    def model(self, part: str, doc: str, **facts: str) -> bytes:
        """The finished model, serialised, with what it belongs to and `facts` as its metadata."""
        constants = list(self._constants.values())
        size = sum(len(tensor.raw_data) for tensor in constants)
        if size > MAX_BYTES - 2**20:
            most = "less than 2 GiB, the most that one ONNX file can hold"
            raise TrunklineError(f"weights of {size / 2**30:.2f} GiB in {part}", expected=most, todo="Quantise them")
        graph = helper.make_graph(self._nodes, part, self._inputs, self._outputs, constants, doc_string=doc)
        opsets = [helper.make_opsetid("", OPSET), helper.make_opsetid(CONTRIB, 1)]
        about = {"ir_version": IR_VERSION, "producer_name": "trunkline", "doc_string": doc}
        model = helper.make_model(graph, opset_imports=opsets, **about)
        sizes = ("model_type", "hidden_size", "intermediate_size", "n_layers", "n_heads", "max_length", "pad_id")
        known = {name: str(getattr(self.config, name)) for name in (*sizes, "activation")}
        own = {"attention": self.attention, "format": str(FORMAT), "part": part, "backbone": self.weights.hash}
        known |= {**self.weights.facts, **own, "fork": str(self.weights.fork), **facts}
        helper.set_model_props(model, dict(sorted(known.items())))
        return bytes(model.SerializeToString(deterministic=True))


def trunk_graph(weights: BackboneWeights, attention: Attention = "portable") -> bytes:
    """Embeddings and the layers below the fork, which all tasks share; gives the states that enter the next one."""
    graph, hidden = EncoderGraph(weights, attention), weights.config.hidden_size
    graph.inputs("ids", "mask")
    graph.rows("hidden", graph.trunk(), hidden)
    graph.output("hidden", ["rows", "width", hidden], f"states that enter layer {weights.fork}")
    return graph.model("trunk", "The layers of an encoder that all tasks share")


def branch_graph(
    weights: BackboneWeights,
    form: Form = "optional",
    lora_targets: Sequence[str] = DEFAULT_LORA_TARGETS,
    attention: Attention = "portable",
) -> bytes:
    """The layers from the fork up, with adapters and the head as inputs of any rank and any number of labels.

    What is not fed to an `optional` graph has rank 0 or no labels, which is the backbone as it is; a `required` one
    must be fed everything, rank 0 included. The LoRA inputs of a `bank` have a leading axis of adapters, `adapter_ids`
    [rows] says which one a row has, all rows have the same head, and everything must be fed. LoRA inputs are at the
    `lora_targets`: `qkv`, which has one for all three, `out`, `up` or `down`. Raises MismatchError for others.
    """
    config, layers, hidden = weights.config, range(weights.fork, weights.config.n_layers), weights.config.hidden_size
    graph = EncoderGraph(weights, attention)
    graph.input("hidden", ["rows", "width", hidden], "states from the trunk")
    graph.inputs("mask", "pool")
    if form == "bank":
        graph.input("adapter_ids", ["rows"], "the adapter of each row")
    graph.adapter_inputs(form, lora_shapes(layers, hidden, config.intermediate_size, lora_targets))
    graph.add("size", "Shape", ["mask"])
    graph.branch(graph.matrix("states", "hidden", hidden), "head.weight", "head.bias")
    graph.output("features", ["rows", "units", hidden], "mean over the branch's layers of the units' mean states")
    graph.output("logits", ["rows", "units", "labels"], "outputs of the head")
    targets = ",".join(target for target in lora_targets if layers)
    doc = "The layers of an encoder that belong to one task or family"
    return graph.model("branch", doc, adapters=form, lora_targets=targets)
