"""The torch engine: the same passes as the graphs', by the encoder in PyTorch."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial

import torch
from torch import Tensor

from trunkline.bundle.manifest import LORA_TARGETS, Inputs
from trunkline.encoder.encoder import Encoder, FeatureRequest, branch_features
from trunkline.encoder.lora import Delta, Deltas
from trunkline.engine.base import Branch, Logits
from trunkline.text.tokens import Tokens


class TorchEngine:
    """See `trunkline.engine.base.Engine`; runs where the encoder's weights are."""

    name = "torch"

    def __init__(self, encoder: Encoder) -> None:
        self.encoder = encoder

    def run(self, texts: Sequence[Tokens], wanted: Sequence[Sequence[Branch]], *, mixed: bool = False) -> Logits:
        """See `Engine`; the branches that the same texts want, in the same windows, share the trunk."""
        groups: dict[tuple[str, tuple[int, ...]], list[Branch]] = {}
        for branch in dict.fromkeys(branch for branches in wanted for branch in branches):
            numbers = tuple(number for number, branches in enumerate(wanted) if branch in branches)
            groups.setdefault((branch.layout, numbers), []).append(branch)
        found: Logits = {}
        for (_, numbers), branches in groups.items():
            passes = [FeatureRequest([b.units_of(texts[n]) for n in numbers], _deltas(b.lora)) for b in branches]
            for branch, features in zip(branches, branch_features(self.encoder, passes), strict=True):
                for number, part in zip(numbers, features, strict=True):
                    found[number, branch] = part @ branch.heads["head.weight"] if branch.tasks else part
        return found


def _deltas(inputs: Inputs) -> Deltas | None:
    """An adapter from inputs, whose query, key and value share a pair: each takes its columns of `b`."""
    layers: dict[int, dict[str, Delta]] = {}
    for name in [name for name in inputs if name.endswith(".a")]:
        _, layer, place, _ = name.split(".")
        a, b = torch.from_numpy(inputs[name]), torch.from_numpy(inputs[f"lora.{layer}.{place}.b"])
        for target, columns in zip(LORA_TARGETS[place], b.chunk(len(LORA_TARGETS[place]), 1), strict=True):
            layers.setdefault(int(layer), {})[target] = partial(_added, a, columns)
    return (lambda index: layers.get(index, {})) if layers else None


def _added(a: Tensor, b: Tensor, x: Tensor, y: Tensor) -> Tensor:
    return y + x @ a.to(x) @ b.to(x)
