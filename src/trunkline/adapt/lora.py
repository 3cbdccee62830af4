"""LoRA adaptation: a copy of the primary adapter and a head are trained together on the frozen backbone.

The head starts at its convex fit on frozen features, so that the adapter is not pulled by a random head (LP-FT, Kumar
et al. 2022, arXiv 2202.10054).
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator, Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from trunkline.adapt import fitting
from trunkline.config import AdapterSection, AdaptSection
from trunkline.encoder.batch import TokenBatch
from trunkline.encoder.bundle_files import Loaded
from trunkline.encoder.encoder import Encoder
from trunkline.encoder.features import Branch, TrunkStates, branch_features
from trunkline.encoder.lora import LoraAdapter, lora_config
from trunkline.heads.linear import LinearHead
from trunkline.tasks import Family, Labels
from trunkline.tasks.base import Transitions
from trunkline.text.packing import UnitText, pack
from trunkline.training.checkpoint import seed_everything
from trunkline.training.loop import Hooks, LoopSettings, optimizer_for, run
from trunkline.training.precision import make_accelerator, resolve_precision

Target = tuple[Family, Labels, LinearHead]


@dataclass(frozen=True)
class LoraResult:
    """The best epoch's adapter and head; epoch 0 is the start."""

    lora: LoraAdapter
    head: LinearHead
    best_epoch: int
    epochs: int


class TaskModel(nn.Module):
    """What adaptation trains: an adapter and a head, and the encoder if that is given, which else is only used."""

    def __init__(self, lora: LoraAdapter | None, head: LinearHead, encoder: Encoder | None = None) -> None:
        super().__init__()
        self.lora = lora
        self.encoder = encoder
        self.weight = nn.Parameter(torch.from_numpy(head.weight.copy()))
        self.bias = nn.Parameter(torch.from_numpy(head.bias.copy()))
        self.transitions = head.transitions

    def forward(self, encoder: Encoder, batch: TokenBatch, dropout: float, states: Tensor | None = None) -> Tensor:
        """[units, labels] logits; `states` are those at the fork, where they are known."""
        if states is None:
            with torch.no_grad() if self.encoder is None else nullcontext():
                states = encoder.trunk(batch)
        features = batch.pool(encoder.read(states, batch, self.lora))
        return F.linear(F.dropout(features, dropout, self.training), self.weight, self.bias)

    def head(self) -> LinearHead:
        """The head as arrays."""
        weight, bias = (parameter.detach().cpu().numpy().copy() for parameter in (self.weight, self.bias))
        return LinearHead(weight, bias, self.transitions)


def train_lora(
    train: Sequence[Any],
    dev: Sequence[Any],
    start: Loaded,
    section: AdaptSection,
    target: Target,
    *,
    seed: int,
    progress: Callable[[str], None] = lambda text: None,
) -> LoraResult:
    """Trains adapter and head with early stopping on dev; see `trunkline.adapt.fit.adapt`."""
    seed_everything(seed)
    start.encoder.requires_grad_(False)
    lora = starting_lora(start, target[0].name, section.adapter)
    model = TaskModel(lora, target[2])
    groups = {"lora": (list(lora.parameters()), section.rate)}
    best_epoch, epochs = fine_tune(model, groups, (train, dev), start, section, target, seed=seed, progress=progress)
    start.encoder.eval()
    return LoraResult(lora.eval().requires_grad_(False), model.head(), best_epoch, epochs)


