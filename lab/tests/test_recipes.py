"""The recipes of the lab parse, and name cards and splits that there are."""

from __future__ import annotations

from pathlib import Path

import pytest

from trunkline.config import load_recipe
from trunkline_lab.benchmark.suite import SuiteRecipe
from trunkline_lab.data.cards import load_card
from trunkline_lab.data.finder import MixtureRecipe
from trunkline_lab.probes import ProbedRecipe

RECIPES = Path(__file__).resolve().parents[1] / "recipes"
FOUND = sorted(RECIPES.rglob("*.yaml"))
KINDS = {"suites": SuiteRecipe, "mixtures": MixtureRecipe}


@pytest.mark.parametrize("path", FOUND, ids=lambda path: str(path.relative_to(RECIPES)))
def test_recipes_parse_and_their_cards_exist(path: Path) -> None:
    recipe = load_recipe(path, KINDS.get(path.parent.name, ProbedRecipe))
    assert recipe.name == path.stem
    if isinstance(recipe, SuiteRecipe):
        return  # knows the cards of its tasks, and what splits they need
    probes = recipe.monitor.probes.values() if isinstance(recipe, ProbedRecipe) else ()
    names = [name for family in recipe.families.values() for name in family.sources]
    names += [name for probe in probes for name in (probe.train, probe.dev)]
    for name in names:
        card, _, split = name.partition("@")
        assert (split or "train") in load_card(card).splits, name


def test_there_are_recipes_of_every_kind() -> None:
    assert {path.parent.name for path in FOUND} == {"recipes", "strategies", "mixtures", "suites"}
