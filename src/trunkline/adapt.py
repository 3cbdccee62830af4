"""LoRA from few labels: low-rank updates are trained on the frozen encoder, then a convex head is fitted on them.

Texts of one label are pulled together by a supervised contrastive loss (Khosla et al. 2020, arXiv 2004.11362) beside
cross-entropy, whose head starts at its convex fit on frozen features, so that the updates are not pulled by a random
head (LP-FT, Kumar et al. 2022, arXiv 2202.10054). Cross-validation among the labels says what the whole is worth.
"""

from __future__ import annotations

import copy
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Annotated, Any

import numpy as np
import numpy.typing as npt
import torch
from accelerate.utils import set_seed
from pydantic import Field
from torch import Tensor, nn
from torch.nn import functional as F

from trunkline.bundle.manifest import LORA_TARGETS, branch_of
from trunkline.bundle.parts import Head, Task
from trunkline.config import Fraction, PositiveInt, Section, Seed, Target, parse_recipe
from trunkline.encoder.bundle_files import bundle_encoder, load_any, lora_of
from trunkline.encoder.encoder import Encoder, FeatureRequest, Features, TokenBatch, TrunkStates, branch_features
from trunkline.encoder.lora import LoraAdapter, LoraConfig, adapter_arrays, linear_shape
from trunkline.errors import TrunklineError
from trunkline.heads.fit import FittedHead, LabelledFeatures, convex_heads, cross_validate, finish, fit_head, logits_of
from trunkline.heads.linear import factors, log_losses
from trunkline.tasks import FAMILIES, Family, Labels
from trunkline.text.tokens import UnitText, pack
from trunkline.training.loop import Hooks, LoopSettings, make_accelerator, optimizer_for, resolve_precision, run

if TYPE_CHECKING:
    from trunkline.model import Model

FOLDS = 3
"""Of cross-validation: each costs a training."""

LEAST = 32
"""Texts of one label each below which `auto` tries no LoRA: held-out folds of fewer cannot tell it from the head."""

TEMPERATURE = 0.1
"""Divides the cosines of the contrastive loss."""


class LoraSettings(Section):
    """How LoRA is trained.

    Attributes:
        rank: Of new updates; those that start at a primary adapter keep its rank. `fit` takes less where the head is
            large, so that a task stays small.
        targets: Linear layers that get updates, of new ones.
        steps: Optimizer steps. These, `rate` and `batch` are others where each text has one label, see `defaults`.
        rate: Learning rate of updates and head.
        batch: Examples a step.
        dropout: On the features before the head.
        contrast: Weight of the supervised contrastive loss beside cross-entropy, in tasks where a text has one label.
            Where it has any number there is only cross-entropy, of yes and no for each label.
        class_weight: Of the convex heads, as for `fit_head`; batches bring labels alike in any case.
        seed: Of the folds, the start and the order of batches.
    """

    rank: PositiveInt = 8
    targets: tuple[Target, ...] = ("query", "key", "value", "out", "up", "down")
    steps: PositiveInt = 100
    rate: Fraction = 1e-3
    batch: Annotated[int, Field(ge=2)] = 16
    dropout: Fraction = 0.1
    contrast: Annotated[float, Field(ge=0, lt=1000)] = 1.0
    class_weight: str | None = None
    seed: Seed = 0


@dataclass(frozen=True, slots=True)
class TunedLora:
    """Trained updates with their head, beside the head on frozen features, both judged on the same held-out folds.

    `noise` is the standard error of the difference of their held-out log losses.
    """

    lora: LoraAdapter
    fitted: FittedHead
    before: FittedHead
    noise: float = 0.0


class AutoSettings(LoraSettings):
    """Of LoRA that is only wanted if it is better: `tune_lora` raises NotBetter where the first fold says otherwise."""


class NotBetter(Exception):
    """LoRA has no less log loss than the head on the first held-out fold; `compared` is for a task's record."""

    def __init__(self, before: float, after: float) -> None:
        super().__init__(before, after)
        self.compared = {"head": {"log_loss": round(before, 6)}, "lora": {"log_loss": round(after, 6), "folds": 1}}


