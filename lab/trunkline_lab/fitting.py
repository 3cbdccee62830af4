"""Tasks fitted in torch for the lab, on features that cells share: the product's heads and LoRA, n labels in all.

Nothing is set aside: settings are chosen by cross-validation among the labels, as `Model.fit` does.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from trunkline.adapt import LoraSettings, tune_lora
from trunkline.bundle.manifest import Manifest
from trunkline.bundle.parts import Head, task_bytes
from trunkline.encoder.bundle_files import Loaded
from trunkline.encoder.encoder import Encoder, FeatureRequest, Features, branch_features
from trunkline.encoder.lora import Deltas, LoraAdapter, adapter_arrays
from trunkline.errors import TrunklineError
from trunkline.heads.fit import LabelledFeatures, fit_head
from trunkline.tasks import FAMILIES, Family, Labels, Scored
from trunkline.tasks.classification import Scores, softmax
from trunkline.text.tokens import TextTokenizer, UnitText
from trunkline.text.words import split_words


@dataclass(frozen=True)
class TaskData:
    """A task: its family and its labelled parts; `test` may be empty."""

    name: str
    family: str
    train: Sequence[Any]
    dev: Sequence[Any] = ()
    test: Sequence[Any] = ()


@dataclass(frozen=True)
class Fitted:
    """A fitted task.

    Attributes:
        family: Of the task.
        labels: The head's outputs.
        head: The head.
        lora: LoRA of its own, if any.
        units: What gets a label.
        info: How it was made.
        held_out: Scores by cross-validation among the labels, or on dev.
        test: Scores on test.
        predictions: On test.
        chosen: The settings that were chosen.
    """

    family: str
    labels: Labels
    head: Head
    lora: LoraAdapter | None
    units: str
    info: dict[str, Any]
    held_out: Scores
    test: Scores
    predictions: Sequence[Any]
    chosen: dict[str, Any]


def example_units(family: Family, examples: Sequence[Any], tokenizer: TextTokenizer) -> list[UnitText]:
    """Tokenises examples, one text each."""
    tokens = tokenizer.encode([example.text for example in examples])
    return [family.units(part, part.words) for part in tokens]


def example_features(
    family: Family,
    examples: Sequence[Any],
    encoder: Encoder,
    tokenizer: TextTokenizer,
    deltas: Deltas | None = None,
    *,
    bf16: bool = False,
) -> list[Features]:
    """[units, width] features of each example through one branch."""
    units = example_units(family, examples, tokenizer)
    return branch_features(encoder, [FeatureRequest(units, deltas)], bf16=bf16)[0]


def labelled(family: Family, examples: Sequence[Any], features: Sequence[Features], labels: Labels) -> LabelledFeatures:
    """Examples with their features as heads are fitted on them."""
    words = [split_words(example.text) for example in examples]
    targets = [family.unit_targets(e, labels, w) for e, w in zip(examples, words, strict=True)]
    texts = [(example.text, own) for example, own in zip(examples, words, strict=True)]
    return LabelledFeatures(examples, texts, family.widened(texts, features) if features else [], targets)


def predict(
    family: Family, head: Head, features: Sequence[Features], examples: Sequence[Any], labels: Labels
) -> list[Any]:
    """Predictions as plain data, one for each example."""
    texts = [(example.text, split_words(example.text)) for example in examples]
    probabilities = [softmax(part @ head.weight + head.bias) for part in family.widened(texts, features)]
    return family.decode([Scored(probabilities, texts, labels, head.transitions)])[0]


def fit(
    task: TaskData,
    start: Loaded,
    *,
    mode: str = "head",
    lora: LoraSettings | None = None,
    seed: int = 0,
    features: dict[str, Sequence[Features]] | None = None,
    bf16: bool = False,
) -> Fitted:
    """Fits a task on a frozen encoder, from its family's primary adapter where there is one.

    Args:
        task: Settings are chosen on `dev` where it is not empty, otherwise by cross-validation.
        start: The encoder.
        mode: `head` or `lora`.
        lora: Settings of mode lora.
        seed: Of folds, of LoRA's start and its batches.
        features: `train`, `dev` and `test` features where they are known; computed if not.
        bf16: Whether features that are computed here are in bf16.

    Raises:
        TrunklineError: No examples to train on.
    """
    if not task.train:
        raise TrunklineError(f"task {task.name} has no train examples", expected="at least two")
    family = FAMILIES[task.family]
    labels, examples, primary = family.labels(task.train), [*task.train, *task.dev], start.primaries.get(task.family)

    def compute(part: Sequence[Any], deltas: Deltas | None) -> list[Features]:
        if not part:
            return []
        return example_features(family, part, start.encoder, start.tokenizer, deltas, bf16=bf16)

    updates = None
    if mode == "lora":
        units = example_units(family, examples, start.tokenizer)
        data = labelled(family, examples, [], labels)
        settings = (lora or LoraSettings()).model_copy(update={"seed": seed})
        tuned = tune_lora(start.encoder, primary, family, data, units, labels, n_dev=len(task.dev), settings=settings)
        updates, fitted, chosen = tuned.lora, tuned.fitted, tuned.fitted.record()
        test_features: Sequence[Features] = compute(task.test, updates)
    else:
        known = features or {part: compute(getattr(task, part), primary) for part in ("train", "dev", "test")}
        data = labelled(family, examples, [*known["train"], *known["dev"]], labels)
        fitted = fit_head(family, data, labels, n_dev=len(task.dev), seed=seed)
        chosen, test_features = fitted.record(), known["test"]
    predictions = predict(family, fitted.head, test_features, task.test, labels) if task.test else []
    return Fitted(
        family=task.family,
        labels=labels,
        head=fitted.head,
        lora=updates,
        units=family.choose_units([], start.tokenizer),
        info={"task": task.name, "mode": mode, "examples": len(task.train), "cross_validation": chosen},
        held_out=fitted.scores,
        test=family.score(task.test, predictions) if task.test else {},
        predictions=predictions,
        chosen=chosen,
    )


def file_of(fitted: Fitted, manifest: Manifest) -> bytes:
    """The task's file for the bundle of a manifest."""
    lora, alpha = (None, 0.0) if fitted.lora is None else (adapter_arrays(fitted.lora), fitted.lora.config.alpha)
    return task_bytes(
        manifest,
        fitted.family,
        fitted.labels,
        fitted.head,
        units=fitted.units,
        lora=lora,
        alpha=alpha,
        info=fitted.info,
    )
