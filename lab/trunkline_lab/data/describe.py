"""What the cards say: plain data for tables and JSON."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from trunkline.errors import TrunklineError, nearest
from trunkline_lab.data.cards import list_cards, load_card

ROLES = ("task", "source")
FAMILIES = ("ner", "classification", "qa", "text")


def list_cards_table(role: str | None = None, family: str | None = None) -> list[dict[str, Any]]:
    """The cards that come with the package, a row each, by name; only those of a role and a family of `FAMILIES`."""
    for given, known in ((role, ROLES), (family, FAMILIES)):
        if given is not None and given not in known:
            raise TrunklineError(
                f"no card is of {given!r}{nearest(given, known)}", expected=f"one of {', '.join(known)}"
            )
    cards = [load_card(name) for name in list_cards()]
    return [
        {
            "name": card.name,
            "role": card.role,
            "family": card.family,
            "kind": card.kind,
            "licence": card.licence,
            "labels": len(card.labels),
            "counts": dict(card.counts),
            "here": card.is_here(),
        }
        for card in cards
        if role in (None, card.role) and family in (None, card.family)
    ]


def show(name: str | Path) -> dict[str, Any]:
    """Everything that a card says, its labels as the concepts they are, and where its files are looked for.

    Returns:
        The card's keys; `files` has for each split a list of `path`, `member`, `options`, `file` (on this machine;
        None without a data folder), `here` and `bytes` (None for what is not here or is a folder).
    """
    card = load_card(name)
    content = card.model_dump(mode="json", by_alias=True)
    for refs in content["files"].values():
        for ref in refs:
            file = card.locate(ref["path"])
            ref["file"] = str(file) if file else None
            ref["here"] = bool(file and file.exists())
            ref["bytes"] = file.stat().st_size if file and file.is_file() else None
    content["labels"] = {label: card.concept(label) for label in card.labels}
    content["here"] = card.is_here()
    return content
