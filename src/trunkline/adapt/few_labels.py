"""LoRA from few labels: low-rank updates and a head, trained together on the frozen encoder.

The head starts at its convex fit on frozen features, so that the updates are not pulled by a random head (LP-FT, Kumar
et al. 2022, arXiv 2202.10054). How long is trained is chosen by cross-validation among the labels; then all are used.
"""

from __future__ import annotations

import copy
import logging
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from trunkline.adapt.settings import LoraSettings
from trunkline.bundle.parts import Head
from trunkline.config.recipes import AdapterSection
from trunkline.encoder.batch import TokenBatch
from trunkline.encoder.encoder import Encoder
from trunkline.encoder.features import Branch, TrunkStates, branch_features
from trunkline.encoder.lora import LoraAdapter, lora_config
from trunkline.heads.fit import (
    CrossValidation,
    FittedHead,
    LabelledFeatures,
    convex_head,
    cross_validate,
    finish,
    fit_head,
)
from trunkline.tasks import Family, Labels
from trunkline.text.packing import UnitText, pack
from trunkline.training.checkpoint import seed_everything
from trunkline.training.loop import Hooks, LoopSettings, optimizer_for, run
from trunkline.training.precision import make_accelerator, resolve_precision

log = logging.getLogger(__name__)

FOLDS = 3
"""Of cross-validation: each costs a training."""


@dataclass(frozen=True, slots=True)
class TunedLora:
    """Trained updates with their head, and how they were chosen."""

    lora: LoraAdapter
    fitted: FittedHead
    epochs: int


@dataclass(frozen=True)
class _Setting:
    """What all trainings of a task share."""

    encoder: Encoder
    units: Sequence[UnitText]
    targets: Sequence[Sequence[int]]
    states: TrunkStates | None
    primary: LoraAdapter | None
    labels: Labels
    settings: LoraSettings
    bf16: bool


def tune_lora(
    encoder: Encoder,
    primary: LoraAdapter | None,
    family: Family,
    data: LabelledFeatures,
    units: Sequence[UnitText],
    labels: Labels,
    *,
    n_dev: int = 0,
    settings: LoraSettings | None = None,
) -> TunedLora:
    """Trains LoRA and head for a task.

    Args:
        encoder: Frozen.
        primary: Where the updates start; without it they start at zero.
        family: Of the task.
        data: All labelled examples, those of dev last; their features are replaced by those of torch.
        units: Their units, tokenised.
        labels: The head's outputs.
        n_dev: Examples of dev, on which the number of epochs is chosen instead of by cross-validation.
        settings: Rank, epochs, rate, batch, seed; equal seeds give equal results.
    """
    settings = settings or LoraSettings()
    seed = settings.seed
    encoder.requires_grad_(False).eval()
    bf16 = resolve_precision("auto") == "bf16"
    states = TrunkStates.of(encoder, units, bf16=bf16)
    shared = _Setting(encoder, units, data.targets, states, primary, labels, settings, bf16)
    n_train = len(units) - n_dev
    frozen = branch_features(encoder, [Branch(units, primary)], bf16=bf16, states=states)[0]
    before = fit_head(family, _with(data, frozen), labels, n_dev=n_dev, seed=seed)
    folds = cross_validate(family, data, n_dev, folds=FOLDS, seed=seed)
    known = _with(data, frozen)
    starts = {fold: convex_head(known, folds.trained(fold), len(labels), before.penalty) for fold in folds.held_out}
    logits = {fold: _by_epoch(shared, folds, fold, starts[fold]) for fold in folds.held_out}
    losses = [
        folds.log_loss({fold: parts[epoch] for fold, parts in logits.items()}, data.targets)
        for epoch in range(settings.epochs + 1)
    ]
    # Epoch 0 is the head alone; a LoRA that was asked for is trained for one epoch at least.
    epochs = 1 + int(np.argmin(losses[1:]))
    log.info("LoRA: held-out log loss %.4f after %d epochs, %.4f before", losses[epochs], epochs, losses[0])
    start = convex_head(known, range(n_train), len(labels), before.penalty)
    lora, head = _train(shared, range(n_train), start, epochs)
    chosen = {fold: parts[epochs] for fold, parts in logits.items()}
    return TunedLora(lora, finish(family, data, labels, folds, chosen, head, before.penalty, n_dev), epochs)


