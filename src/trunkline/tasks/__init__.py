"""Task families: labels, units, decoding and scores, one module each. Adding one adds a module and a line here."""

from __future__ import annotations

from trunkline.errors import TrunklineError
from trunkline.tasks.base import Family, Labels, Scored, Scores
from trunkline.tasks.classification import Classification
from trunkline.tasks.ner import Ner
from trunkline.tasks.qa import Qa


class _Families(dict[str, Family]):
    """The families by name."""

    def __missing__(self, name: str) -> Family:
        raise TrunklineError(f"family {name!r}", expected="one of " + ", ".join(self))


FAMILIES = _Families(ner=Ner(), classification=Classification(), qa=Qa())
"""The families by name; raises TrunklineError for another name."""

get_family = FAMILIES.__getitem__

__all__ = ["FAMILIES", "Family", "Labels", "Scored", "Scores", "get_family"]
