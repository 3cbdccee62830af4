"""Objectives of pre-finetuning, one module a family; plain text is one of them, although it has no tasks."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from torch import Tensor, nn

from trunkline.config import FamilySection
from trunkline.encoder.bundle_files import Loaded
from trunkline.encoder.encoder import embed_texts
from trunkline.errors import TrunklineError
from trunkline.prefinetune.model import Source
from trunkline.text.tokens import TextTokenizer, UnitText


class Objective(nn.Module):
    """A family's loss: called with features [units, width] and targets it gives that of a step.

    Its parameters are thrown away after the run. `kind` is the type of the family's examples, and
    `unit_texts(examples, tokenizer)` gives their texts with their units, in order (one text each; two for a pair).
    `measure(features, targets)` gives the name of a retrieval measure, and one value in [0, 1] for each query.
    """

    kind: type[Any]
    unit_texts: Callable[[Sequence[Any], TextTokenizer], list[UnitText]]
    targets: Callable[[Sequence[tuple[int, Any]], int], Any]
    measure: Callable[[Tensor, Any], tuple[str, Tensor]]

    def prepare(self, units: list[UnitText], drawn: Sequence[tuple[int, Any]], step: int) -> tuple[list[UnitText], Any]:
        """The texts of a step as the encoder gets them, and what the loss needs of (number of the source, example)."""
        return units, self.targets(drawn, step)


def get_objective(family: str) -> type[Objective]:
    """The objective of a family; raises TrunklineError if there is none."""
    from trunkline.prefinetune.objectives import classification, ner, qa, text

    known: dict[str, type[Objective]] = {
        "ner": ner.TokenConceptObjective,
        "classification": classification.TextPairObjective,
        "qa": qa.SpanPointerObjective,
        "text": text.MaskedTextObjective,
    }
    if family not in known:
        raise TrunklineError(f"family {family!r}", expected="one of " + ", ".join(known))
    return known[family]


def make_objective(
    family: str, section: FamilySection, sources: Sequence[Source], start: Loaded, seed: int
) -> Objective:
    """A family's objective over its sources, for the encoder as it is at the start.

    Raises:
        TrunklineError: Sources of NER without a concept.
        EncoderError: Plain text, and the tokenizer has no mask token.
    """
    kind: Any = get_objective(family)
    encoder, tokenizer = start.encoder, start.tokenizer
    made: dict[str, Callable[[], Objective]] = {
        "ner": lambda: kind(sources, lambda texts: embed_texts(encoder, tokenizer, texts), section.negatives, seed),
        "classification": lambda: kind(section.temperature),
        "qa": lambda: kind(encoder.config.hidden_size),
        "text": lambda: kind(encoder, tokenizer, seed),
    }
    return made[family]()
