"""Task families behind one Protocol. Adding a family adds one module and one line here."""

from __future__ import annotations

from trunkline.errors import TrunklineError
from trunkline.families.base import Family, Labels, PrefinetuneFamily
from trunkline.families.classification import Classification
from trunkline.families.ner import Ner
from trunkline.families.qa import Qa
from trunkline.families.text import Text

FAMILIES: dict[str, Family] = {"ner": Ner(), "classification": Classification(), "qa": Qa()}
PREFINETUNE_FAMILIES: dict[str, PrefinetuneFamily] = {**FAMILIES, "text": Text()}

__all__ = [
    "FAMILIES",
    "PREFINETUNE_FAMILIES",
    "Family",
    "Labels",
    "PrefinetuneFamily",
    "get_family",
    "get_prefinetune_family",
]


def get_family(name: str) -> Family:
    """The family of a name, whose tasks have labels.

    Raises:
        TrunklineError: There is none of this name.
    """
    if name not in FAMILIES:
        raise TrunklineError(f"family {name!r}", expected="one of " + ", ".join(FAMILIES))
    return FAMILIES[name]


def get_prefinetune_family(name: str) -> PrefinetuneFamily:
    """The family of a name, plain text among them, which has no tasks.

    Raises:
        TrunklineError: There is none of this name.
    """
    if name not in PREFINETUNE_FAMILIES:
        raise TrunklineError(f"family {name!r}", expected="one of " + ", ".join(PREFINETUNE_FAMILIES))
    return PREFINETUNE_FAMILIES[name]
