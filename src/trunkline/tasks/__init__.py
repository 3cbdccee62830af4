"""Task families: labels, units, decoding and scores, one module each. Adding one adds a module and a line here."""

from __future__ import annotations

from trunkline.errors import TrunklineError
from trunkline.tasks.base import Family, Labels, Scored, Scores
from trunkline.tasks.classification import Classification
from trunkline.tasks.ner import Ner
from trunkline.tasks.qa import Qa

FAMILIES: dict[str, Family] = {"ner": Ner(), "classification": Classification(), "qa": Qa()}

__all__ = ["FAMILIES", "Family", "Labels", "Scored", "Scores", "get_family"]


def get_family(name: str) -> Family:
    """The family of a name.

    Raises:
        TrunklineError: There is none of this name.
    """
    if name not in FAMILIES:
        raise TrunklineError(f"family {name!r}", expected="one of " + ", ".join(FAMILIES))
    return FAMILIES[name]