def fine_tune(
    model: TaskModel,
    groups: dict[str, tuple[list[nn.Parameter], float]],
    parts: tuple[Sequence[Any], Sequence[Any]],
    start: Loaded,
    section: AdaptSection,
    target: Target,
    *,
    seed: int,
    progress: Callable[[str], None] = lambda text: None,
) -> tuple[int, int]:
    """Trains a model with early stopping on dev (`parts` are train and dev) and leaves it as after its best epoch.

    `groups` names what is trained besides the head, each with its rate; `start` has the encoder that the model uses;
    `seed` is that of the order of batches.

    Returns:
        The best epoch, 0 being the start, and the epochs trained.
    """
    train, dev = parts
    family, labels, _ = target
    bf16 = resolve_precision(section.precision) == "bf16"
    accelerator = make_accelerator(bf16)
    encoder = start.encoder.to(accelerator.device)
    model.to(accelerator.device)
    head_group = {"head": ([model.weight, model.bias], section.head_rate)}
    prepared, optimizer = accelerator.prepare(model, optimizer_for({**groups, **head_group}, weight_decay=0.01))
    units = fitting.example_units(family, train, start.tokenizer)
    states = _trunk_states(model, encoder, units, bf16)
    rows = [family.unit_targets(example, labels, fitting.words_of(example)) for example in train]
    targets = [torch.tensor(row) for row in rows]
    order = _Batches(units, section.tokens, seed)

    def losses(step: int) -> Iterator[tuple[str, float, Tensor]]:
        chosen = order.at(step)
        packed = pack([units[i] for i in chosen], encoder.config.pad_id)
        batch = TokenBatch.from_packed(packed, accelerator.device)
        wanted = torch.cat([targets[i] for i in chosen]).to(accelerator.device)
        with accelerator.autocast():
            known = None if states is None else states.rows(batch, chosen)
            logits = prepared(encoder, batch, section.dropout, known)
        yield "task", 1.0, F.cross_entropy(logits.float(), wanted, ignore_index=-1)

    best = _Best(model, (family, labels, family.transitions(rows, labels)), dev, start, bf16)
    best.look(0)

    def evaluate(step: int) -> bool:
        epoch = step // order.per_epoch
        score = best.look(epoch)
        progress(f"epoch {epoch}: dev {family.main_score} {score:.4f}")
        return epoch - best.epoch >= section.patience

    settings = LoopSettings(
        steps=section.epochs * order.per_epoch, log_every=order.per_epoch, evaluate_every=order.per_epoch
    )
    done = run(prepared, optimizer, losses, settings, Hooks(evaluate=evaluate), accelerator=accelerator)
    model.load_state_dict(best.state)
    model.transitions = best.transitions
    return best.epoch, done // order.per_epoch


def starting_lora(start: Loaded, family: str, section: AdapterSection) -> LoraAdapter:
    """A copy of the family's primary adapter, or a new adapter that changes nothing yet."""
    primary = start.primary(family)
    if primary is not None:
        return copy.deepcopy(primary).requires_grad_(True)
    return LoraAdapter(lora_config(section, start.encoder.config, start.encoder.fork), start.encoder.config)


def _trunk_states(model: TaskModel, encoder: Encoder, units: Sequence[UnitText], bf16: bool) -> TrunkStates | None:
    """The states at the fork, where the trunk stays as it is and they are not too many."""
    return TrunkStates.of(encoder, units, bf16=bf16) if model.encoder is None else None


class _Best:
    """Keeps the state and the transitions with the highest dev score; the earlier one wins ties."""

    def __init__(
        self,
        model: TaskModel,
        target: tuple[Family, Labels, Transitions],
        dev: Sequence[Any],
        start: Loaded,
        bf16: bool,
    ) -> None:
        self.model, self.dev, self.encoder, self.bf16 = model, dev, start.encoder, bf16
        self.family, self.labels, self.learned = target
        self.units = fitting.example_units(self.family, dev, start.tokenizer)
        self.states = _trunk_states(model, start.encoder, self.units, bf16)
        self.score, self.epoch = -1.0, 0
        self.state: dict[str, Tensor] = {}
        self.transitions: Transitions = None

    def look(self, epoch: int) -> float:
        """Scores the model as it is."""
        branch = Branch(self.units, self.model.lora)
        dev = branch_features(self.encoder, [branch], bf16=self.bf16, states=self.states)[0], self.dev
        head, score = fitting.with_transitions(self.family, self.model.head(), self.learned, dev, self.labels)
        if score > self.score:
            self.score, self.epoch, self.transitions = score, epoch, head.transitions
            self.state = {name: tensor.detach().clone() for name, tensor in self.model.state_dict().items()}
        return score


class _Batches:
    """Examples in batches of about `budget` tokens, in another random order each epoch."""

    def __init__(self, units: Sequence[UnitText], budget: int, seed: int) -> None:
        self.sizes = np.asarray([text.size for text in units])
        self.seed = seed
        self.per_epoch = min(len(units), max(1, round(float(self.sizes.sum()) / budget)))
        self._epoch, self._parts = -1, list[Any]()

    def at(self, step: int) -> list[int]:
        """The examples of a step."""
        epoch, number = divmod(step, self.per_epoch)
        if epoch != self._epoch:
            order = np.random.default_rng([self.seed, epoch]).permutation(len(self.sizes))
            # Cut where the running sum of tokens passes equal shares, so that every batch is about as long; long texts
            # can pass several shares at once, so cuts are moved apart until every batch has a text.
            before = np.cumsum(self.sizes[order]) - self.sizes[order]
            number_of = np.arange(1, self.per_epoch)
            cuts = np.searchsorted(before * self.per_epoch, number_of * self.sizes.sum())
            cuts = np.maximum.accumulate(np.maximum(cuts, 1) - number_of) + number_of
            cuts = np.minimum(cuts, len(order) - self.per_epoch + number_of)
            self._epoch, self._parts = epoch, np.split(order, cuts)
        return [int(i) for i in self._parts[number]]
