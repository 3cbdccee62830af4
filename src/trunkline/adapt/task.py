"""A task with LoRA of its own, fitted for a model."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import fields, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from trunkline.adapt.few_labels import LoraSettings, tune_lora
from trunkline.bundle.lora import LORA_TARGETS
from trunkline.bundle.parts import Task, read_task, task_bytes
from trunkline.encoder.bundle_files import bundle_encoder, load_any
from trunkline.encoder.encoder import Encoder
from trunkline.encoder.lora import adapter_arrays, lora_from_arrays
from trunkline.errors import TrunklineError
from trunkline.heads.fit import FittedHead
from trunkline.tasks import get_family

if TYPE_CHECKING:
    from trunkline.model import Model


def fit_lora(
    model: Model,
    name: str,
    family: str,
    parts: tuple[Sequence[Any], Sequence[Any]],
    *,
    only_if_better: bool = False,
    **settings: Any,
) -> tuple[Task, dict[str, Any]]:
    """Trains LoRA and a head for a task of a model.

    Args:
        model: Its encoder must have weights for torch: in its bundle, or as the default encoder's package.
        name: The task's name.
        family: Its family.
        parts: Train and dev examples.
        only_if_better: Whether the LoRA is kept only if it has less held-out log loss than the head alone.
        settings: Of `LoraSettings`.

    Returns:
        The task, and how it was chosen.

    Raises:
        TrunklineError: An unknown setting, or no weights for torch.
    """
    asked = _settings(model, settings)
    examples, kind = [*parts[0], *parts[1]], get_family(family)
    # One task more, or another one of this name, maybe of another family.
    manifest = replace(model.bundle.manifest, tasks={})
    units = kind.choose_units(parts[0], model.tokenizer)
    encoder, labels = _encoder(model), kind.labels(parts[0])
    primary = model.bundle.primaries.get(family)
    lora = None if primary is None else lora_from_arrays(primary.lora_arrays(), primary.alpha, encoder.config)
    data, texts = model.labelled(examples, family, units, labels)
    tuned = tune_lora(encoder, lora, kind, data, texts, labels, n_dev=len(parts[1]), settings=asked)
    before, after = tuned.before.log_loss, tuned.fitted.log_loss
    if only_if_better and (before is None or after is None or before <= after):
        task, chosen = model._fit_head(name, family, parts, asked.seed, class_weight=asked.class_weight)
        return task, {**chosen, "lora": _summary(tuned.fitted)}
    chosen = {**tuned.fitted.record(), "head": _summary(tuned.before), **settings}
    info = {"mode": "lora", "examples": len(parts[0]), "cross_validation": chosen, "engine": "torch"}
    content = task_bytes(
        manifest,
        family,
        labels,
        tuned.fitted.head,
        units=units,
        lora=adapter_arrays(tuned.lora),
        alpha=tuned.lora.config.alpha,
        info=info,
    )
    return read_task(content, manifest, name), chosen


def _settings(model: Model, given: dict[str, Any]) -> LoraSettings:
    """The settings, where none is named with as many targets as the bundle's graphs have inputs for."""
    known = [field.name for field in fields(LoraSettings)]
    unknown = sorted(given.keys() - set(known))
    if unknown:
        raise TrunklineError(f"mode lora has no setting {unknown[0]!r}", expected="some of " + ", ".join(known))
    settings = LoraSettings(**given)
    there = {target for place in model.bundle.manifest.lora_targets for target in LORA_TARGETS[place]}
    if "targets" not in given:
        settings = replace(settings, targets=tuple(target for target in settings.targets if target in there))
    missing = set(settings.targets) - there
    if missing or not there:
        raise TrunklineError(
            f"LoRA on {', '.join(sorted(missing)) or 'no linear layer'}",
            expected=f"some of {', '.join(sorted(there))}, for which the bundle's graphs have inputs",
            todo="Name these as targets, or export the bundle with more LoRA targets",
        )
    return settings


def _summary(fitted: FittedHead) -> dict[str, Any]:
    record = fitted.record()
    return {"log_loss": record["log_loss"], "scores": record["scores"]}


def _encoder(model: Model) -> Encoder:
    manifest = model.bundle.manifest
    if manifest.checkpoint:
        return bundle_encoder(model.bundle)
    loaded = load_any("default", fork=manifest.encoder.fork, max_length=manifest.encoder.max_length)
    if loaded.backbone != manifest.backbone:
        raise TrunklineError(
            f"{Path(model.folder)} has graphs for ONNX Runtime alone, of an encoder that is not the default one",
            expected="a bundle with weights for torch",
            todo="Fit on the bundle that it was exported from",
        )
    return loaded.encoder
