"""Questions about labelled sentences: `Which words name a place?` asks for the entities of that type.

Another reader reads the sentences; a card names one card instead (option `card`, see `trunkline_lab.data.derived`).
Nothing but the choice of concept and template depends on chance, and that on a hash of the sentence, so that the
questions are the same on every machine and do not change when sentences are added.
"""

from __future__ import annotations

import hashlib
import random
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from pydantic import Field, model_validator

from trunkline.errors import DataError, RecipeError
from trunkline.text.examples import NerExample, QaExample
from trunkline_lab.data.readers import READERS
from trunkline_lab.data.readers.base import FileOptions

TEMPLATES = (
    "Which words name {a} {concept}?",
    "What is the {concept}?",
    "What {concept} is mentioned?",
    "Which {concept} does the text name?",
    "Where does the text mention {a} {concept}?",
    "Is {a} {concept} named here, and which one?",
    "Which part of the text is {a} {concept}?",
    "Find the {concept}.",
    "Tell me the {concept}.",
    "{concept}?",
)
"""Several wordings, the bare concept among them, so that a question is more than one key phrase."""

_ARTICLES = ("the ", "a ", "an ")


class NerQuestionsOptions(FileOptions):
    """Options of questions."""

    of: str = Field(default="spans", description="The reader of the sentences.")
    options: dict[str, Any] = Field(default={}, description="Its options.")
    concepts: dict[str, str] = Field(default={}, description="Label -> its natural words; else the label as words.")
    absent: float = Field(
        default=0.2, ge=0, lt=1, description="Share of the questions about a concept that is not in the sentence."
    )
    per_text: int = Field(default=1, ge=1, description="Questions about a sentence, each about another concept.")
    seed: int = 0

    @model_validator(mode="after")
    def _reader_of_sentences(self) -> NerQuestionsOptions:
        kinds = {name: reader.kinds for name, reader in READERS.items()}
        if "ner" not in kinds.get(self.of, ()):
            known = ", ".join(name for name, found in kinds.items() if "ner" in found)
            raise ValueError(f"of: {self.of!r} is no reader of labelled sentences (known: {known})")
        try:
            READERS[self.of].options(self.inner())
        except RecipeError as error:
            raise ValueError("; ".join(error.problems)) from None
        return self

    def inner(self) -> dict[str, Any]:
        """The options of the reader of the sentences."""
        return {"encoding": self.encoding, **self.options}


def read_ner_questions(path: str | Path, options: NerQuestionsOptions) -> Iterator[QaExample]:
    """Yields the questions about each sentence; sentences about which nothing is asked are passed over.

    A question has no answer where its concept is not in the sentence. Asked for are the concepts of `concepts`, or
    where there are none those of the sentences before. That is right only where all mentions of a concept are labelled:
    `absent` is to be 0 for sources of open coverage.

    Raises:
        DataError: As the reader of the sentences raises it, or no question at all.
    """
    known = dict.fromkeys(concept_name(words) for words in options.concepts.values())
    fixed = bool(known)
    for example in READERS[options.of].read(path, options.inner()):
        if not isinstance(example, NerExample):
            raise DataError(
                f"the reader {options.of} gives {type(example).__name__}",
                path=path,
                expected="labelled sentences",
                todo="Correct its options",
            )
        spans: dict[str, list[tuple[int, int]]] = {}
        for span in example.spans:
            name = concept_name(options.concepts.get(span.label) or span.label.replace("_", " ").replace("-", " "))
            spans.setdefault(name, []).append((span.start, span.end))
        if not fixed:
            known.update(dict.fromkeys(spans))
        yield from _ask(example.text, spans, list(known), options)


def _ask(
    text: str, spans: dict[str, list[tuple[int, int]]], known: Sequence[str], options: NerQuestionsOptions
) -> Iterator[QaExample]:
    digest = hashlib.sha256(f"{options.seed}\0{text}".encode("utf-8", "surrogatepass")).digest()
    rng = random.Random(int.from_bytes(digest[:8], "big"))
    present = sorted(spans)
    absent = [name for name in known if name not in spans] if options.absent else []
    for _ in range(options.per_text):
        group = absent if absent and rng.random() < options.absent else present
        if group:
            name = group.pop(rng.randrange(len(group)))
            question = rng.choice(TEMPLATES).format(concept=name, a="an" if name[:1].lower() in "aeiou" else "a")
            answers = dict.fromkeys(spans.get(name, ()))
            yield QaExample(question[0].upper() + question[1:], text, tuple(answers))


def concept_name(words: str) -> str:
    """What a concept is called in a question: its words up to a colon, behind which cards describe it, no article."""
    name = " ".join(words.partition(":")[0].split()) or " ".join(words.split())
    for article in _ARTICLES:
        if name.lower().startswith(article):
            return name[len(article) :]
    return name
