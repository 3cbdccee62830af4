"""What linear layers receive on real text, by which `engine.rounding` moves outliers from inputs into weights."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from trunkline.encoder.batch import TokenBatch
from trunkline.encoder.encoder import Encoder
from trunkline.encoder.lora import Deltas
from trunkline.errors import MismatchError, TrunklineError
from trunkline.export.weights import PROJECT, FloatArray
from trunkline.text.packing import ROW_WIDTH, by_budget, pack, text_unit
from trunkline.text.tokens import TextTokenizer

BUDGET = 2048
"""Tokens a batch."""

_MODULES = ("out", "up", "down")
"""Linear layers that are called as modules; query, key and value receive what their transformer layer does."""


@dataclass(frozen=True, slots=True)
class Calibration:
    """What was seen of the inputs of linear layers, by the names of `plan.linear_layers`.

    Attributes:
        largest: The largest absolute value of each channel, [inputs].
        moments: Mean products of pairs of channels, [inputs, inputs]; empty unless they were asked for.
        tokens: Tokens that were read.
    """

    largest: Mapping[str, FloatArray]
    moments: Mapping[str, FloatArray]
    tokens: int

    def of(self, name: str, inputs: int) -> FloatArray:
        """The largest values of a layer's inputs; raises MismatchError if they are not known."""
        found = self.largest.get(name, np.zeros(0, np.float32))
        if len(found) != inputs:
            raise MismatchError(
                f"the calibration knows {len(found)} inputs of {name}",
                expected=f"its {inputs} inputs",
                todo="Calibrate with the encoder that is quantised",
            )
        return found


@torch.inference_mode()
def calibrate(
    encoder: Encoder,
    tokenizer: TextTokenizer,
    texts: Sequence[str],
    adapters: Sequence[Deltas] = (),
    *,
    moments: bool = False,
) -> Calibration:
    """Runs texts through an encoder and keeps what its linear layers receive.

    Args:
        encoder: The encoder in float32; it is not changed.
        tokenizer: Its tokenizer.
        texts: Such as the device will read; a hundred or two of different kinds are enough.
        adapters: Every text is read without an adapter and through each of these, as all of them change what layers
            from the fork up receive.
        moments: Whether to keep mean products of channels, with which 4-bit weights are rounded better.

    Raises:
        TrunklineError: There is no token in the texts.
    """
    units = [text_unit(tokens) for tokens in tokenizer.encode(texts)]
    if not any(unit.size > 2 * len(unit.sizes) for unit in units):
        raise TrunklineError(
            f"{len(texts)} texts without any token for calibration",
            expected="real text of the kind that will be read",
            todo="Give a file of texts, one a line",
        )
    seen: dict[str, _Seen] = {}
    real: list[Tensor] = []

    def look(name: str, value: Tensor) -> None:
        rows = value.reshape(-1, value.shape[-1])[real[0]].float()
        seen.setdefault(name, _Seen(rows.shape[1], moments)).add(rows)

    was_training = encoder.training
    encoder.eval()
    with _watched(encoder, look):
        for chosen in by_budget(units, BUDGET):
            packed = pack([units[i] for i in chosen], encoder.config.pad_id, ROW_WIDTH)
            batch = TokenBatch.from_packed(packed, next(encoder.parameters()).device)
            real[:] = [batch.segments.reshape(-1) >= 0]
            hidden = encoder.trunk(batch)
            for adapter in (None, *adapters):
                encoder.branch(hidden, batch, adapter)
    encoder.train(was_training)
    products = {name: (item.products, max(1, item.count)) for name, item in seen.items()}
    return Calibration(
        {name: item.largest.numpy() for name, item in seen.items()},
        {name: (total / count).numpy() for name, (total, count) in products.items() if total is not None},
        sum(unit.size for unit in units),
    )


class _Seen:
    def __init__(self, inputs: int, moments: bool) -> None:
        self.largest = torch.zeros(inputs)
        self.products = torch.zeros(inputs, inputs) if moments else None
        self.count = 0

    def add(self, rows: Tensor) -> None:
        self.largest = torch.maximum(self.largest, rows.abs().amax(dim=0).cpu())
        if self.products is not None:
            self.products += (rows.T @ rows).cpu()
        self.count += len(rows)


@contextmanager
def _watched(encoder: Encoder, look: Callable[[str, Tensor], None]) -> Iterator[None]:
    """While this lasts, `look` is given the input of every linear layer, [..., inputs]."""

    def hook(name: str) -> Callable[[nn.Module, tuple[Any, ...]], None]:
        return lambda module, inputs: look(name, inputs[0])

    modules: dict[str, nn.Module] = {}
    for number, layer in enumerate(encoder.layers):
        modules |= {f"layers.{number}.qkv": layer, **{f"layers.{number}.{m}": getattr(layer, m) for m in _MODULES}}
    if encoder.embeddings.project is not None:
        modules[PROJECT] = encoder.embeddings.project
    handles = [module.register_forward_pre_hook(hook(name)) for name, module in modules.items()]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()
