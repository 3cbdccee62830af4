"""What names of public data sets mean in recipes of pre-finetuning: cards (`NAME` or `NAME@SPLIT`), else files."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any

from trunkline.config import FamilyName, FamilySection, PrefinetuneRecipe
from trunkline.data.source_card import SourceCard
from trunkline.errors import TrunklineError
from trunkline.prefinetune.sources import FileFinder, Found, HeldOutTexts, recipe_sources
from trunkline.text.examples import Example, NerExample, PairExample, PlainExample, QaExample, TextExample
from trunkline.versions import versions
from trunkline_lab.data.cards import Card, load_card
from trunkline_lab.data.checks import held_out_splits, held_out_texts, tasks_here
from trunkline_lab.data.derived import plain_texts

TASKS = "tasks"
"""In `decontaminate.against`: all tasks that are on this machine."""

_NAME = re.compile(r"[a-z0-9][a-z0-9_]*(@\w+)?")
_KINDS = {"ner": NerExample, "text": TextExample, "pair": PairExample, "qa": QaExample, "plain": PlainExample}


class MixtureFamily(FamilySection):
    """A family's sources, whole."""

    held_out: int = 0


class MixtureRecipe(PrefinetuneRecipe):
    """The sources of pre-finetuning, which several recipes may extend (`extends: FILE`)."""

    families: dict[FamilyName, MixtureFamily]  # type: ignore[assignment]


class CardFinder(FileFinder):
    """Finds public data sets by their cards' names, and files as `FileFinder` does."""

    def open(self, name: str, kind: type[Any]) -> Found:
        """See `trunkline.prefinetune.FileFinder`; the split is train by default."""
        if not _NAME.fullmatch(name):
            return super().open(name, kind)
        card, split = _card(name)
        given = _KINDS[card.kind]
        # All kinds of data have text, so plain text is another view of them.
        view = kind is PlainExample and given is not PlainExample
        if given is not kind and not view:
            raise TrunklineError(f"{name} yields {given.__name__}", expected=kind.__name__)

        def examples() -> Iterable[Example]:
            return plain_texts(card.stream(split)) if view else card.stream(split)

        state = f"{card.name} {card.fingerprint(split)} as {kind.__name__}"
        return Found(source_card(card, split), state, examples)

    def held_out(self, names: Sequence[str]) -> HeldOutTexts:
        """See `trunkline.prefinetune.FileFinder`; of a card its dev and test splits."""
        if any(name != TASKS and not _NAME.fullmatch(name) for name in names):
            return super().held_out(names)
        chosen = [one for name in names for one in (tasks_here() if name == TASKS else [name])]
        cards = [load_card(name) for name in chosen]
        state = " ".join(card.fingerprint(split) for card in cards for split in held_out_splits(card.splits))

        def texts() -> Iterator[tuple[str, str]]:
            for card in cards:
                yield from held_out_texts(card)

        return HeldOutTexts(chosen, state, texts)


def source_card(card: Card, split: str = "train") -> SourceCard:
    """What a run of pre-finetuning keeps of a card."""
    return SourceCard(
        name=card.name if split == "train" else f"{card.name}@{split}",
        title=card.title,
        home=card.home,
        family=card.family,
        licence=card.licence,
        coverage=card.coverage,
        concepts={label: card.concept(label) for label in card.labels},
        quirks=card.quirks,
        counts=dict(card.counts),
    )


def _card(name: str) -> tuple[Card, str]:
    found, at, split = name.partition("@")
    card = load_card(found)
    chosen = split if at else "train"
    if chosen not in card.splits:
        raise TrunklineError(f"{found} has no split {chosen!r}", expected=f"one of {', '.join(card.splits)}")
    return card, chosen


def describe_mixture(
    recipe: MixtureRecipe, say: Callable[[str], None] = lambda text: None, finder: FileFinder | None = None
) -> dict[str, Any]:
    """Reads and cleans a mixture and counts what is in it.

    Returns:
        Plain data: `totals` (sources, examples; labelled sentences and distinct concept texts for NER) by family;
        `sources`, one row each with `examples` as read, `removed`, `left` after the cap, `share` of the draws and
        `licence`; `decontaminated` with the names and threshold.
    """
    finder = finder or FileFinder()
    rows: list[dict[str, Any]] = []
    totals: dict[str, dict[str, int]] = {}
    for family, sources in recipe_sources(recipe, finder=finder, say=say).items():
        whole = sum(source.weight for source in sources)
        concepts: set[str] = set()
        totals[family] = {"sources": len(sources), "examples": sum(len(source.train) for source in sources)}
        for source in sources:
            say(f"counting {source.name}")
            facts = {key: source.facts[key] for key in ("licence", "coverage", "examples", "removed", "why")}
            row = {"family": family, "source": source.name, **facts, "left": len(source.train)}
            if family == "ner":
                labels = [{span.label for span in e.spans} for e in source.train if isinstance(e, NerExample)]
                own = {source.concepts[label] for part in labels for label in part}
                row |= {"labelled": sum(map(bool, labels)), "concepts": len(own)}
                concepts |= own
            rows.append({**row, "share": source.weight / whole})
        if family == "ner":
            labelled = sum(row["labelled"] for row in rows if row["family"] == family)
            totals[family] |= {"labelled": labelled, "concepts": len(concepts)}
    report: dict[str, Any] = {"name": recipe.name, "totals": totals, "sources": rows, "versions": versions()}
    if recipe.decontaminate:
        names = finder.held_out(recipe.decontaminate.against).names
        report["decontaminated"] = {"against": list(names), "threshold": recipe.decontaminate.threshold}
    return report
