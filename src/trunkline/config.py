"""Recipes: frozen, validated YAML. Every problem is reported at once, with the nearest valid name."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Annotated, Any, Literal, TypeVar

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError, ValidationInfo, field_validator

from trunkline.errors import RecipeError, nearest

PositiveInt = Annotated[int, Field(gt=0)]
PositiveFloat = Annotated[float, Field(gt=0)]
Seed = Annotated[int, Field(ge=0, lt=2**32)]
Fraction = Annotated[float, Field(ge=0, lt=1)]
Target = Literal["query", "key", "value", "out", "up", "down"]
FamilyName = Literal["ner", "classification", "qa", "text"]


class Section(BaseModel):
    """Base of all recipe sections: frozen, unknown keys refused, numbers finite."""

    # Not strict, because YAML reads 1e-4 as text.
    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)


class AdapterSection(Section):
    """The LoRA of a primary or task adapter. `layers` counts from the top; none means all above the fork."""

    rank: Annotated[int, Field(ge=0)] = 16
    alpha: PositiveFloat = 32.0
    targets: tuple[Target, ...] = ("query", "value")
    layers: PositiveInt | None = None


class SourceSection(Section):
    """How often a source is drawn (`weight`, relative to its family's other sources) and how much of it is used."""

    weight: PositiveFloat = 1.0
    cap: PositiveInt | None = None


class DecontaminateSection(Section):
    """Takes out of all sources what also stands in the dev and test files `against`.

    A text is the same from a Jaccard similarity of `threshold` on, see `trunkline.data.overlap`.
    """

    against: tuple[str, ...] = Field(min_length=1)
    threshold: Annotated[float, Field(gt=0, le=1)] = 0.8

    @field_validator("against", mode="before")
    @classmethod
    def _one_or_many(cls, value: Any) -> Any:
        return (value,) if isinstance(value, str) else value


Strategy = Literal["task-primary", "naive", "individual", "single-adapter", "frozen-backbone", "pcgrad"]


class FamilySection(Section):
    """One family's sources and its share of a pre-finetuning step.

    `sources` are files of data, see `trunkline.prefinetune.sources.FileFinder`. With a `source_temperature` T one of n
    examples is drawn in proportion to weight * n^(1/T): 1 follows the sizes, a higher one evens them out. Without one
    the weights alone count. Without `descriptions` concepts are the bare labels as words, with them what a source card
    says of each label.

    `weight` is the family's share of the loss, `tokens` those of a step's batch, which are encoded `chunk_tokens` at a
    time (GradCache) so that memory does not limit them; `held_out` examples of each source are for the monitor.
    `temperature` is that of InfoNCE, `negatives` the most concepts that are added to those of a batch.
    """

    sources: dict[str, SourceSection] = Field(min_length=1)
    source_temperature: PositiveFloat | None = None
    descriptions: bool = True
    weight: PositiveFloat = 1.0
    tokens: PositiveInt = 2048
    chunk_tokens: PositiveInt | None = None
    one_source_a_step: bool = False
    held_out: PositiveInt = 200
    temperature: PositiveFloat = 0.05
    negatives: Annotated[int, Field(ge=0)] = 64


class OptimizerSection(Section):
    """AdamW with linear warm-up and decay. Rates are per parameter group.

    With `frozen_layers` n above 0 the embeddings and the n lowest layers stay as they are.
    """

    steps: PositiveInt = 1000
    backbone_rate: PositiveFloat = 5e-5
    adapter_rate: PositiveFloat = 5e-4
    objective_rate: PositiveFloat = 1e-3
    warmup: Fraction = 0.06
    weight_decay: Annotated[float, Field(ge=0)] = 0.01
    clip: PositiveFloat = 1.0
    dropout: Fraction = 0.0
    frozen_layers: Annotated[int, Field(ge=0)] = 0


class MonitorSection(Section):
    """What is measured while training, and how often; `every` 0 measures nothing."""

    every: Annotated[int, Field(ge=0)] = 200
    log_every: PositiveInt = 10


class CheckpointSection(Section):
    """How often the run is saved, and how many of the last checkpoints are kept."""

    every: PositiveInt = 200
    keep: PositiveInt = 2


class PrefinetuneRecipe(Section):
    """A pre-finetuning run: encoder, strategy, families with their sources, optimizer, monitor.

    What `precision` leaves to `auto` follows the device, see `trunkline.training.loop`.
    """

    name: str
    encoder: str = "default"
    fork: Annotated[int, Field(ge=0)] | None = None
    max_length: Annotated[int, Field(ge=8)] = 128
    strategy: Strategy = "task-primary"
    adapter: AdapterSection = AdapterSection()
    families: dict[FamilyName, FamilySection] = Field(min_length=1)
    decontaminate: DecontaminateSection | None = None
    optimizer: OptimizerSection = OptimizerSection()
    precision: Literal["auto", "fp32", "bf16"] = "auto"
    monitor: MonitorSection = MonitorSection()
    checkpoint: CheckpointSection = CheckpointSection()
    seed: Seed = 0

    # Checks of a field against those before it, so that they run beside faults elsewhere.
    @field_validator("adapter")
    @classmethod
    def _adapter_is_there(cls, adapter: AdapterSection, info: ValidationInfo) -> AdapterSection:
        strategy = info.data.get("strategy")
        if strategy in ("task-primary", "single-adapter", "frozen-backbone") and adapter.rank == 0:
            raise ValueError(f"strategy {strategy} needs adapters, adapter.rank is 0")
        return adapter

    @field_validator("families")
    @classmethod
    def _families_fit(cls, families: dict[str, FamilySection], info: ValidationInfo) -> dict[str, FamilySection]:
        if info.data.get("strategy") == "individual" and len(families) != 1:
            raise ValueError(f"strategy individual trains one family, {len(families)} are given")
        for name, family in families.items():
            if family.tokens < info.data.get("max_length", 0):
                raise ValueError(f"{name}.tokens {family.tokens} is less than max_length {info.data['max_length']}")
        return families


MAX_RECIPE_BYTES = 2**20
MAX_DEPTH = 4
Recipe = TypeVar("Recipe", bound=Section)


def load_recipe(path: Path, kind: type[Recipe], over: Mapping[str, Any] = MappingProxyType({})) -> Recipe:
    """Reads a YAML recipe; one that `extends` another file says only what is different.

    `over` is what a command line says instead of the recipe, in the same form: sections are merged. All problems are
    listed in one RecipeError.
    """
    raw = _extended(path)
    return parse_recipe(_merged(raw, over) if isinstance(raw, dict) else raw, kind, path)


def _extended(path: Path, depth: int = 0) -> Any:
    """The content of a recipe over that of the one that it `extends`."""
    try:
        if path.stat().st_size > MAX_RECIPE_BYTES:
            raise RecipeError(path, [f"has {path.stat().st_size} bytes, at most {MAX_RECIPE_BYTES} are read"])
        raw = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        raise RecipeError(path, [" ".join(str(error).split())]) from error
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
        elif isinstance(below, Mapping) and isinstance(value, Mapping):
            result[key] = _merged(below, value)
        else:
            result[key] = value
    return result


def parse_recipe(raw: Any, kind: type[Recipe], where: str | Path) -> Recipe:
    """Validates the content of a recipe; `where` names it in errors."""
    if not isinstance(raw, Mapping):
        raise RecipeError(where, [f"the top level is {type(raw).__name__}, expected keys and values"])
    try:
        return kind.model_validate(raw)
    except ValidationError as error:
        raise RecipeError(where, list_problems(error, kind)) from error


def list_problems(error: ValidationError, model: type[BaseModel]) -> list[str]:
    """One sentence for each problem that pydantic found in what a model validated: where, what was given, expected."""
    return [_sentence(item, model) for item in error.errors(include_url=False)]


def _sentence(item: Any, model: type[BaseModel]) -> str:
    where = ".".join(str(part) for part in item["loc"] if part != "[key]")
    message = str(item["msg"]).removeprefix("Value error, ")
    if item["type"] == "extra_forbidden":
        known = _keys_at(model, item["loc"][:-1])
        hint = nearest(str(item["loc"][-1]), known)
        return f"{where}: unknown key{hint} (known: {', '.join(known)})"
    if item["type"] == "missing":
        return f"{where}: is missing"
    shown = "" if item["type"] == "value_error" else f", given {_short(item['input'])}"
    return f"{where}: {message}{shown}" if where else message + shown


def _keys_at(model: type[BaseModel], location: tuple[Any, ...]) -> list[str]:
    """The valid keys of the section at a place in a nested model."""
    current: Any = model
    for part in location:
        fields = getattr(current, "model_fields", None)
        if fields is not None:
            current = fields[part].annotation if part in fields else None
        else:
            current = next((arg for arg in getattr(current, "__args__", ()) if hasattr(arg, "model_fields")), current)
    return [field.alias or name for name, field in getattr(current, "model_fields", {}).items()]


def _short(value: object) -> str:
    text = repr(value)
    return text if len(text) <= 80 else text[:77] + "..."
