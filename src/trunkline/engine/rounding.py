"""A backbone's tensors as graphs have them, and rounded to 8 bits, on numpy alone.

In an encoder a few channels of a layer's input are far larger than the others. With one step for a whole run, 8 bits
are spent on them, and little is left for the rest. SmoothQuant (Xiao, Lin, Seznec, Wu, Demouth and Han 2023, arXiv
2211.10438) divides each channel of the input by a factor and multiplies the weights that read it by the same factor.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from typing import Any

import numpy as np
import numpy.typing as npt

from trunkline.bundle.manifest import LORA_TARGETS

FloatArray = npt.NDArray[np.float32]
Int8Array = npt.NDArray[np.int8]
Arrays = dict[str, npt.NDArray[Any]]

LEAST_CHANNEL = 1e-3
"""The least share of the largest channel that a channel counts as: one that calibration never saw must not explode."""

LEAST_TOKEN = 0.01
"""The least share of the largest input in calibration that a token is divided by: one of small or negative inputs alone
must not become an outlier."""

SMALLEST = 1e-6
"""Keeps a layer whose inputs are all zero from being divided by zero."""


def graph_tensors(tensors: Mapping[str, FloatArray]) -> dict[str, FloatArray]:
    """A backbone's tensors by their names in graphs, from those by our names.

    Weights of linear layers are transposed, [inputs, outputs]; `layers.N.qkv` has query, key and value side by side;
    the kind of segment, always the first, is added to the positions.
    """
    found = dict(tensors)
    kind = found.pop("embeddings.kind.weight", None)
    if kind is not None:
        found["embeddings.position.weight"] = found["embeddings.position.weight"] + kind[0]
    for layer in [name.removesuffix(".query.bias") for name in tensors if name.endswith(".query.bias")]:
        for part in ("weight", "bias"):
            three = [found.pop(f"{layer}.{name}.{part}") for name in LORA_TARGETS["qkv"]]
            found[f"{layer}.qkv.{part}"] = np.concatenate(three)
    return found | {f"{name}.weight": found[f"{name}.weight"].T for name in linear_layers(found)}


def linear_layers(tensors: Mapping[str, Any]) -> list[str]:
    """The names of the linear layers in a graph."""
    places = (name.rpartition(".") for name in tensors)
    return [name for name, _, part in places if part == "bias" and name.split(".")[-1] in {*LORA_TARGETS, "project"}]


def round_linear_layers(
    tensors: Mapping[str, FloatArray],
    fork: int,
    largest: Mapping[str, FloatArray],
    alpha: float,
    per_token: Collection[str],
    rounded: Callable[[str, FloatArray, FloatArray], Arrays] | None = None,
) -> Arrays:
    """The tensors of `graph_tensors` with rounded linear layers.

    A layer's inputs are multiplied by `.smooth` [inputs], and with `.least` [1] each token's are divided by the largest
    of them, or by this if it is less, before the graph rounds them. The values of attention, which `out` reads, are
    divided in advance below the `fork`; above it, LoRA inputs know nothing of the factors.

    `largest` has the largest absolute value of each input of a layer in calibration, [inputs], `alpha` is that of
    `smoothing`, and `per_token` are kinds of layers whose inputs have a step for each token. `rounded` gives, of a
    name, the smoothed weight and the factors, the tensors that replace the weight; 8 bits by default.
    """
    found: Arrays = dict(tensors)
    smooth = {name: smoothing(tensors[f"{name}.weight"], largest[name], alpha) for name in linear_layers(tensors)}
    for name, factors in smooth.items():
        layer, _, kind = name.rpartition(".")
        weight = tensors[f"{name}.weight"] * factors[:, None]
        found |= rounded(name, weight, factors) if rounded else round_linear(name, weight)
        folds = kind in ("qkv", "out") and int(layer.removeprefix("layers.")) < fork
        if folds and kind == "qkv":
            divisor = np.concatenate([np.ones(2 * len(factors), np.float32), smooth[f"{layer}.out"]])
            found |= {f"{name}.{part}": found[f"{name}.{part}"] / divisor for part in ("scale", "bias")}
        if not (folds and kind == "out") and (factors != 1).any():
            found[f"{name}.smooth"] = 1 / factors
        if kind in per_token:
            least = LEAST_TOKEN * max(float((largest[name] / factors).max()), SMALLEST)
            found[f"{name}.least"] = np.array([least], np.float32)
    return found


def round_linear(name: str, weight: FloatArray) -> Arrays:
    """A linear weight [inputs, outputs] in 8 bits, with a `.scale` for each output, [outputs]."""
    values, scale = round_int8(weight.T)
    return {f"{name}.weight": np.ascontiguousarray(values.T), f"{name}.scale": scale}


def round_table(name: str, table: FloatArray) -> Arrays:
    """An embedding [rows, size] in 8 bits, with a `.scale` for each row, [rows, 1]."""
    values, scale = round_int8(table)
    return {f"{name}.weight": values, f"{name}.scale": scale[:, None]}


def round_int8(rows: FloatArray) -> tuple[Int8Array, FloatArray]:
    """Rounds each row of a matrix [rows, size] to whole numbers up to 127, times a scale of its own, [rows]."""
    largest = np.maximum(rows.max(axis=1), -rows.min(axis=1))
    scale = np.where(largest > 0, largest / 127, 1).astype(np.float32)
    return np.rint(rows / scale[:, None]).astype(np.int8), scale


def smoothing(weight: FloatArray, largest: FloatArray, alpha: float) -> FloatArray:
    """The factor of each input channel, `max|x|^alpha / max|w|^(1 - alpha)` (equation 4), with mean logarithm 0.

    From `weight` [inputs, outputs] and the `largest` inputs of a calibration, [inputs], it gives [inputs]: inputs are
    to be divided by it, the rows of the weight to be multiplied by it. An `alpha` of 0 gives factors of 1.
    """
    if not alpha or not largest.any():
        return np.ones(len(weight), np.float32)
    inputs = np.maximum(largest, LEAST_CHANNEL * largest.max()).astype(np.float64)
    rows = np.maximum(weight.max(axis=1), -weight.min(axis=1)).astype(np.float64)
    rows = np.maximum(rows, LEAST_CHANNEL * max(rows.max(), np.finfo(np.float32).tiny))
    logarithm = alpha * np.log(inputs) - (1 - alpha) * np.log(rows)
    return np.asarray(np.exp(logarithm - logarithm.mean()), np.float32)