@dataclass(frozen=True)
class _Task:
    """What all trainings of a task share; features of `data` are those of the frozen branch."""

    family: Family
    encoder: Encoder
    primary: LoraAdapter | None
    data: LabelledFeatures
    units: Sequence[UnitText]
    states: TrunkStates | None
    settings: LoraSettings
    bf16: bool


def fit_lora(
    model: Model,
    name: str,
    family: str,
    parts: tuple[Sequence[Any], Sequence[Any]],
    *,
    only_if_better: bool = False,
    **settings: Any,
) -> tuple[Task, dict[str, Any]]:
    """Trains LoRA and a head for a task of a model, from train and dev examples; see `Model.fit`.

    The model needs weights for torch: in its bundle, or as the default encoder's package. With `only_if_better` the
    LoRA is kept only if its held-out log loss is below that of the head alone by more than noise; where it is not below
    on the first fold, the others are not tried. Settings are those of `LoraSettings`. Returns the task, and how it was
    chosen.
    """
    asked, (train, dev), kind = _settings(model, settings), parts, FAMILIES[family]
    units, labels = kind.choose_units(train, model.tokenizer), kind.labels(train)

    def head_alone(compared: Mapping[str, Any]) -> tuple[Task, dict[str, Any]]:
        task, chosen = model._fit_head(name, family, parts, asked.seed, class_weight=asked.class_weight)
        return task, {**chosen, **compared}

    single = 0 if kind.several or units != "text" else len(train)
    if only_if_better and single and not dev and len(train) < LEAST:
        return head_alone({"lora": {"not_tried": f"it takes {LEAST} texts to tell whether it is better"}})
    try:
        encoder = _encoder(model)
    except TrunklineError as error:
        if not only_if_better:
            raise
        return head_alone({"lora": {"not_tried": error.given}})
    asked = asked.model_copy(update={**defaults(encoder, labels, single), **settings})
    primary = model.bundle.primaries.get(branch_of(family))
    lora = None if primary is None else lora_of(primary, encoder.config)
    data, texts = model.labelled([*train, *dev], family, units, labels)
    wanted = AutoSettings(**asked.model_dump()) if only_if_better else asked
    try:
        tuned = tune_lora(encoder, lora, kind, data, texts, labels, n_dev=len(dev), settings=wanted)
    except NotBetter as worse:
        return head_alone(worse.compared)
    before, after = tuned.before.log_loss, tuned.fitted.log_loss
    found = {"head": tuned.before.record(), "lora": tuned.fitted.record()}
    compared = {mode: {key: one[key] for key in ("log_loss", "scores")} for mode, one in found.items()}
    if only_if_better and (before is None or after is None or before - after <= tuned.noise):
        return head_alone(compared)
    chosen = {**found["lora"], **compared, **settings}
    info = {"mode": "lora", "examples": len(train), "cross_validation": chosen, "engine": "torch"}
    arrays, alpha = adapter_arrays(tuned.lora), tuned.lora.config.alpha
    task = model._task(name, family, labels, tuned.fitted.head, units=units, info=info, lora=arrays, alpha=alpha)
    return task, chosen


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
    """Trains LoRA and head for a task; equal settings give equal results.

    The updates start at the `primary` adapter, or at zero without one. Of `data` and its tokenised `units` the last
    `n_dev` are of dev, which judges instead of cross-validation and is not trained on; features are those of torch.
    With AutoSettings, raises NotBetter after the first of several folds where LoRA is not better than the head.
    """
    settings = settings or LoraSettings()
    encoder.requires_grad_(False).eval()
    bf16 = resolve_precision("auto") == "bf16"
    states = TrunkStates.of(encoder, units, bf16=bf16)
    frozen = branch_features(encoder, [FeatureRequest(units, primary)], bf16=bf16, states=states)[0]
    frozen = family.widened(data.texts, frozen)
    known = replace(data, features=frozen)
    weight = settings.class_weight
    penalty = fit_head(family, known, labels, n_dev=n_dev, class_weight=weight, seed=settings.seed).penalty
    folds = cross_validate(family, known, n_dev, folds=FOLDS, seed=settings.seed)
    task = _Task(family, encoder, primary, known, units, states, settings, bf16)

    def heads(features: Sequence[Features], numbers: Sequence[int]) -> list[Head]:
        return convex_heads(family, replace(known, features=features), numbers, labels, penalty, weight)

    def said(found: Sequence[Head], features: Sequence[Features], numbers: Sequence[int]) -> list[Features]:
        return [logits_of(head, [features[number] for number in numbers], family) for head in found]

    before, after = list[list[Features]](), list[list[Features]]()
    for train, held_out in zip(folds.trained, folds.held_out, strict=True):
        start = heads(frozen, train)
        before.append(said(start, frozen, held_out))
        features = family.widened(data.texts, _features(task, _train(task, train, start[0])))
        after.append(said(heads(features, train), features, held_out))
        if isinstance(settings, AutoSettings) and len(folds.held_out) > len(before) == 1:
            first = [float(_losses(one, folds.targets).mean()) for one in (before, after)]
            if not first[1] < first[0]:
                raise NotBetter(*first)
    everything = range(len(units) - n_dev)
    start = heads(frozen, everything)
    lora = _train(task, everything, start[0])
    tuned = replace(known, features=family.widened(data.texts, _features(task, lora)))
    fitted = []
    for at, found, logits in ((tuned, heads(tuned.features, everything), after), (known, start, before)):
        members = list(zip(found, map(np.concatenate, zip(*logits, strict=True)), strict=True))
        fitted.append(finish(family, at, labels, folds, members, penalty, n_dev))
    gains = _losses(before, folds.targets) - _losses(after, folds.targets)
    return TunedLora(lora, fitted[0], fitted[1], float(gains.std() / max(len(gains), 1) ** 0.5) if len(gains) else 0.0)


