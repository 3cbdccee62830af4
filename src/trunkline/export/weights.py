"""A backbone as graphs are made of it, as it is or rounded: its tensors by the names of the graphs' constants.

A weight in 4 bits is a whole number from -8 to 7 times a step that a block of inputs shares. A block's step is itself a
whole number of eighths of the output's 8-bit step, so that a weight in 4 bits is at once one in 8 bits, and can be
computed with as such: `values = round(numbers * steps / 8)`, to be multiplied by `scale`. Errors of earlier inputs are
taken up by later ones.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from functools import partial
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn

from trunkline.encoder.architectures import EncoderConfig, weights_hash
from trunkline.encoder.encoder import Encoder
from trunkline.encoder.lora import Deltas
from trunkline.encoder.storage import encoder_arrays
from trunkline.engine.rounding import Arrays, FloatArray, Int8Array, graph_tensors, round_linear_layers, round_table
from trunkline.errors import EncoderError, TrunklineError
from trunkline.text.tokens import TextTokenizer, by_budget, text_unit


@dataclass(frozen=True, slots=True)
class BackboneWeights:
    """All that a graph needs of an encoder: its sizes, its fork, its hash and its tensors.

    `tensors` has `embeddings.word`, `.position`, `.norm` and `.project`, and for each layer `layers.N.qkv` (query, key
    and value side by side), `.out`, `.up`, `.down`, `.attention_norm` and `.output_norm`, each with `.weight` ([inputs,
    outputs] of a linear layer) and mostly `.bias`; rounded ones are as `quantised` leaves them. `facts` is what readers
    of a graph should know of them.
    """

    config: EncoderConfig
    fork: int
    hash: str
    tensors: Mapping[str, npt.NDArray[Any]]
    facts: Mapping[str, str] = field(default_factory=lambda: {"weights": "float32"})


def take_weights(encoder: Encoder) -> BackboneWeights:
    """The weights of an encoder; raises EncoderError where one is not finite."""
    tensors = encoder_arrays(encoder)
    wrong = [name for name, tensor in tensors.items() if not np.isfinite(tensor).all()]
    if wrong:
        given = f"{len(wrong)} weights have values that are not finite, the first is {wrong[0]}"
        raise EncoderError(given, expected="finite weights", todo="Load it again, or take an earlier checkpoint")
    return BackboneWeights(encoder.config, encoder.fork, weights_hash(encoder.config, tensors), graph_tensors(tensors))


def shorten_positions(weights: BackboneWeights, max_length: int) -> BackboneWeights:
    """A backbone without the positions behind a window of `max_length` tokens, which nothing ever reads."""
    end, name = max_length + weights.config.position_offset, "embeddings.position.weight"
    config = dataclasses.replace(weights.config, max_positions=end)
    return dataclasses.replace(weights, config=config, tensors={**weights.tensors, name: weights.tensors[name][:end]})


@dataclass(frozen=True, slots=True)
class Calibration:
    """The inputs of linear layers, by the names of the graphs, on so many tokens of real text.

    `largest` has the largest absolute value of each channel, [inputs], `moments`, where they were asked for, the mean
    products of pairs of channels, [inputs, inputs].
    """

    largest: Mapping[str, FloatArray]
    moments: Mapping[str, FloatArray]
    tokens: int


@torch.inference_mode()
def calibrate(
    encoder: Encoder,
    tokenizer: TextTokenizer,
    texts: Sequence[str],
    adapters: Sequence[Deltas] = (),
    moments: bool = False,
) -> Calibration:
    """Runs texts through an encoder in float32 and in evaluation mode, and keeps what its linear layers receive.

    A hundred or two texts such as the device will read are enough; each is read without an adapter and through each of
    `adapters`. With `moments`, the mean products of channels are kept, by which 4-bit weights are rounded better.
    """
    units = [text_unit(tokens) for tokens in tokenizer.encode(texts)]
    # Query, key and value receive what their transformer layer does.
    project = encoder.embeddings.project
    watched: dict[str, nn.Module] = {} if project is None else {"embeddings.project": project}
    for number, layer in enumerate(encoder.layers):
        watched[f"layers.{number}.qkv"] = layer
        watched |= {f"layers.{number}.{name}": layer.get_submodule(name) for name in ("out", "up", "down")}
    largest: dict[str, Tensor] = {}
    products: dict[str, Tensor] = {}
    counts: dict[str, int] = {}

    def look(name: str, module: nn.Module, inputs: tuple[Any, ...]) -> None:
        rows = inputs[0].reshape(-1, inputs[0].shape[-1])[real].float()
        most = rows.abs().amax(dim=0).cpu()
        largest[name] = torch.maximum(largest.get(name, most), most)
        counts[name] = counts.get(name, 0) + len(rows)
        if moments:
            products[name] = products.get(name, 0) + (rows.T @ rows).cpu()

    with ExitStack() as hooks:
        for name, module in watched.items():
            hooks.enter_context(module.register_forward_pre_hook(partial(look, name)))
        for chosen in by_budget(units, 2048):
            batch = encoder.batch([units[i] for i in chosen])
            real = batch.segments.reshape(-1) >= 0
            hidden = encoder.trunk(batch)
            for adapter in (None, *adapters):
                encoder.branch(hidden, batch, adapter)
    means = {name: (total / counts[name]).numpy() for name, total in products.items()}
    return Calibration({name: most.numpy() for name, most in largest.items()}, means, sum(unit.size for unit in units))


Scheme = Literal["float32", "int8", "int4"]
"""`int8`: a step for each output of a layer or row of the embedding; inputs of layers in 8 bits with one step a run.
`int4`: a step for each block of weights; layers are unpacked to int8 when the graph is loaded, and then as fast as
int8, the embedding where it is looked up."""


@dataclass(frozen=True, slots=True)
class Plan:
    """How a backbone is quantised: the scheme of linear layers and that of the word embedding.

    `alpha` is how much of the spread of inputs goes over to weights (Xiao et al. 2023, arXiv 2211.10438, equation 4).
    The inputs of layers of the kinds `per_token` have a step for each token in place of one a run: it pays for `down`,
    whose inputs differ most from token to token, and costs four small nodes. `block` weights share a step in 4 bits.
    """

    linear: Scheme = "int8"
    embedding: Scheme = "int8"
    alpha: float = 0.8
    per_token: tuple[str, ...] = ("down",)
    block: int = 32

    def facts(self) -> dict[str, str]:
        """What readers of a model find in its metadata."""
        found: dict[str, str] = {"weights": self.linear, "embedding": self.embedding}
        if self.linear != "float32":
            found |= {"smoothing": f"{self.alpha:g}", "per_token": ",".join(self.per_token)}
        return found | ({"block": str(self.block)} if "int4" in found.values() else {})


PLANS = {"float32": Plan("float32", "float32"), "int8": Plan(), "int4": Plan("int4", "int4")}


def quantised(weights: BackboneWeights, plan: Plan, calibration: Calibration) -> BackboneWeights:
    """A backbone with the tensors of a plan; see `trunkline.engine.rounding`.

    Smoothing costs a node that divides the inputs of a layer, except where the layer that makes these inputs can do it.
    """

    def in_4_bits(name: str, weight: FloatArray, smooth: FloatArray) -> Arrays:
        moments = calibration.moments.get(name)
        even = None if moments is None else moments / np.outer(smooth, smooth)
        return int4_linear(name, weight, plan.block, even)

    tensors, name = dict(weights.tensors), "embeddings.word"
    if plan.linear != "float32":
        rounded = in_4_bits if plan.linear == "int4" else None
        largest = calibration.largest
        tensors = round_linear_layers(weights.tensors, weights.fork, largest, plan.alpha, plan.per_token, rounded)
    if plan.embedding == "int8":
        tensors |= round_table(name, weights.tensors[f"{name}.weight"])
    elif plan.embedding == "int4":
        tensors |= int4_table(name, weights.tensors[f"{name}.weight"], plan.block)
    return dataclasses.replace(weights, tensors=tensors, facts=plan.facts())


LOWEST, HIGHEST, MOST = -8, 7, 127
"""Whole numbers in 4 bits, and the largest in 8."""

FRACTIONS = 8
"""Parts of an 8-bit step in which a block's step is counted."""