def _by_epoch(shared: _Setting, folds: CrossValidation, fold: int, start: Head) -> list[list[np.ndarray[Any, Any]]]:
    """Logits of the held-out examples of a fold after each epoch, the start first; trained on the other folds."""
    train, held_out = folds.trained(fold), folds.held_out[fold]
    found: list[list[np.ndarray[Any, Any]]] = []

    def look(lora: LoraAdapter, head: Head) -> None:
        found.append(_logits(shared, held_out, lora, head))

    _train(shared, train, start, shared.settings.epochs, look)
    return found


def _train(
    shared: _Setting,
    chosen: Sequence[int],
    start: Head,
    epochs: int,
    look: Callable[[LoraAdapter, Head], None] = lambda lora, head: None,
) -> tuple[LoraAdapter, Head]:
    """Trains on some of the examples; `look` sees adapter and head before and after each epoch."""
    settings, encoder, seed = shared.settings, shared.encoder, shared.settings.seed
    seed_everything(seed)
    lora = _starting(shared)
    model = _TaskModel(lora, start)
    groups = {"lora": (list(lora.parameters()), settings.rate), "head": ([model.weight, model.bias], settings.rate)}
    accelerator = make_accelerator(shared.bf16)
    encoder.to(accelerator.device)
    model.to(accelerator.device)
    prepared, optimizer = accelerator.prepare(model, optimizer_for(groups, weight_decay=0.01))
    per_epoch = max(1, -(-len(chosen) // settings.batch))

    def losses(step: int) -> Iterator[tuple[str, float, Tensor]]:
        epoch, number = divmod(step, per_epoch)
        order = np.random.default_rng([seed, epoch]).permutation(len(chosen))
        rows = [chosen[i] for i in np.array_split(order, per_epoch)[number]]
        batch = TokenBatch.from_packed(pack([shared.units[i] for i in rows], encoder.config.pad_id), accelerator.device)
        wanted = torch.tensor([label for i in rows for label in shared.targets[i]], device=accelerator.device)
        with accelerator.autocast():
            states = shared.states.rows(batch, rows) if shared.states is not None else encoder.trunk(batch)
            logits = prepared(encoder, batch, states, settings.dropout)
        yield "task", 1.0, F.cross_entropy(logits.float(), wanted, ignore_index=-1)

    def evaluate(step: int) -> bool:
        look(lora, model.head())
        return False

    look(lora, model.head())
    loop = LoopSettings(steps=epochs * per_epoch, log_every=per_epoch, evaluate_every=per_epoch)
    run(prepared, optimizer, losses, loop, Hooks(evaluate=evaluate), accelerator=accelerator)
    return lora.cpu().eval().requires_grad_(False), model.cpu().head()


def _logits(shared: _Setting, chosen: Sequence[int], lora: LoraAdapter, head: Head) -> list[np.ndarray[Any, Any]]:
    units = [shared.units[i] for i in chosen]
    states = None if shared.states is None else shared.states.some(chosen)
    lora.eval()
    features = branch_features(shared.encoder, [Branch(units, lora)], bf16=shared.bf16, states=states)[0]
    lora.train()
    return [part @ head.weight + head.bias for part in features]


def _starting(shared: _Setting) -> LoraAdapter:
    """A copy of the primary adapter, or a new adapter that changes nothing yet."""
    if shared.primary is not None:
        return copy.deepcopy(shared.primary).requires_grad_(True)
    rank, targets = shared.settings.rank, shared.settings.targets
    section = AdapterSection.model_validate({"rank": rank, "alpha": 2.0 * rank, "targets": targets})
    return LoraAdapter(lora_config(section, shared.encoder.config, shared.encoder.fork), shared.encoder.config)


def _with(data: LabelledFeatures, features: Sequence[np.ndarray[Any, Any]]) -> LabelledFeatures:
    return LabelledFeatures(data.examples, data.texts, features, data.targets)


class _TaskModel(nn.Module):
    """An adapter and a head."""

    def __init__(self, lora: LoraAdapter, head: Head) -> None:
        super().__init__()
        self.lora = lora
        self.weight = nn.Parameter(torch.from_numpy(np.ascontiguousarray(head.weight.T)))
        self.bias = nn.Parameter(torch.from_numpy(head.bias.copy()))

    def forward(self, encoder: Encoder, batch: TokenBatch, states: Tensor, dropout: float) -> Tensor:
        """[units, labels] logits from the states at the fork."""
        features = batch.pool(encoder.read(states, batch, self.lora))
        return F.linear(F.dropout(features, dropout, self.training), self.weight, self.bias)

    def head(self) -> Head:
        """The head as arrays."""
        weight, bias = (part.detach().cpu().numpy() for part in (self.weight, self.bias))
        return Head(np.ascontiguousarray(weight.T), bias.copy())
