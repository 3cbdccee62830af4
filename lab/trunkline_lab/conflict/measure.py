"""Where the families' gradients collide on the parameters that they share, measured beside training.

Two gradients conflict if their cosine is negative (Yu et al. 2020, PCGrad, arXiv 2001.06782, definition 1). A cosine
near zero says nothing by itself, because gradients of small batches are mostly noise: two batches of one family may be
just as far apart. So the cosine between batches of the same family is measured too, and with it the cosine that the
gradients would have without the noise (Spearman's 1904 correction for attenuation).
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext
from itertools import combinations, product
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn

from trunkline.errors import TrainingError, TrunklineError
from trunkline.prefinetune.model import PrefinetuneModel, StepBatch
from trunkline.training import MetricsLog, write_errors

Backward = Callable[[Tensor, Sequence[nn.Parameter]], Sequence[Tensor | None]]
Array = npt.NDArray[np.float64]

WHOLE = "whole"
FILE = "conflict.jsonl"
_BLOCKS = {
    **dict.fromkeys(("query", "key", "value", "out", "attention_norm"), "attention"),
    **dict.fromkeys(("up", "down", "output_norm"), "feed-forward"),
}


def gradients(loss: Tensor, parameters: Sequence[nn.Parameter]) -> Sequence[Tensor | None]:
    """The gradient of a loss for each parameter, none where it has no part in the loss; `.grad` stays as it is."""
    return torch.autograd.grad(loss, list(parameters), allow_unused=True)


def shared_parameters(encoder: nn.Module) -> tuple[list[nn.Parameter], dict[str, list[int]]]:
    """The trained parameters of the backbone, which every family's gradient reaches.

    Args:
        encoder: Its parameters that are frozen are left out.

    Returns:
        The parameters, and which of them belong to each group by their index: `embeddings`, `layer-0`,
        `layer-0/attention`, `layer-0/feed-forward` and so on, and `whole` for all.
    """
    parameters: list[nn.Parameter] = []
    groups: dict[str, list[int]] = {}
    for name, parameter in encoder.named_parameters():
        if not parameter.requires_grad:
            continue
        part, _, rest = name.partition(".")
        number, _, rest = rest.partition(".")
        names = [WHOLE]
        if part == "embeddings":
            names.append(part)
        elif part == "layers" and number.isdigit():
            names.append(f"layer-{number}")
            if block := _BLOCKS.get(rest.partition(".")[0]):
                names.append(f"layer-{number}/{block}")
        for group in names:
            groups.setdefault(group, []).append(len(parameters))
        parameters.append(parameter)
    return parameters, {**{name: groups[name] for name in groups if name != WHOLE}, WHOLE: groups.get(WHOLE, [])}


def measure_conflict(
    model: PrefinetuneModel,
    batches: Sequence[Mapping[str, StepBatch]],
    *,
    bf16: bool,
    weights: Mapping[str, float] | None = None,
    backward: Backward = gradients,
) -> dict[str, Any]:
    """Compares the families' gradients on the shared backbone, with the primary adapters and with them taken out.

    The losses are those of training, without dropout and without masked-LM anchors. Afterwards parameters, `.grad`,
    modes and torch's random state are as before. At most one gradient more than there are families is in memory at a
    time (two, while the parts of a batch of several chunks are added up).

    Args:
        model: What is trained, not wrapped for several processes.
        batches: For each of at least two draws, one batch of each of at least two families.
        bf16: Whether to compute in bf16 by autocast, as in training.
        weights: Each family's factor on its loss, 1 by default; only the norm ratio depends on it.
        backward: Yields the gradients of a loss for the parameters.

    Returns:
        Plain data. `batches`, `families`, `losses` (mean losses by family, with and without adapters) and `rows`, one
        for each setting of `adapters`, pair of `families` and `group` of parameters (see `shared_parameters`): the
        number of `batches` where neither gradient is zero, and the measures that lab/docs/conflict.md lists.

    Raises:
        TrunklineError: Fewer than two families or batches, or a backbone that is not trained.
        TrainingError: A gradient that is not finite.
    """
    parameters, groups = shared_parameters(model.encoder)
    families = _families(batches, parameters)
    factors = weights or {}
    rows, losses = [], []
    device = parameters[0].device
    forked = torch.random.fork_rng([device] if device.type == "cuda" else [])
    with forked, torch.enable_grad(), as_in_training(model, model.objectives):

        def gradient(family: str, batch: StepBatch) -> tuple[float, Sequence[Tensor | None]]:
            return _gradient(model, family, batch, parameters, factors.get(family, 1.0), bf16, backward)

        for adapters in (True, False) if len(model.adapters) else (False,):
            with nullcontext() if adapters else _without_adapters(model):
                products, within, means = _products(gradient, batches, families, len(parameters))
            losses.append({"adapters": adapters, **means})
            for pair, (group, indices) in product(combinations(families, 2), groups.items()):
                chosen = {key: value[:, indices].sum(1) for key, value in products.items() if set(key) <= set(pair)}
                inner = {family: within[family][:, indices].sum(1) for family in pair}
                rows.append({"adapters": adapters, "group": group, **_statistics(pair, chosen, inner)})
    return {"batches": len(batches), "families": families, "losses": losses, "rows": rows}


class ConflictLog:
    """Appends measurements to `conflict.jsonl` in a run's folder; those after a resume replace those that were lost.

    Args:
        path: The file.
        done: Steps that the run has behind it; later rows are of an interrupted attempt and are dropped.
    """

    def __init__(self, path: Path, done: int = 0) -> None:
        self.path = MetricsLog(path, done).path

    def write(self, step: int, measured: Mapping[str, Any]) -> None:
        """Appends the rows of one `measure_conflict`."""
        rows = [json.dumps({"step": step, **row}) + "\n" for row in measured["rows"]]
        with write_errors(self.path, "checkpoints are intact"), self.path.open("a", encoding="utf-8") as file:
            file.write("".join(rows))


def _families(batches: Sequence[Mapping[str, StepBatch]], parameters: Sequence[nn.Parameter]) -> list[str]:
    """The families of the batches; raises unless there is something to compare."""
    if not parameters:
        raise TrunklineError(
            "the backbone is frozen, so no family's gradient reaches a shared parameter",
            expected="a strategy that trains the backbone",
            todo="Leave the conflict report out of this run",
        )
    families = list(batches[0]) if batches else []
    if len(families) < 2 or len(batches) < 2:
        raise TrunklineError(
            f"{len(batches)} batches of {len(families)} families ({', '.join(families)})",
            expected="at least 2 batches of each of at least 2 families",
            todo="Measure conflict on a recipe with several families",
        )
    for number, batch in enumerate(batches):
        if set(batch) != set(families):
            raise TrunklineError(f"batch {number} is of {sorted(batch)}", expected=f"one of each of {sorted(families)}")
    return families


@contextmanager
def as_in_training(model: nn.Module, objectives: nn.Module) -> Iterator[None]:
    """Everything in evaluation mode but the objectives, which may differ in training, and no dropout there either.

    Afterwards each module's mode is as before, and the objectives' parameters are, which some clamp in training.
    """
    modes = [(module, module.training) for module in model.modules()]
    values = [(parameter, parameter.detach().clone()) for parameter in objectives.parameters()]
    try:
        model.eval()
        for module in objectives.modules():
            module.training = not isinstance(module, nn.Dropout)
        yield
    finally:
        for module, training in modes:
            module.training = training
        with torch.no_grad():
            for parameter, value in values:
                parameter.copy_(value)


@contextmanager
def _without_adapters(model: PrefinetuneModel) -> Iterator[None]:
    adapters = model.adapters
    # The forward pass asks the model for a family's adapter, so whatever the loss consists of goes without it.
    model.adapters = nn.ModuleDict()
    try:
        yield
    finally:
        model.adapters = adapters


def _gradient(
    model: PrefinetuneModel,
    family: str,
    batch: StepBatch,
    parameters: Sequence[nn.Parameter],
    weight: float,
    bf16: bool,
    backward: Backward,
) -> tuple[float, Sequence[Tensor | None]]:
    """The weighted loss of a batch and its gradient."""
    with torch.autocast(parameters[0].device.type, dtype=torch.bfloat16, enabled=bf16):
        loss = model(family, batch)
    return weight * float(loss.detach()), backward(loss * weight, parameters)


def _products(
    gradient: Callable[[str, StepBatch], tuple[float, Sequence[Tensor | None]]],
    batches: Sequence[Mapping[str, StepBatch]],
    families: Sequence[str],
    count: int,
) -> tuple[dict[tuple[str, str], Array], dict[str, Array], dict[str, float]]:
    """Scalar products of gradients, parameter by parameter.

    Returns:
        [batches, count] for each pair of families (a family with itself included) within a batch, [batches - 1, count]
        for each family between a batch and the next, and each family's mean loss.
    """
    pairs = [(family, family) for family in families] + list(combinations(families, 2))
    products: dict[tuple[str, str], list[list[float]]] = {pair: [] for pair in pairs}
    within: dict[str, list[list[float]]] = {family: [] for family in families}
    losses: dict[str, list[float]] = {family: [] for family in families}
    held: dict[str, Sequence[Tensor | None]] = {}
    for number, batch in enumerate(batches):
        for family in families:
            loss, new = gradient(family, batch[family])
            losses[family].append(loss)
            if family in held:
                within[family].append(_dots(held[family], new, count))
            held[family] = new
            del new
        for pair in pairs:
            products[pair].append(_dots(held[pair[0]], held[pair[1]], count))
        broken = [family for family in families if not np.isfinite(products[family, family][-1]).all()]
        if broken:
            raise TrainingError(
                f"the gradient of {', '.join(broken)} is not finite in batch {number} of the conflict report",
                todo="Lower the rates or set precision: fp32",
            )
    return (
        {pair: np.asarray(values) for pair, values in products.items()},
        {family: np.asarray(values) for family, values in within.items()},
        {family: float(np.mean(values)) for family, values in losses.items()},
    )


def _dots(left: Sequence[Tensor | None], right: Sequence[Tensor | None], count: int) -> list[float]:
    """[count] scalar products, summed in double precision; 0 where a parameter has no part in a loss."""
    values = [0.0] * count
    pairs = zip(left, right, strict=True)
    found = {i: (x * y).sum(dtype=torch.float64) for i, (x, y) in enumerate(pairs) if x is not None and y is not None}
    # One transfer for all of them, which on an accelerator is what takes time.
    for index, value in zip(found, torch.stack(list(found.values())).tolist() if found else (), strict=True):
        values[index] = value
    return values


def _statistics(
    pair: tuple[str, str], products: Mapping[tuple[str, str], Array], within: Mapping[str, Array]
) -> dict[str, Any]:
    """The measures of one pair of families on one group of parameters; see `measure_conflict`."""
    norms = {family: np.sqrt(products[family, family]) for family in pair}
    first, second = (norms[family] for family in pair)
    defined = (first > 0) & (second > 0)
    cosines = products[pair][defined] / (first * second)[defined]
    ratios = np.log(first[defined] / second[defined])
    inner = {}
    for family in pair:
        lengths = norms[family][:-1] * norms[family][1:]
        inner[family] = within[family][lengths > 0] / lengths[lengths > 0]
    ratio = _mean(ratios)
    row: dict[str, Any] = {
        "families": list(pair),
        "batches": len(cosines),
        "cosine": _mean(cosines),
        "cosine_se": _error(cosines),
        "conflict": _mean((cosines < 0).astype(np.float64)),
        "norm_ratio": None if ratio is None else math.exp(ratio),
        "log_ratio_se": _error(ratios),
        "within": {family: _mean(values) for family, values in inner.items()},
        "within_se": {family: _error(values) for family, values in inner.items()},
    }
    row["corrected"], row["corrected_se"] = without_noise(row)
    return row


def without_noise(row: Mapping[str, Any]) -> tuple[float | None, float | None]:
    """The cosine that the gradients of all data would have, and its standard error to first order.

    The measured one over the geometric mean of those within the families (Spearman 1904). None where a family's batches
    have no common direction; it may leave [-1, 1].

    Args:
        row: With `families`, `cosine`, `cosine_se`, `within` and `within_se`.
    """
    inner = [row["within"][family] for family in row["families"]]
    if row["cosine"] is None or None in inner or min(inner) <= 0:
        return None, None
    reach = math.sqrt(inner[0] * inner[1])
    value = row["cosine"] / reach
    errors = [row["within_se"][family] for family in row["families"]]
    if row["cosine_se"] is None or None in errors:
        return value, None
    spread = sum((error / size) ** 2 for error, size in zip(errors, inner, strict=True)) / 4
    return value, math.hypot(row["cosine_se"] / reach, value * math.sqrt(spread))


def _plus(left: Tensor | None, right: Tensor | None) -> Tensor | None:
    if left is None or right is None:
        return right if left is None else left
    return left + right


def _mean(values: Array) -> float | None:
    return float(values.mean()) if len(values) else None


def _error(values: Array) -> float | None:
    """The standard error of the mean."""
    return float(values.std(ddof=1) / math.sqrt(len(values))) if len(values) > 1 else None
