"""Trunk and branch as small torch modules that LiteRT's converter turns into few operators.

Rows are converted one at a time and at fixed lengths: a phone reads one text at a time, and only fixed sizes get
LiteRT's fastest kernels. Attention is written out, because the converter's own composite is slower on a CPU.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from trunkline_lab.litert.layout import SLOTS, FloatArray, Layout

Pairs = Mapping[str, tuple[Tensor, Tensor]]
Arrays = Mapping[str, FloatArray]

MASKED = 1e4
"""Taken off the scores of padding; `exp` of it is 0 in float32."""

_ACTIVATIONS = {
    "gelu": F.gelu,
    "gelu_new": lambda x: F.gelu(x, approximate="tanh"),
    "gelu_pytorch_tanh": lambda x: F.gelu(x, approximate="tanh"),
    "relu": F.relu,
    "silu": F.silu,
}


class TransformerLayer(nn.Module):
    """A post-norm transformer layer with query, key and value as one product."""

    def __init__(self, arrays: Arrays, layout: Layout, number: int) -> None:
        super().__init__()
        self.heads = layout.n_heads
        self.activation = _ACTIVATIONS[layout.activation]
        name = f"layers.{number}"
        for slot in SLOTS:
            setattr(self, slot, _linear(arrays, f"{name}.{slot}"))
        self.attention_norm = _norm(arrays, f"{name}.attention_norm", layout.norm_eps)
        self.output_norm = _norm(arrays, f"{name}.output_norm", layout.norm_eps)

    def forward(self, x: Tensor, bias: Tensor, pairs: Pairs) -> Tensor:
        """[1, width, hidden] -> the same; `bias` [1, 1, width] is added to the scores."""
        width, hidden = x.shape[1], x.shape[2]
        size = hidden // self.heads
        # Three axes, not four: the converter then needs no copies between the products.
        fused = self._adapted("qkv", x, pairs).reshape(width, 3 * self.heads, size).transpose(0, 1)
        query, key, value = fused.split(self.heads)
        scores = (query * size**-0.5) @ key.transpose(1, 2) + bias
        context = (scores.softmax(-1) @ value).transpose(0, 1).reshape(1, width, hidden)
        x = self.attention_norm(x + self._adapted("out", context, pairs))
        inner = self.activation(self._adapted("up", x, pairs))
        return self.output_norm(x + self._adapted("down", inner, pairs))

    def _adapted(self, slot: str, x: Tensor, pairs: Pairs) -> Tensor:
        y = getattr(self, slot)(x)
        if slot not in pairs:
            return y
        a, b = pairs[slot]
        return y + (x @ a) @ b


class Trunk(nn.Module):
    """`ids` int32 and `mask` [1, width] -> `hidden` [1, width, hidden], the states at the fork."""

    def __init__(self, arrays: Arrays, layout: Layout) -> None:
        super().__init__()
        self.word = nn.Embedding.from_pretrained(_tensor(arrays["embeddings.word.weight"]))
        # Real tokens come first, so that counting them, as RoBERTa does, gives their place.
        self.register_buffer("position", _tensor(arrays["embeddings.position.weight"][layout.position_offset :]))
        self.norm = _norm(arrays, "embeddings.norm", layout.norm_eps)
        projected = "embeddings.project.weight" in arrays
        self.project = _linear(arrays, "embeddings.project") if projected else nn.Identity()
        self.layers = nn.ModuleList(TransformerLayer(arrays, layout, n) for n in range(layout.fork))

    def forward(self, ids: Tensor, mask: Tensor) -> dict[str, Tensor]:
        """See the class; the converter takes names of inputs and outputs from here."""
        position = self.get_buffer("position")[: ids.shape[1]]
        x = self.project(self.norm(self.word(ids) + position))
        bias = _bias(mask)
        for layer in self.layers:
            x = layer(x, bias, {})
        return {"hidden": x}


class Branch(nn.Module):
    """The layers from the fork up, the pooling and the head; inputs as `Layout.inputs` and `tensor_name` say."""

    def __init__(self, arrays: Arrays, layout: Layout) -> None:
        super().__init__()
        self.numbers = range(layout.fork, layout.n_layers)
        self.slots = tuple(layout.ranks)
        self.layers = nn.ModuleList(TransformerLayer(arrays, layout, n) for n in self.numbers)

    def forward(self, **given: Tensor) -> dict[str, Tensor]:
        """Returns `features` [1, units, hidden] and `logits` [1, units, labels]."""
        x, bias = given["hidden"], _bias(given["mask"])
        total = None
        for number, layer in zip(self.numbers, self.layers, strict=True):
            pairs = {s: (given[f"lora_{number}_{s}_a"], given[f"lora_{number}_{s}_b"]) for s in self.slots}
            x = layer(x, bias, pairs)
            total = x if total is None else total + x
        # What heads read is the mean of what the layers give; the shares are fewer numbers than their sum.
        features = (given["pool"] * (1 / len(self.numbers))) @ total if total is not None else given["pool"] @ x
        return {"features": features, "logits": features @ given["head_weight"] + given["head_bias"]}


def _bias(mask: Tensor) -> Tensor:
    return ((mask - 1) * MASKED)[:, None, :]


def _tensor(array: FloatArray) -> Tensor:
    return torch.from_numpy(np.ascontiguousarray(array, np.float32))


def _linear(arrays: Arrays, name: str) -> nn.Linear:
    weight, bias = arrays[f"{name}.weight"], arrays[f"{name}.bias"]
    linear = nn.Linear(*weight.shape)
    linear.weight = nn.Parameter(_tensor(weight.T), requires_grad=False)
    linear.bias = nn.Parameter(_tensor(bias), requires_grad=False)
    return linear


def _norm(arrays: Arrays, name: str, eps: float) -> nn.LayerNorm:
    norm = nn.LayerNorm(arrays[f"{name}.weight"].shape[0], eps=eps)
    norm.weight = nn.Parameter(_tensor(arrays[f"{name}.weight"]), requires_grad=False)
    norm.bias = nn.Parameter(_tensor(arrays[f"{name}.bias"]), requires_grad=False)
    return norm
