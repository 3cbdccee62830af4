"""Recipes: frozen, validated YAML. Every problem is reported at once, with the nearest valid name."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Literal, TypeVar

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from trunkline.errors import RecipeError
from trunkline.problems import list_problems

MAX_RECIPE_BYTES = 2**20
MAX_DEPTH = 4

PositiveInt = Annotated[int, Field(gt=0)]
PositiveFloat = Annotated[float, Field(gt=0, allow_inf_nan=False)]
Fraction = Annotated[float, Field(ge=0, lt=1)]
Target = Literal["query", "key", "value", "out", "up", "down"]
FamilyName = Literal["ner", "classification", "qa"]
Strategy = Literal["task-primary", "naive", "individual", "single-adapter", "frozen-backbone", "pcgrad"]


class Section(BaseModel):
    """Base of all recipe sections: frozen, unknown keys refused, no silent conversions of type."""

    model_config = ConfigDict(frozen=True, extra="forbid")


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


class MixtureFamily(Section):
    """One family's sources: cards (`NAME` or `NAME@SPLIT`, train by default), files of cards, or JSONL files.

    With a `source_temperature` T a source of n examples is drawn in proportion to weight * n^(1/T): 1 follows the
    sizes, a higher one evens them out. Without one the weights alone count. Without `descriptions` concepts are the
    bare labels as words, with them what a card says of each label.
    """

    sources: dict[str, SourceSection] = Field(min_length=1)
    source_temperature: PositiveFloat | None = None
    descriptions: bool = True


class DecontaminateSection(Section):
    """Takes out of all sources what also stands in a dev or test part.

    `against` names cards of tasks, or is `tasks` for every one that is in the data folder. A text is the same from a
    Jaccard similarity of `threshold` on, see `trunkline.data.checks.overlap`.
    """

    against: Literal["tasks"] | tuple[str, ...] = "tasks"
    threshold: Annotated[float, Field(gt=0, le=1)] = 0.8


class MixtureRecipe(Section):
    """The sources of pre-finetuning, to be used by several recipes (`mixture: FILE`)."""

    name: str
    families: dict[FamilyName, MixtureFamily] = Field(min_length=1)
    decontaminate: DecontaminateSection | None = None


class FamilySection(MixtureFamily):
    """One family's share of a pre-finetuning step.

    Attributes:
        weight: Share of the loss.
        tokens: Tokens of a step's batch.
        chunk_tokens: Encode the batch in chunks of at most so many tokens, the gradient staying that of the whole batch
            (GradCache), so that `tokens` is not limited by memory; none encodes it at once.
        one_source_a_step: Draw each batch from one source.
        held_out: Examples of each source for the monitor.
        temperature: Classification: that of InfoNCE, or where it starts.
        learn_temperature: Classification: train it, within 0.005 and 0.5.
        hardness: Classification: beta of Robinson et al. 2021; the higher, the more the hardest negatives count.
        negatives: NER: most concepts that are added to those of the batch.
        hard_negatives: NER: how many of them are the nearest to the batch's concepts; the rest are drawn at random.
        anchor: Weight of masked-language-model training on the family's texts, against forgetting; 0 is none.
    """

    weight: PositiveFloat = 1.0
    tokens: PositiveInt = 2048
    chunk_tokens: PositiveInt | None = None
    one_source_a_step: bool = False
    held_out: PositiveInt = 200
    temperature: PositiveFloat = 0.05
    learn_temperature: bool = False
    hardness: Annotated[float, Field(ge=0, allow_inf_nan=False)] = 0.0
    negatives: Annotated[int, Field(ge=0)] = 64
    hard_negatives: Annotated[int, Field(ge=0)] = 0
    anchor: Annotated[float, Field(ge=0, allow_inf_nan=False)] = 0.0

    @model_validator(mode="after")
    def _hard_negatives_are_negatives(self) -> FamilySection:
        if self.hard_negatives > self.negatives:
            raise ValueError(f"hard_negatives {self.hard_negatives} is more than negatives {self.negatives}")
        return self


class OptimizerSection(Section):
    """AdamW with linear warm-up and decay. Rates are per parameter group.

    With an `ema` above 0, such as 0.999, the exponential moving average of the weights is measured and exported in
    their place. What `layer_decay`, `frozen_layers`, `b_ratio` and `sharpen` do is said in
    `trunkline.prefinetune.strategies`.
    """

    steps: PositiveInt = 1000
    backbone_rate: PositiveFloat = 5e-5
    adapter_rate: PositiveFloat = 5e-4
    objective_rate: PositiveFloat = 1e-3
    warmup: Fraction = 0.06
    floor: Fraction = 0.0
    weight_decay: Annotated[float, Field(ge=0)] = 0.01
    clip: PositiveFloat = 1.0
    dropout: Fraction = 0.0
    ema: Fraction = 0.0
    layer_decay: Annotated[float, Field(gt=0, le=1)] = 1.0
    frozen_layers: Annotated[int, Field(ge=0)] = 0
    b_ratio: PositiveFloat = 1.0
    sharpen: Fraction = 0.0


class DistilSection(Section):
    """Distillation from encoders that were pre-finetuned for one family each: features are drawn to theirs."""

    teachers: dict[FamilyName, str] = Field(min_length=1)
    weight: PositiveFloat = 1.0


class ProbeSection(Section):
    """A linear probe: a head on frozen features, fitted on a few examples of a task outside the benchmark."""

    per_class: PositiveInt | None = None
    sentences: PositiveInt | None = None
    dev: PositiveInt = 300

    @model_validator(mode="after")
    def _one_budget(self) -> ProbeSection:
        if (self.per_class is None) == (self.sentences is None):
            raise ValueError("give either per_class or sentences")
        return self


class MonitorSection(Section):
    """What is measured while training; 0 switches a measure off.

    `conflict_every` steps the families' gradients on the backbone are compared over `conflict_batches` fixed batches.
    `trackers` get what metrics.jsonl gets; wandb and mlflow are packages of their own.
    """

    every: Annotated[int, Field(ge=0)] = 200
    trackers: tuple[Literal["tensorboard", "wandb", "mlflow"], ...] = ("tensorboard",)
    conflict_every: Annotated[int, Field(ge=0)] = 0
    conflict_batches: Annotated[int, Field(ge=2)] = 16
    probes: dict[str, ProbeSection] = Field(default_factory=dict)
    log_every: PositiveInt = 10


class CheckpointSection(Section):
    """How often the run is saved, how many of the last checkpoints are kept, and which weights besides.

    `best` names for a family what the monitor measures; the weights that are best by it are kept in `best-FAMILY`.
    Higher is better, but of a `loss`. A family that it does not name has no best.
    """

    every: PositiveInt = 200
    keep: PositiveInt = 2
    best: dict[FamilyName, str] = {
        "ner": "dev/ner/recall_at_1",
        "classification": "dev/classification/mrr",
        "qa": "dev/qa/exact_match",
    }


class PrefinetuneRecipe(Section):
    """A pre-finetuning run: encoder, strategy, families with their sources, optimizer, monitor."""

    name: str
    encoder: str = "default"
    fork: Annotated[int, Field(ge=0)] | None = None
    max_length: Annotated[int, Field(ge=8)] = 128
    strategy: Strategy = "task-primary"
    adapter: AdapterSection = AdapterSection()
    mixture: str | None = None
    families: dict[FamilyName, FamilySection] = Field(min_length=1)
    decontaminate: DecontaminateSection | None = None
    optimizer: OptimizerSection = OptimizerSection()
    distil: DistilSection | None = None
    precision: Literal["auto", "fp32", "bf16"] = "auto"
    monitor: MonitorSection = MonitorSection()
    checkpoint: CheckpointSection = CheckpointSection()
    seed: int = 0

    @model_validator(mode="after")
    def _consistent(self) -> PrefinetuneRecipe:
        if self.strategy == "individual" and len(self.families) != 1:
            raise ValueError(f"strategy individual trains one family, {len(self.families)} are given")
        has_adapters = self.strategy in ("task-primary", "single-adapter", "frozen-backbone")
        if has_adapters and self.adapter.rank == 0:
            raise ValueError(f"strategy {self.strategy} needs adapters, adapter.rank is 0")
        if self.optimizer.sharpen and not has_adapters:
            raise ValueError(f"optimizer.sharpen finishes adapters, and strategy {self.strategy} has none")
        if self.distil is not None and (strangers := sorted(set(self.distil.teachers) - set(self.families))):
            raise ValueError(f"distil.teachers names {', '.join(strangers)}, which the recipe does not train")
        for name, family in self.families.items():
            if family.tokens < self.max_length:
                raise ValueError(f"families.{name}.tokens {family.tokens} is less than max_length {self.max_length}")
        return self


class BudgetSection(Section):
    """How many labels a task may use: all, a number of sentences, or a number per class."""

    sentences: PositiveInt | None = None
    per_class: PositiveInt | None = None

    @model_validator(mode="after")
    def _at_most_one(self) -> BudgetSection:
        if self.sentences is not None and self.per_class is not None:
            raise ValueError("give sentences or per_class, not both")
        return self

    def label(self) -> str:
        """The budget in words."""
        if self.per_class is not None:
            return f"{self.per_class} a class"
        return "all" if self.sentences is None else f"{self.sentences} texts"


class AdaptSection(Section):
    """How a task is fitted on the frozen encoder. `mode` head is a convex fit, lora starts from it (LP-FT)."""

    mode: Literal["head", "lora"] = "head"
    penalties: tuple[PositiveFloat, ...] = (0.0001, 0.001, 0.01, 0.1, 1.0)
    adapter: AdapterSection = AdapterSection(rank=8, alpha=16.0)
    rate: PositiveFloat = 1e-3
    head_rate: PositiveFloat = 1e-3
    epochs: PositiveInt = 20
    patience: PositiveInt = 4
    tokens: PositiveInt = 512
    dropout: Fraction = 0.1
    max_length: Annotated[int, Field(ge=8)] = 128
    precision: Literal["auto", "fp32", "bf16"] = "auto"

    def fingerprint(self) -> str:
        """A short hash of all settings; results under other settings are other results."""
        return hashlib.sha256(self.model_dump_json().encode()).hexdigest()[:12]


class SweepRecipe(Section):
    """Tasks x encoders x seeds: every task adapted from every encoder on the same few labels."""

    name: str
    encoders: dict[str, str] = Field(min_length=1)
    baseline: str
    tasks: dict[str, BudgetSection] = Field(min_length=1)
    adapt: AdaptSection = AdaptSection()
    seeds: tuple[int, ...] = (0, 1, 2)

    @model_validator(mode="after")
    def _baseline_is_an_encoder(self) -> SweepRecipe:
        if self.baseline not in self.encoders:
            raise ValueError(f"baseline {self.baseline!r} is none of the encoders {sorted(self.encoders)}")
        return self


Recipe = TypeVar("Recipe", bound=Section)


def load_recipe(path: Path, kind: type[Recipe]) -> Recipe:
    """Reads a YAML recipe; one that `extends` another file says only what is different.

    Raises:
        RecipeError: The file is missing, is not YAML, or has problems; all of them are listed.
    """
    raw = _extended(path)
    if kind is PrefinetuneRecipe and isinstance(raw, dict) and isinstance(raw.get("mixture"), str):
        mixture = path.parent / raw["mixture"]
        raw = with_mixture(raw, parse_recipe(_read_yaml(mixture), MixtureRecipe, mixture))
    return parse_recipe(raw, kind, path)


def _extended(path: Path, depth: int = 0) -> Any:
    """The content of a recipe over that of the one that it `extends`: sections are merged, other values replaced."""
    raw = _read_yaml(path)
    if not isinstance(raw, dict) or not isinstance(raw.get("extends"), str):
        return raw
    if depth == MAX_DEPTH:
        raise RecipeError(path, [f"extends: more than {MAX_DEPTH} recipes in a row, or a circle"])
    base = _extended(path.parent / raw["extends"], depth + 1)
    own = {key: value for key, value in raw.items() if key != "extends"}
    return _merged(base, own) if isinstance(base, dict) else own


def _merged(base: Mapping[str, Any], own: Mapping[str, Any]) -> dict[str, Any]:
    """`own` over `base`; a section that is null in `own` is taken out."""
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


def with_mixture(raw: Mapping[str, Any], mixture: MixtureRecipe) -> dict[str, Any]:
    """A recipe's content with the sources of a mixture written out, so that what is saved with a run is complete.

    What the recipe says itself goes before the mixture; only families that the recipe names are taken.
    """
    families = raw.get("families")
    if not isinstance(families, Mapping):
        return dict(raw)
    filled = {}
    for name, section in families.items():
        shared = mixture.families.get(name)
        ours = {} if section is None else section
        filled[name] = {**shared.model_dump(mode="json"), **ours} if shared and isinstance(ours, Mapping) else ours
    result = {**raw, "families": filled}
    if mixture.decontaminate is not None:
        result.setdefault("decontaminate", mixture.decontaminate.model_dump(mode="json"))
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
    result = {}
    for key, value in raw.items():
        if key not in whole:
            inner = [loc[1:] for loc in locations if loc[0] == key]
            result[key] = _without(value, inner)
    return result
