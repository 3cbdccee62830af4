"""The sources of a recipe, loaded from their cards."""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

from trunkline.config import FamilySection
from trunkline.data.cards import load_card
from trunkline.data.examples import NerExample, PairExample
from trunkline.data.load import load_examples
from trunkline.data.mixture import Source, split_source
from trunkline.errors import RecipeError, TrunklineError

log = logging.getLogger(__name__)

_KINDS = {"ner": NerExample, "classification": PairExample}


def load_sources(
    family: str, section: FamilySection, seed: int, on_load: Callable[[str], None] = lambda name: None
) -> list[Source]:
    """Loads every source of a family: a card by name or path, or a JSONL file of spans or pairs.

    Raises:
        RecipeError: Sources that cannot be loaded, all of them listed.
    """
    sources, problems = [], []
    for name, share in section.sources.items():
        on_load(name)
        try:
            sources.append(_load(name, family, section, share.weight, share.cap, seed))
        except TrunklineError as error:
            problems.append(f"families.{family}.sources.{name}: {error}")
    if problems:
        raise RecipeError("recipe", problems)
    return _told_apart(sources)


def _load(name: str, family: str, section: FamilySection, weight: float, cap: int | None, seed: int) -> Source:
    closed, concept = True, _as_words
    if Path(name).suffix == ".jsonl":
        examples = load_examples(name, "ner" if family == "ner" else "pairs")
    else:
        card = load_card(name)
        examples = card.load("train")
        closed, concept = card.coverage == "closed", card.concept
    wrong = [example for example in examples if not isinstance(example, _KINDS[family])]
    if wrong or not examples:
        raise TrunklineError(
            f"{name} yields {type(wrong[0]).__name__ if wrong else 'no example'}",
            expected=f"{_KINDS[family].__name__} for {family}",
        )
    train, held_out = split_source(examples, section.held_out, cap, seed)
    labels = {span.label for example in examples if isinstance(example, NerExample) for span in example.spans}
    log.info("%s: %d examples, %d held out, %d concepts", name, len(train), len(held_out), len(labels))
    return Source(Path(name).stem, train, held_out, {label: concept(label) for label in sorted(labels)}, closed, weight)


def _told_apart(sources: list[Source]) -> list[Source]:
    """Numbers sources of one name (files of one name in several folders), as progress is kept by name."""
    seen: Counter[str] = Counter()
    result = []
    for source in sources:
        seen[source.name] += 1
        number = seen[source.name]
        result.append(source if number == 1 else replace(source, name=f"{source.name}-{number}"))
    return result


def _as_words(label: str) -> str:
    return " ".join(label.replace("_", " ").split()).lower()
