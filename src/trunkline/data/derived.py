"""Cards that are made of other cards: what `reader: ner_questions` with the option `card` takes from there."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from trunkline.errors import TrunklineError

if TYPE_CHECKING:  # cards import this module
    from trunkline.data.cards import Card

QUESTIONS = "ner_questions"


def over_card(raw: Mapping[str, Any], base: Card) -> dict[str, Any]:
    """The content of a card whose option `card` names another one, with that card's files and reader filled in.

    Readers know files, not cards, so this is done when the card is parsed: what comes out names the files of the other
    card and, in its options, that card's reader, its options and its concepts. Existence, fingerprint and errors then
    are those of the files, as for any card.

    Raises:
        TrunklineError: A card that is not of labelled sentences, or some of whose splits have no files of their own.
    """
    if base.kind != "ner":
        raise TrunklineError(f"{base.name} is of kind {base.kind}", expected="a card of kind ner")
    if base.resplit:
        raise TrunklineError(
            f"{base.name} takes {', '.join(base.resplit)} out of another split",
            expected="a card with files for every split, so that no held-out sentence is asked about in train",
        )
    files = {
        split: [
            {
                "path": str(base.resolve(ref.path).resolve()) if ref.path.startswith("./") else ref.path,
                "member": ref.member,
                "options": {"options": {**base.options, **ref.options}},
            }
            for ref in refs
        ]
        for split, refs in base.files.items()
    }
    own = {key: value for key, value in raw["options"].items() if key != "card"}
    concepts = {label: base.concept(label) for label in base.labels}
    options = {"of": base.reader, "concepts": concepts, **own}
    return {"files": files, "encoding": base.encoding, **raw, "options": options}
