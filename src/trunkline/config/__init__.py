"""Recipes: frozen, validated YAML. Every problem is reported at once, with the nearest valid name."""

from trunkline.config.adapt import AdaptSection, BudgetSection, SweepRecipe
from trunkline.config.base import (
    AdapterSection,
    FamilyName,
    Fraction,
    PositiveFloat,
    PositiveInt,
    Section,
    Seed,
    Target,
)
from trunkline.config.mixture import DecontaminateSection, MixtureFamily, MixtureRecipe, SourceSection
from trunkline.config.prefinetune import (
    CheckpointSection,
    DistilSection,
    FamilySection,
    MonitorSection,
    OptimizerSection,
    PrefinetuneRecipe,
    ProbeSection,
    Strategy,
)
from trunkline.config.reading import MAX_DEPTH, MAX_RECIPE_BYTES, Recipe, load_recipe, parse_recipe, with_mixture

__all__ = [
    "MAX_DEPTH",
    "MAX_RECIPE_BYTES",
    "AdaptSection",
    "AdapterSection",
    "BudgetSection",
    "CheckpointSection",
    "DecontaminateSection",
    "DistilSection",
    "FamilyName",
    "FamilySection",
    "Fraction",
    "MixtureFamily",
    "MixtureRecipe",
    "MonitorSection",
    "OptimizerSection",
    "PositiveFloat",
    "PositiveInt",
    "PrefinetuneRecipe",
    "ProbeSection",
    "Recipe",
    "Section",
    "Seed",
    "SourceSection",
    "Strategy",
    "SweepRecipe",
    "Target",
    "load_recipe",
    "parse_recipe",
    "with_mixture",
]
