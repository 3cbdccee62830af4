"""The torch engine: the same passes as the graphs', by the encoder in PyTorch."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial

import torch
from torch import Tensor

from trunkline.bundle.lora import LORA_TARGETS, Inputs
from trunkline.encoder.encoder import Encoder
from trunkline.encoder.features import Branch as TorchBranch
from trunkline.encoder.features import branch_features
from trunkline.encoder.lora import Delta
from trunkline.engine.base import PLANS, Branch, Logits
from trunkline.engine.rows import ReadText
from trunkline.text.tokens import UnitText


class TorchEngine:
    """See `trunkline.engine.base.Engine`; runs where the encoder's weights are."""

    name = "torch"

    def __init__(self, encoder: Encoder) -> None:
        self.encoder = encoder
        self._adapters: dict[int, tuple[Inputs, _Fused]] = {}

    def forget_adapters(self) -> None:
        """See `Engine`."""
        self._adapters = {}

    def run(self, texts: Sequence[ReadText], wanted: Sequence[Sequence[Branch]], *, mixed: bool = False) -> Logits:
        """See `Engine`; each branch runs for itself over the texts that want it."""
        found: Logits = {}
        for layout in sorted({branch.layout for branches in wanted for branch in branches}):
            chosen = dict.fromkeys(b for branches in wanted for b in branches if b.layout == layout)
            groups: dict[tuple[int, ...], list[Branch]] = {}
            for branch in chosen:
                numbers = tuple(number for number, branches in enumerate(wanted) if branch in branches)
                groups.setdefault(numbers, []).append(branch)
            for numbers, branches in groups.items():
                self._run_texts(numbers, texts, branches, found)
        return found

    def _run_texts(
        self, numbers: Sequence[int], texts: Sequence[ReadText], branches: Sequence[Branch], found: Logits
    ) -> None:
        units: dict[tuple[str, str], list[UnitText]] = {}
        for branch in branches:
            if branch.pooling not in units:
                units[branch.pooling] = [branch.units_of(texts[number]) for number in numbers]
        passes = [TorchBranch(units[branch.pooling], self._lora(branch.lora)) for branch in branches]
        for branch, features in zip(branches, branch_features(self.encoder, passes), strict=True):
            for number, part in zip(numbers, features, strict=True):
                found[number, branch] = part @ branch.heads["head.weight"] if branch.tasks else part

    def _lora(self, inputs: Inputs) -> _Fused | None:
        """The adapter of inputs, kept as long as these are the same object."""
        if not inputs:
            return None
        known = self._adapters.get(id(inputs))
        if known is None or known[0] is not inputs:
            if len(self._adapters) >= PLANS:
                self._adapters = {}
            known = inputs, _Fused(inputs)
            self._adapters[id(inputs)] = known
        return known[1]


class _Fused:
    """An adapter from inputs, whose query, key and value share a pair: each takes its columns of `b`."""

    def __init__(self, inputs: Inputs) -> None:
        self._layers: dict[int, dict[str, Delta]] = {}
        for name in [name for name in inputs if name.startswith("lora.") and name.endswith(".a")]:
            _, layer, place, _ = name.split(".")
            a, b = torch.from_numpy(inputs[name]), torch.from_numpy(inputs[f"lora.{layer}.{place}.b"])
            for target, columns in zip(LORA_TARGETS[place], b.chunk(len(LORA_TARGETS[place]), 1), strict=True):
                self._layers.setdefault(int(layer), {})[target] = partial(_added, a, columns)

    def layer(self, index: int) -> Mapping[str, Delta]:
        """See `trunkline.encoder.lora.Deltas`."""
        return self._layers.get(index, {})


def _added(a: Tensor, b: Tensor, x: Tensor, y: Tensor) -> Tensor:
    return y + x @ a.to(x) @ b.to(x)
