"""What is made of other data: cards over cards (`reader: ner_questions` with the option `card`), and the bare texts."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator, Mapping
from typing import TYPE_CHECKING, Any

from trunkline.data.overlap import example_texts
from trunkline.errors import TrunklineError
from trunkline.text.examples import Example, PlainExample
from trunkline_lab.data.readers.plain import Passages, cut_text

if TYPE_CHECKING:  # cards import this module
    from trunkline_lab.data.cards import Card

QUESTIONS = "ner_questions"

_PASSAGES = Passages(min_words=5)


def plain_texts(examples: Iterable[Example]) -> Iterator[PlainExample]:
    """The bare texts of examples of any kind: a sentence, both sides of a pair, a question and its context.

    Plain texts pass as they are. Others are cut into passages of at most 200 words, at sentence ends where there are
    any, as readers of plain text do it. Passages of fewer than 5 words are left out, and those that were there before,
    as a turn of a dialogue is the second of one pair and the first of the next; a hash of 8 bytes of each is kept.
    """
    seen: set[bytes] = set()
    for example in examples:
        if isinstance(example, PlainExample):
            yield example
            continue
        for text in example_texts(example):
            for passage in cut_text(text, _PASSAGES):
                digest = hashlib.blake2b(passage.text.encode("utf-8", "surrogatepass"), digest_size=8).digest()
                if digest not in seen:
                    seen.add(digest)
                    yield passage


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
    published = {path: file.model_dump() for path, file in base.published.items()}
    return {"files": files, "encoding": base.encoding, "published": published, **raw, "options": options}
