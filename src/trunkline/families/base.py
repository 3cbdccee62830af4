"""What a family is: how its examples become units and targets, which objective pre-finetunes it, how it is scored."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn

from trunkline.config import FamilySection
from trunkline.data.batching import UnitText
from trunkline.data.examples import Example
from trunkline.data.mixture import Source
from trunkline.data.tokenize import TextTokenizer, Tokens
from trunkline.model.embed import embed_texts
from trunkline.model.encoder import Encoder

Labels = tuple[str, ...]
Scores = dict[str, float]
FloatArray = npt.NDArray[np.floating[Any]]
Transitions = npt.NDArray[np.float32] | None

WordedText = tuple[str, Sequence[tuple[int, int]]]
"""A text and the character offsets of its words."""


@dataclass(frozen=True)
class TextEmbedder:
    """The encoder that is going to be trained, as it is now, with its tokenizer."""

    encoder: Encoder
    tokenizer: TextTokenizer

    def __call__(self, texts: Sequence[str]) -> Tensor:
        """Mean-pooled embeddings of texts, [texts, width] float32, without gradient."""
        return torch.from_numpy(embed_texts(self.encoder, self.tokenizer, texts))


class Objective(Protocol):
    """A family's pre-finetuning objective; a module, because it has parameters that are thrown away afterwards.

    One that alters the texts before they are encoded has, in place of `targets`, the method
    `masked(texts, step)`, which returns the altered texts with their units, and the targets.
    """

    def __call__(self, features: Tensor, targets: Any) -> Tensor:
        """The loss of a step: features [units, width] and what `targets` made of the examples."""
        ...

    def targets(self, drawn: Sequence[tuple[int, Example]], step: int) -> Any:
        """What the loss needs besides features; `drawn` are (index of the source, example)."""
        ...

    def measure(self, features: Tensor, targets: Any) -> tuple[str, Tensor]:
        """A retrieval measure on held-out data: its name and one value in [0, 1] for each query."""
        ...


class PrefinetuneFamily(Protocol):
    """What pre-finetuning needs of a family. Implementations hold no state."""

    name: str

    def unit_texts(self, examples: Sequence[Any], tokenizer: TextTokenizer) -> list[UnitText]:
        """The texts of examples with their units, in order (one text each; two for a pair)."""
        ...

    def objective(self, recipe: FamilySection, sources: Sequence[Source], embed: TextEmbedder, seed: int) -> nn.Module:
        """The pre-finetuning objective over these sources; satisfies `Objective`."""
        ...


class Family(PrefinetuneFamily, Protocol):
    """A family whose tasks have labels: what fitting, predicting and scoring need besides."""

    main_score: str

    def units(self, text: str, words: Sequence[tuple[int, int]], tokens: Tokens) -> UnitText:
        """The units of a tokenised text."""
        ...

    def labels(self, examples: Sequence[Any]) -> Labels:
        """The outputs of a head for these examples, in a fixed order."""
        ...

    def classes(self, example: Any) -> set[str]:
        """The classes that an example gives evidence of, for drawing few examples of each."""
        ...

    def unit_targets(self, example: Any, labels: Labels) -> list[int]:
        """The index into `labels` of each unit; -1 for a label that the head does not have."""
        ...

    def transitions(self, targets: Sequence[Sequence[int]], labels: Labels) -> Transitions:
        """What the labels of neighbouring units are worth to each other, as `LinearHead` has it, by training targets.

        None where units are decided each for itself.
        """
        ...

    def decode(
        self,
        probabilities: Sequence[FloatArray],
        texts: Sequence[WordedText],
        labels: Labels,
        transitions: Transitions = None,
    ) -> list[Any]:
        """Predictions as plain data, one a text, from its [units, labels] probabilities and the head's transitions."""
        ...

    def score(self, gold: Sequence[Any], predicted: Sequence[Any]) -> Scores:
        """Measures of predictions against examples, each in [0, 1]; `main_score` is among them."""
        ...

    def counts(self, gold: Sequence[Any], predicted: Sequence[Any]) -> list[list[int]]:
        """For each example the counts whose sum gives the main score, so that it can be resampled."""
        ...

    def score_of_counts(self, total: FloatArray) -> float:
        """The main score from summed counts."""
        ...
