"""Objectives of pre-finetuning, one module a family; plain text is one of them, although it has no tasks."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Self

import torch
from torch import Tensor, nn

from trunkline.config import FamilySection
from trunkline.encoder.encoder import Encoder
from trunkline.encoder.features import embed_texts
from trunkline.errors import TrunklineError
from trunkline.prefinetune.mixture import Source
from trunkline.text.tokens import TextTokenizer, UnitText


@dataclass(frozen=True)
class TextEmbedder:
    """The encoder that is going to be trained, as it is now, with its tokenizer."""

    encoder: Encoder
    tokenizer: TextTokenizer

    def __call__(self, texts: Sequence[str]) -> Tensor:
        """Mean-pooled embeddings of texts, [texts, width] float32, without gradient."""
        return torch.from_numpy(embed_texts(self.encoder, self.tokenizer, texts))


class Objective(nn.Module):
    """A family's loss: called with features [units, width] and targets it gives that of a step.

    Its parameters are thrown away after the run. `kind` is the type of the family's examples.
    """

    kind: type[Any]

    @classmethod
    def of(cls, section: FamilySection, sources: Sequence[Source], embed: TextEmbedder, seed: int) -> Self:
        """The objective over these sources."""
        raise NotImplementedError

    @staticmethod
    def unit_texts(examples: Sequence[Any], tokenizer: TextTokenizer) -> list[UnitText]:
        """The texts of examples with their units, in order (one text each; two for a pair)."""
        raise NotImplementedError

    def prepare(self, units: list[UnitText], drawn: Sequence[tuple[int, Any]], step: int) -> tuple[list[UnitText], Any]:
        """The texts of a step as the encoder gets them, and what the loss needs of (number of the source, example)."""
        return units, self.targets(drawn, step)

    def targets(self, drawn: Sequence[tuple[int, Any]], step: int) -> Any:
        """The targets of `prepare`, where it leaves the texts as they are."""
        raise NotImplementedError

    def measure(self, features: Tensor, targets: Any) -> tuple[str, Tensor]:
        """The name of a retrieval measure, and one value in [0, 1] for each query."""
        raise NotImplementedError


def get_objective(family: str) -> type[Objective]:
    """The objective of a family; raises TrunklineError if there is none."""
    from trunkline.prefinetune.objectives.classification import TextPairObjective
    from trunkline.prefinetune.objectives.ner import TokenConceptObjective
    from trunkline.prefinetune.objectives.qa import SpanPointerObjective
    from trunkline.prefinetune.objectives.text import MaskedTextObjective

    known: dict[str, type[Objective]] = {
        "ner": TokenConceptObjective,
        "classification": TextPairObjective,
        "qa": SpanPointerObjective,
        "text": MaskedTextObjective,
    }
    if family not in known:
        raise TrunklineError(f"family {family!r}", expected="one of " + ", ".join(known))
    return known[family]
