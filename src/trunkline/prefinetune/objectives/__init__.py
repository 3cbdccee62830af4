"""Objectives of pre-finetuning, one module a family; plain text is one of them, although it has no tasks."""

from __future__ import annotations

from trunkline.errors import TrunklineError
from trunkline.prefinetune.objectives.base import PrefinetuneFamily, TextEmbedder
from trunkline.prefinetune.objectives.classification import PairFamily
from trunkline.prefinetune.objectives.ner import ConceptFamily
from trunkline.prefinetune.objectives.qa import PointerFamily
from trunkline.prefinetune.objectives.text import TextFamily

_FAMILIES = (ConceptFamily(), PairFamily(), PointerFamily(), TextFamily())
PREFINETUNE_FAMILIES: dict[str, PrefinetuneFamily] = {family.name: family for family in _FAMILIES}

__all__ = ["PREFINETUNE_FAMILIES", "PrefinetuneFamily", "TextEmbedder", "get_prefinetune_family"]


def get_prefinetune_family(name: str) -> PrefinetuneFamily:
    """The family of a name; raises TrunklineError if there is none."""
    if name not in PREFINETUNE_FAMILIES:
        raise TrunklineError(f"family {name!r}", expected="one of " + ", ".join(PREFINETUNE_FAMILIES))
    return PREFINETUNE_FAMILIES[name]
