"""Fine-tuning of the whole encoder: the reference for adaptation, which leaves no small file but a whole encoder.

The head starts at its convex fit on frozen features, as for LoRA, so that the two differ only in what is trained.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

from trunkline.adapt import fitting
from trunkline.adapt.fit import FeatureMap, TaskData
from trunkline.adapt.lora import TaskModel, fine_tune
from trunkline.config import AdaptSection
from trunkline.encoder.bundle_files import Loaded
from trunkline.encoder.encoder import Encoder
from trunkline.encoder.lora import LoraAdapter
from trunkline.heads.linear import LinearHead
from trunkline.tasks import get_family
from trunkline.tasks.base import Labels, Scores
from trunkline.training.checkpoint import seed_everything


@dataclass(frozen=True)
class FullyTuned:
    """A fine-tuned encoder with its adapter (if it began with one) and head, its scores and predictions on test."""

    encoder: Encoder
    lora: LoraAdapter | None
    head: LinearHead
    labels: Labels
    dev: Scores
    test: Scores
    predictions: Sequence[Any]
    best_epoch: int
    epochs: int

    @property
    def n_bytes(self) -> int:
        """Bytes of all weights in float32, which a task that is fine-tuned fully has for itself."""
        parameters = [*self.encoder.parameters(), *(self.lora.parameters() if self.lora is not None else ())]
        arrays = [self.head.weight, self.head.bias, self.head.transitions]
        sizes = [parameter.numel() for parameter in parameters] + [array.size for array in arrays if array is not None]
        return 4 * sum(sizes)


def fine_tune_fully(
    task: TaskData,
    start: Loaded,
    section: AdaptSection,
    features: FeatureMap,
    *,
    seed: int = 0,
    progress: Callable[[str], None] = lambda text: None,
) -> FullyTuned:
    """Trains a copy of the encoder, the family's primary adapter if there is one, and a head, all together.

    Args:
        task: Its examples; the epoch is chosen on dev.
        start: The encoder; it is left as it is.
        section: `rate` is that of the encoder and the adapter; `mode` and `adapter` are not read.
        features: `train` and `dev` features of the encoder as it is, for the head's start.
        seed: Of the order of batches and of dropout.
        progress: Receives a line of text now and then.
    """
    family = get_family(task.family)
    labels = family.labels(task.train)
    head, _, _ = fitting.fit(
        family, (features["train"], task.train), (features["dev"], task.dev), labels, section.penalties
    )
    seed_everything(seed)
    encoder = copy.deepcopy(start.encoder).requires_grad_(True)
    encoder.dropout = section.dropout
    lora = copy.deepcopy(start.primary(task.family))
    if lora is not None:
        lora.requires_grad_(True)
    tuned = replace(start, encoder=encoder)
    model = TaskModel(lora, head, encoder)
    own = [*encoder.parameters(), *(lora.parameters() if lora is not None else ())]
    best_epoch, epochs = fine_tune(
        model,
        {"encoder": (own, section.rate)},
        (task.train, task.dev),
        tuned,
        section,
        (family, labels, head),
        seed=seed,
        progress=progress,
    )
    model.eval()

    def features_of(examples: Sequence[Any]) -> Sequence[Any]:
        return fitting.example_features(family, examples, encoder, start.tokenizer, lora)

    head = model.head()
    dev = fitting.score(family, head, features_of(task.dev), task.dev, labels)
    predictions = fitting.predict(family, head, features_of(task.test), task.test, labels) if task.test else []
    test = family.score(task.test, predictions) if task.test else {}
    return FullyTuned(encoder, lora, head, labels, dev, test, predictions, best_epoch, epochs)
