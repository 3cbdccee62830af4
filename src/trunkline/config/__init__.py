"""Recipes: frozen, validated YAML. Every problem is reported at once, with the nearest valid name."""

from trunkline.config.base import AdapterSection, FamilyName, Fraction, PositiveFloat, PositiveInt, Section, Seed
from trunkline.config.mixture import DecontaminateSection, MixtureFamily, MixtureRecipe
from trunkline.config.prefinetune import FamilySection, PrefinetuneRecipe, ProbeSection
from trunkline.config.reading import load_recipe, parse_recipe

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
