"""What `fit` says."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from trunkline.tasks import Scores


@dataclass(frozen=True, slots=True)
class FitReport:
    """What fitting a task gave.

    Attributes:
        task: Its name.
        family: Its family.
        mode: `head` or `lora`.
        labels: The labels, entity types for NER.
        examples: Numbers of `train`, `dev` and `test` examples.
        cross_validation: `scores` on held-out folds (or on dev), `log_loss`, and the settings that were chosen.
        test: Scores on test; empty without one.
        engine: What computed the features, with weights of this `precision`.
        bytes: Size of the task's file.
        seconds: Wall time of the fit.
        replaced: Cross-validated scores of the task that was replaced, if there was one.
        warnings: What a user should know.
    """

    task: str
    family: str
    mode: str
    labels: Sequence[str]
    examples: Mapping[str, int]
    cross_validation: Mapping[str, Any]
    test: Scores
    engine: str
    precision: str
    bytes: int
    seconds: float
    replaced: Scores | None = None
    warnings: Sequence[str] = ()

    to_dict = dataclasses.asdict
    """Plain data for JSON, where every number is finite."""
