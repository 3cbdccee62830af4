"""Task families behind one Protocol. Adding a family adds one module and one line here."""

from __future__ import annotations

from trunkline.errors import TrunklineError
from trunkline.families.base import Family, Labels
from trunkline.families.classification import Classification
from trunkline.families.ner import Ner
from trunkline.families.qa import Qa

FAMILIES: dict[str, Family] = {"ner": Ner(), "classification": Classification(), "qa": Qa()}

__all__ = ["FAMILIES", "Family", "Labels", "get_family"]


def get_family(name: str) -> Family:
    """The family of a name.

    Raises:
        TrunklineError: There is none of this name.
    """
    if name not in FAMILIES:
        raise TrunklineError(f"family {name!r}", expected="one of " + ", ".join(FAMILIES))
    return FAMILIES[name]
