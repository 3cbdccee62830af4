"""Task families, one module each: labels, units, decoding and scores. Adding one adds a module and two names here."""

from __future__ import annotations

from trunkline.errors import TrunklineError
from trunkline.tasks.classification import Classification, Labels, Scored, Scores
from trunkline.tasks.multilabel import MultiLabel
from trunkline.tasks.ner import Ner
from trunkline.tasks.qa import Qa

Family = Classification
"""All families have its methods."""


class _Families(dict[str, Family]):
    def __missing__(self, name: str) -> Family:
        raise TrunklineError(f"family {name!r}", expected="one of " + ", ".join(self))


FAMILIES = _Families(ner=Ner(), classification=Classification(), multilabel=MultiLabel(), qa=Qa())
"""The families by name; raises TrunklineError for another name."""

__all__ = ["FAMILIES", "Family", "Labels", "Scored", "Scores"]