def _losses(judged: Sequence[Sequence[Features]], targets: npt.NDArray[np.int64]) -> npt.NDArray[np.float64]:
    """Log losses of the held-out units of the first folds, as far as they are judged: [folds][heads] logits."""
    members = [np.concatenate(one) for one in zip(*judged, strict=True)]
    there = targets[: len(members[0])] >= 0
    members, targets = [one[there] for one in members], targets[: len(there)][there]
    return log_losses(np.tensordot(factors(members, targets), np.stack(members), 1), targets)


def defaults(encoder: Encoder, labels: Labels, texts: int) -> dict[str, Any]:
    """What `fit` trains LoRA with where nothing else is asked for; `texts` of one label each, 0 in other tasks."""
    updates = LoraConfig(1, 1.0, LoraSettings().targets, tuple(range(encoder.fork, encoder.config.n_layers)))
    one = sum(sum(linear_shape(encoder.config, target)) for target in updates.targets) * len(updates.layers)
    head = len(labels) * (encoder.config.hidden_size + 1)
    found: dict[str, Any] = {"rank": max(4, LoraSettings().rank - -(-head // max(one, 1)))}
    if texts:
        found |= {"steps": min(100, max(20, texts // 16)), "rate": 2e-3, "batch": 32}
    return found


def supervised_contrast(features: Tensor, labels: Tensor) -> Tensor:
    """The mean loss of [texts, width] features: each text against the others, those of its label being right.

    Texts whose label no other text of the batch has are not counted.
    """
    unit = F.normalize(features, dim=1)
    itself = torch.eye(len(unit), dtype=torch.bool, device=unit.device)
    scores = (unit @ unit.T / TEMPERATURE).masked_fill(itself, float("-inf"))
    right = (labels[:, None] == labels[None]) & ~itself
    counts = right.sum(dim=1)
    likelihood = scores.log_softmax(dim=1).masked_fill(~right, 0.0).sum(dim=1)
    paired = counts > 0
    return -(likelihood[paired] / counts[paired]).sum() / paired.sum().clamp(min=1)


def _train(task: _Task, chosen: Sequence[int], start: Head) -> LoraAdapter:
    """Trains on some of the examples."""
    settings, encoder, head = task.settings, task.encoder, nn.Linear(*start.weight.shape)
    head.load_state_dict({"weight": torch.from_numpy(start.weight.T), "bias": torch.from_numpy(start.bias)})
    set_seed(settings.seed)
    if task.primary is not None:
        lora = copy.deepcopy(task.primary).requires_grad_(True)
    else:
        layers = tuple(range(encoder.fork, encoder.config.n_layers))
        config = LoraConfig(settings.rank, 2.0 * settings.rank, settings.targets, layers)
        config.check(encoder.config, encoder.fork)
        lora = LoraAdapter(config, encoder.config)
    groups = {"lora": (list(lora.parameters()), settings.rate), "head": (list(head.parameters()), settings.rate)}
    accelerator = make_accelerator(task.bf16)
    encoder.to(accelerator.device)
    module = nn.ModuleDict({"lora": lora, "head": head}).to(accelerator.device)
    prepared, optimizer = accelerator.prepare(module, optimizer_for(groups, weight_decay=0.01))
    several = task.family.several
    single = not several and all(unit.n_units == 1 for unit in task.units)

    def beside(rows: Sequence[int]) -> Tensor:
        """What heads read of units besides the encoder's features."""
        known = np.concatenate([task.data.features[i][:, encoder.config.hidden_size :] for i in rows])
        return torch.from_numpy(known).to(accelerator.device)

    def losses(step: int) -> Iterator[tuple[str, float, Tensor]]:
        rows = _batch(task, chosen, step)
        batch = TokenBatch.from_packed(pack([task.units[i] for i in rows], encoder.config.pad_id), accelerator.device)
        wanted = torch.tensor([label for i in rows for label in task.data.targets[i]], device=accelerator.device)
        with accelerator.autocast():
            states = task.states.rows(batch, rows) if task.states is not None else encoder.trunk(batch)
            features = batch.pool(encoder.read(states, batch, lora)).float()
        said = head(torch.cat([F.dropout(features, settings.dropout), beside(rows)], dim=1))
        if several:
            loss = F.binary_cross_entropy_with_logits(said, wanted.view_as(said).float())
        else:
            loss = F.cross_entropy(said, wanted, ignore_index=-1)
        if single and settings.contrast:
            loss = loss + settings.contrast * supervised_contrast(features, wanted)
        yield "task", 1.0, loss

    run(prepared, optimizer, losses, LoopSettings(steps=settings.steps, warmup=0.1), Hooks(), accelerator=accelerator)
    return lora.cpu().eval().requires_grad_(False)


def _batch(task: _Task, chosen: Sequence[int], step: int) -> list[int]:
    """The examples of a step: of tasks with a label a text two or more of each label, otherwise by turns."""
    rng, settings, rows = np.random.default_rng([task.settings.seed, step]), task.settings, np.asarray(chosen)
    size, targets = min(settings.batch, max(2, len(rows))), [task.data.targets[i] for i in chosen]
    if task.family.several or any(len(own) != 1 for own in targets):
        return rng.choice(rows, min(size, len(rows)), replace=False).tolist()
    label = np.concatenate(targets)
    labels = np.unique(label)
    count = min(len(labels), max(1, size // 2))
    groups = [rows[label == labels[n]] for n in rng.choice(len(labels), count, replace=False)]
    drawn = [rng.choice(own, min(size // count, len(own)), replace=False) for own in groups]
    return np.concatenate(drawn).tolist()


def _features(task: _Task, lora: LoraAdapter) -> list[npt.NDArray[np.float32]]:
    return branch_features(task.encoder, [FeatureRequest(task.units, lora)], bf16=task.bf16, states=task.states)[0]


def _settings(model: Model, given: dict[str, Any]) -> LoraSettings:
    """The settings, where none is named with as many targets as the bundle's graphs have inputs for."""
    settings = parse_recipe(given, LoraSettings, "mode lora")
    there = {target for place in model.bundle.manifest.lora_targets for target in LORA_TARGETS[place]}
    if "targets" not in given:
        settings = settings.model_copy(update={"targets": tuple(t for t in settings.targets if t in there)})
    missing = set(settings.targets) - there
    if missing or not there:
        raise TrunklineError(
            f"LoRA on {', '.join(sorted(missing)) or 'no linear layer'}",
            expected=f"some of {', '.join(sorted(there))}, for which the bundle's graphs have inputs",
            todo="Name these as targets, or export the bundle with more LoRA targets",
        )
    return settings


def _encoder(model: Model) -> Encoder:
    """That of the model's bundle, or where it has no weights for torch the default encoder if it is of that."""
    manifest = model.bundle.manifest
    if not manifest.checkpoint:
        default = load_any("default", fork=manifest.encoder.fork, max_length=manifest.encoder.max_length)
        if default.backbone == manifest.backbone:
            return default.encoder
    return bundle_encoder(model.bundle)
