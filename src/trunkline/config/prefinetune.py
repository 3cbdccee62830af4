"""Recipes of pre-finetuning."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, model_validator

from trunkline.config.base import AdapterSection, FamilyName, Fraction, PositiveFloat, PositiveInt, Section, Seed
from trunkline.config.mixture import DecontaminateSection, MixtureFamily

Strategy = Literal["task-primary", "naive", "individual", "single-adapter", "frozen-backbone", "pcgrad"]


class FamilySection(MixtureFamily):
    """One family's share of a pre-finetuning step.

    `weight` is its share of the loss, `tokens` those of a step's batch, which are encoded `chunk_tokens` at a time
    (GradCache) so that memory does not limit them; `held_out` examples of each source are for the monitor.
    `temperature` is that of InfoNCE, `negatives` the most concepts that are added to those of a batch.
    """

    weight: PositiveFloat = 1.0
    tokens: PositiveInt = 2048
    chunk_tokens: PositiveInt | None = None
    one_source_a_step: bool = False
    held_out: PositiveInt = 200
    temperature: PositiveFloat = 0.05
    negatives: Annotated[int, Field(ge=0)] = 64


class OptimizerSection(Section):
    """AdamW with linear warm-up and decay. Rates are per parameter group.

    With an `ema` above 0, such as 0.999, the exponential moving average of the weights is measured and exported in
    their place. With `frozen_layers` n above 0 the embeddings and the n lowest layers stay as they are.
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
    frozen_layers: Annotated[int, Field(ge=0)] = 0


class ProbeSection(Section):
    """A linear probe: a head on frozen features, fitted on a few examples of a task that is used for nothing else.

    `train` and `dev` are named as sources are: the task's files.
    """

    family: Literal["ner", "classification", "qa"]
    train: str
    dev: str
    per_class: PositiveInt | None = None
    sentences: PositiveInt | None = None
    most_dev: PositiveInt = 300

    @model_validator(mode="after")
    def _one_budget(self) -> ProbeSection:
        if (self.per_class is None) == (self.sentences is None):
            raise ValueError("give either per_class or sentences")
        return self


class MonitorSection(Section):
    """What is measured while training; 0 switches a measure off.

    `trackers` get what metrics.jsonl gets; each is a package of its own.
    """

    every: Annotated[int, Field(ge=0)] = 200
    trackers: tuple[Literal["tensorboard", "wandb", "mlflow"], ...] = ()
    probes: dict[str, ProbeSection] = Field(default_factory=dict)
    log_every: PositiveInt = 10


class CheckpointSection(Section):
    """How often the run is saved, and how many of the last checkpoints are kept."""

    every: PositiveInt = 200
    keep: PositiveInt = 2


class PrefinetuneRecipe(Section):
    """A pre-finetuning run: encoder, strategy, families with their sources, optimizer, monitor.

    What `precision` and `attention` leave to `auto` follows the device, see `trunkline.training.precision`.
    """

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
    precision: Literal["auto", "fp32", "bf16"] = "auto"
    attention: Literal["auto", "sdpa", "eager"] = "auto"
    monitor: MonitorSection = MonitorSection()
    checkpoint: CheckpointSection = CheckpointSection()
    seed: Seed = 0

    @model_validator(mode="after")
    def _consistent(self) -> PrefinetuneRecipe:
        if self.strategy == "individual" and len(self.families) != 1:
            raise ValueError(f"strategy individual trains one family, {len(self.families)} are given")
        if self.strategy in ("task-primary", "single-adapter", "frozen-backbone") and self.adapter.rank == 0:
            raise ValueError(f"strategy {self.strategy} needs adapters, adapter.rank is 0")
        for name, family in self.families.items():
            if family.tokens < self.max_length:
                raise ValueError(f"families.{name}.tokens {family.tokens} is less than max_length {self.max_length}")
        return self
