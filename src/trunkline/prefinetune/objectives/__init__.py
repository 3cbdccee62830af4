"""Objectives of pre-finetuning, one module a family; plain text is one of them, although it has no tasks."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Protocol

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


class PrefinetuneFamily(Protocol):
    """What pre-finetuning needs of a family. Implementations hold no state.

    Attributes:
        name: In recipes.
        kind: The type of its examples.
    """

    name: str
    kind: type[Any]

    def unit_texts(self, examples: Sequence[Any], tokenizer: TextTokenizer) -> list[UnitText]:
        """The texts of examples with their units, in order (one text each; two for a pair)."""
        ...

    def objective(self, recipe: FamilySection, sources: Sequence[Source], embed: TextEmbedder, seed: int) -> nn.Module:
        """The objective over these sources: a module, as it has parameters that are thrown away afterwards.

        Its methods: `targets(drawn, step)` makes what the loss needs of (index of the source, example); called with
        features [units, width] and the targets it gives the loss of a step; `measure(features, targets)` gives the name
        of a retrieval measure and one value in [0, 1] for each query. One that alters the texts before they are encoded
        has, in place of `targets`, `masked(texts, step)`, which returns the altered texts and the targets.
        """
        ...


def get_prefinetune_family(name: str) -> PrefinetuneFamily:
    """The family of a name; raises TrunklineError if there is none."""
    from trunkline.prefinetune.objectives import classification, ner, qa, text

    families = (ner.ConceptFamily(), classification.PairFamily(), qa.PointerFamily(), text.TextFamily())
    known: dict[str, PrefinetuneFamily] = {family.name: family for family in families}
    if name not in known:
        raise TrunklineError(f"family {name!r}", expected="one of " + ", ".join(known))
    return known[name]
