"""What a mixture holds: examples, labelled sentences, concepts, what decontamination removed, and the schedule."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from trunkline.config import MixtureRecipe, PrefinetuneRecipe
from trunkline.prefinetune.corpus import Subset
from trunkline.prefinetune.mixture import Mixture, Source, split_source
from trunkline.prefinetune.sources import Decontaminator, Opened, open_sources
from trunkline.text.examples import Example, NerExample
from trunkline.versions import versions

_SAMPLE = 500
"""Examples of a source from which their mean length is estimated."""


def describe_mixture(recipe: MixtureRecipe, say: Callable[[str], None] = lambda text: None) -> dict[str, Any]:
    """Reads and cleans a mixture and counts what is in it.

    Returns:
        Plain data: `totals` (sources, examples; labelled sentences and distinct concept texts for NER, pairs for
        classification) by family; `sources`, one row each with `examples` as read, `removed`, `left` after the cap,
        `share` of the draws and `licence`; `decontaminated` with the tasks and threshold.
    """
    clean = Decontaminator(recipe.decontaminate) if recipe.decontaminate else None
    rows: list[dict[str, Any]] = []
    totals: dict[str, dict[str, int]] = {}
    for family, section in recipe.families.items():
        opened = open_sources(family, section, clean, lambda name: say(f"reading {name}"))
        caps = [share.cap for share in section.sources.values()]
        weights = [share.weight for share in section.sources.values()]
        concepts: set[str] = set()
        found = []
        for source, cap in zip(opened, caps, strict=True):
            say(f"counting {source.name}")
            found.append(_count(family, source, cap, concepts))
        if section.source_temperature is not None:
            sizes = [float(row["left"]) ** (1 / section.source_temperature) for row in found]
            weights = [weight * size for weight, size in zip(weights, sizes, strict=True)]
        for row, weight in zip(found, weights, strict=True):
            row["share"] = weight / sum(weights)
        rows += found
        totals[family] = {"sources": len(found), "examples": sum(row["left"] for row in found)}
        if family == "ner":
            totals[family] |= {"labelled": sum(row["labelled"] for row in found), "concepts": len(concepts)}
    report: dict[str, Any] = {"name": recipe.name, "totals": totals, "sources": rows, "versions": versions()}
    if clean is not None:
        report["decontaminated"] = {"against": clean.cards, "threshold": clean.section.threshold}
    return report


def _count(family: str, source: Opened, cap: int | None, concepts: set[str]) -> dict[str, Any]:
    left = source.kept[split_source(len(source.kept), 0, cap, 0)[0]]
    row: dict[str, Any] = {
        "family": family,
        "source": source.name,
        "licence": source.card.licence if source.card else "",
        "coverage": source.card.coverage if source.card else "closed",
        "examples": len(source.corpus),
        "removed": len(source.corpus) - len(source.kept),
        # The texts stay where they are: a report may be published, the data often may not.
        "why": {key: value for key, value in source.removed.items() if key.startswith("by_")},
        "left": len(left),
    }
    if family == "ner":
        labels = _labels(Subset(source.corpus, left))
        own = {source.concept(label) for part in labels for label in part}
        row |= {"labelled": sum(bool(part) for part in labels), "concepts": len(own)}
        concepts |= own
    return row


def _labels(examples: Sequence[Example]) -> list[set[str]]:
    return [{span.label for span in example.spans} for example in examples if isinstance(example, NerExample)]


def schedule(recipe: PrefinetuneRecipe, sources: Mapping[str, Sequence[Source]]) -> list[dict[str, Any]]:
    """What a run is expected to draw from each source, from its weights and the mean length of its examples.

    Returns:
        Rows with `family`, `source`, `share` (of the draws of its family; of the steps where a step has one source),
        `examples` (drawn in the whole run), `tokens` and `epochs`.
    """
    rows = []
    for family, section in recipe.families.items():
        shares = Mixture(sources[family], recipe.seed).shares
        lengths = np.asarray([_mean_tokens(source) for source in sources[family]])
        if section.one_source_a_step:
            draws = shares * section.tokens / lengths
        else:
            draws = shares * section.tokens / float(shares @ lengths)
        for source, share, length, drawn in zip(sources[family], shares, lengths, draws, strict=True):
            examples = float(drawn) * recipe.optimizer.steps
            rows.append(
                {
                    "family": family,
                    "source": source.name,
                    "share": float(share),
                    "examples": round(examples),
                    "tokens": round(examples * float(length)),
                    "epochs": round(examples / len(source.train), 3),
                }
            )
    return rows


def _mean_tokens(source: Source) -> float:
    if source.units is None:
        return 1.0
    some = [source.units[i] for i in range(min(len(source.train), _SAMPLE))]
    return sum(text.size for texts in some for text in texts) / len(some)
