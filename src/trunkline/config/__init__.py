"""Recipes: frozen, validated YAML. Every problem is reported at once, with the nearest valid name."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Any, TypeVar

import yaml
from pydantic import ValidationError

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
from trunkline.errors import RecipeError
from trunkline.problems import list_problems

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

MAX_RECIPE_BYTES = 2**20
MAX_DEPTH = 4
Recipe = TypeVar("Recipe", bound=Section)


def load_recipe(path: Path, kind: type[Recipe], over: Mapping[str, Any] = MappingProxyType({})) -> Recipe:
    """Reads a YAML recipe; one that `extends` another file says only what is different.

    `over` is what a command line says instead of the recipe, in the same form: sections are merged. All problems are
    listed in one RecipeError.
    """
    raw = _extended(path)
    if isinstance(raw, dict):
        raw = _merged(raw, over)
    return parse_recipe(raw, kind, path)


def _extended(path: Path, depth: int = 0) -> Any:
    """The content of a recipe over that of the one that it `extends`."""
    raw = _read_yaml(path)
    if not isinstance(raw, dict) or not isinstance(raw.get("extends"), str):
        return raw
    if depth == MAX_DEPTH:
        raise RecipeError(path, [f"extends: more than {MAX_DEPTH} recipes in a row, or a circle"])
    base = _extended(path.parent / raw.pop("extends"), depth + 1)
    return _merged(base, raw) if isinstance(base, dict) else raw


def _merged(base: Mapping[str, Any], own: Mapping[str, Any]) -> dict[str, Any]:
    """`own` over `base`: sections are merged, other values replaced; what is null in `own` is taken out."""
    result = dict(base)
    for key, value in own.items():
        below = result.get(key)
        if value is None:
            result.pop(key, None)
        else:
            both = isinstance(below, Mapping) and isinstance(value, Mapping)
            result[key] = _merged(below, value) if both else value  # type: ignore[arg-type]
    return result


def _read_yaml(path: Path) -> Any:
    try:
        if path.stat().st_size > MAX_RECIPE_BYTES:
            raise RecipeError(path, [f"has {path.stat().st_size} bytes, at most {MAX_RECIPE_BYTES} are read"])
        return yaml.safe_load(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        raise RecipeError(path, [" ".join(str(error).split())]) from error


def parse_recipe(raw: Any, kind: type[Recipe], where: str | Path) -> Recipe:
    """Validates the content of a recipe; `where` names it in errors."""
    if not isinstance(raw, Mapping):
        raise RecipeError(where, [f"the top level is {type(raw).__name__}, expected keys and values"])
    problems: list[str] = []
    rest: Any = raw
    # Checks across keys run only on sections without faults, so faulty keys are taken out and the rest checked again.
    while True:
        try:
            result = kind.model_validate(rest)
            break
        except ValidationError as error:
            # What taking keys out has made incomplete is no fault of the recipe; only checks across keys count then.
            found = list_problems(error, kind, only_checks=rest is not raw)
            problems += [text for text in found if text not in problems]
            reduced = _without(rest, [item["loc"] for item in error.errors() if item["loc"]])
            if reduced == rest:
                break
            rest = reduced
    if problems:
        raise RecipeError(where, problems)
    return result


def _without(raw: Any, locations: list[tuple[Any, ...]]) -> Any:
    """A copy of nested mappings without the keys at these places."""
    if not isinstance(raw, Mapping):
        return raw
    whole = {
        loc[0] for loc in locations if len(loc) == 1 or loc[1] == "[key]" or not isinstance(raw.get(loc[0]), Mapping)
    }
    below = {key: [loc[1:] for loc in locations if loc[0] == key] for key in raw}
    return {key: _without(value, below[key]) for key, value in raw.items() if key not in whole}
