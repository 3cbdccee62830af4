"""What a mixture holds: examples, labelled sentences, concepts, and what decontamination removed."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from trunkline.config import MixtureRecipe
from trunkline.prefinetune.sources import FileFinder, recipe_sources
from trunkline.text.examples import NerExample
from trunkline.versions import versions


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
