"""Recipes: frozen, validated YAML. Every problem is reported at once, with the nearest valid name."""

from trunkline.config.reading import load_recipe, parse_recipe
from trunkline.config.recipes import (
    AdapterSection,
    DecontaminateSection,
    FamilyName,
    FamilySection,
    Fraction,
    MixtureFamily,
    MixtureRecipe,
    PositiveFloat,
    PositiveInt,
    PrefinetuneRecipe,
    ProbeSection,
    Section,
    Seed,
)

__all__ = [
    "AdapterSection",
    "DecontaminateSection",
    "FamilyName",
    "FamilySection",
    "Fraction",
    "MixtureFamily",
    "MixtureRecipe",
    "PositiveFloat",
    "PositiveInt",
    "PrefinetuneRecipe",
    "ProbeSection",
    "Section",
    "Seed",
    "load_recipe",
    "parse_recipe",
]