SHRINK = np.linspace(0.7, 1.1, 17, dtype=np.float32)
"""Block steps that are tried, as shares of the one that just reaches the largest weight."""

DAMPING = 0.01
"""Share of the mean square of inputs that is added to each, as Frantar et al. 2023 do, so that it can be inverted."""


def packed(numbers: Int8Array, axis: int) -> npt.NDArray[np.uint8]:
    """Two numbers a byte: the first half of an axis in the lower bits, the second half in the upper ones."""
    low, high = np.split((numbers - LOWEST).astype(np.uint8), 2, axis=axis)
    return np.asarray(low | (high << 4), np.uint8)


def int4_linear(name: str, weight: FloatArray, block: int, moments: FloatArray | None = None) -> Arrays:
    """Rounds a linear weight [inputs, outputs] to 4 bits, with a step for `block` inputs, or a divisor of their number.

    With the mean products of inputs, `moments` [inputs, inputs], the error of each input is made up for by the inputs
    behind it (GPTQ: Frantar, Ashkboos, Hoefler and Alistarh 2023, arXiv 2210.17323, algorithm 1). Gives `.weight`
    packed along the inputs, `.steps` [inputs / block, 1, outputs] and `.scale` [outputs]. Raises TrunklineError for an
    odd number of inputs, which 4 bits cannot hold in bytes.
    """
    inputs = len(weight)
    block = _block(inputs, block, "a linear layer")
    blocks = weight.reshape(-1, block, weight.shape[1])
    scale = np.abs(_best_steps(blocks)).max(axis=0) * (-LOWEST / MOST)
    scale = np.where(scale > 0, scale, 1).astype(np.float32)
    carry = _carry(moments) if moments is not None else np.eye(inputs, dtype=np.float32)
    rest = weight.astype(np.float32)
    numbers = np.zeros(weight.shape, np.int8)
    taken = np.zeros((inputs // block, weight.shape[1]), np.int8)
    for number, begin in enumerate(range(0, inputs, block)):
        end = begin + block
        ideal = _best_steps(rest[None, begin:end])[0]
        whole = np.clip(np.rint(ideal / scale * FRACTIONS), -MOST, MOST)
        taken[number] = np.where(whole == 0, 1, whole)
        errors = np.zeros((block, weight.shape[1]), np.float32)
        step = taken[number].astype(np.float32) / FRACTIONS
        for place in range(begin, end):
            nearest = np.clip(np.rint(rest[place] / (step * scale)), LOWEST, HIGHEST)
            numbers[place] = nearest
            errors[place - begin] = (rest[place] - np.rint(nearest * step) * scale) / carry[place, place]
            rest[place + 1 : end] -= carry[place, place + 1 : end, None] * errors[place - begin]
        rest[end:] -= carry[begin:end, end:].T @ errors
    return {f"{name}.weight": packed(numbers, 0), f"{name}.steps": taken[:, None], f"{name}.scale": scale}


def _block(size: int, most: int, what: str) -> int:
    """The largest divisor of an even size that is at most `most`."""
    if size % 2:
        raise TrunklineError(f"{what} of width {size} in 4 bits", expected="an even width", todo="Choose int8")
    return next(number for number in range(min(size, most), 0, -1) if size % number == 0)


def _best_steps(blocks: FloatArray) -> FloatArray:
    """[blocks, block, outputs] -> the steps [blocks, outputs] with the least squared error.

    There is one more number below zero than above; a negative step puts it on the side of the largest weight.
    """
    place = np.abs(blocks).argmax(axis=1, keepdims=True)
    full = np.take_along_axis(blocks, place, axis=1) / np.float32(LOWEST)
    full = np.where(full == 0, np.float32(1e-12), full)
    best, least = full, np.full(full.shape, np.inf, np.float32)
    for share in SHRINK:
        step = full * share
        found = np.clip(np.rint(blocks / step), LOWEST, HIGHEST) * step
        error = np.square(blocks - found).sum(axis=1, keepdims=True)
        best, least = np.where(error < least, step, best), np.minimum(error, least)
    return np.asarray(best[:, 0], np.float32)


def _carry(moments: FloatArray) -> FloatArray:
    """The upper triangle U with U^T U the inverse of the damped moments (step 1 of the algorithm)."""
    damped = moments.astype(np.float64)
    mean = float(np.diag(damped).mean()) or 1.0
    damped[np.diag_indices_from(damped)] += DAMPING * mean
    return np.asarray(np.linalg.cholesky(np.linalg.inv(damped)).T, np.float32)


def int4_table(name: str, table: FloatArray, block: int) -> Arrays:
    """Rounds an embedding [rows, size] to 4 bits in blocks of at most `block` numbers.

    Gives `.weight` packed along the size, `.steps` [rows, blocks, 1] and `.scale` [rows, 1, 1] in float16. Raises
    TrunklineError for an odd size, or values beyond what float16 can hold.
    """
    block = _block(table.shape[1], block, "an embedding")
    if np.abs(table).max(initial=0) > np.finfo(np.float16).max:
        raise TrunklineError("an embedding with values beyond the range of float16", todo="Choose int8")
    blocks = np.ascontiguousarray(table.reshape(len(table), -1, block).transpose(1, 2, 0))
    ideal = _best_steps(blocks).T
    scale = np.maximum(np.abs(ideal).max(axis=1) / 127, np.finfo(np.float16).tiny).astype(np.float16)
    whole = np.clip(np.rint(ideal / scale[:, None].astype(np.float32)), -127, 127)
    steps = np.where(whole == 0, 1, whole).astype(np.int8)
    step = np.repeat(steps * scale[:, None].astype(np.float32), block, axis=1)
    numbers = np.clip(np.rint(table / step), LOWEST, HIGHEST).astype(np.int8)
    found: Arrays = {f"{name}.weight": packed(numbers, 1), f"{name}.steps": steps[:, :, None]}
    return found | {f"{name}.scale": scale[:, None, None]}
