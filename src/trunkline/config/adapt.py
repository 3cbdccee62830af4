"""Recipes of adaptation: one task, or several from several encoders."""

from __future__ import annotations

import hashlib
from typing import Annotated, Literal

from pydantic import Field, model_validator

from trunkline.config.base import AdapterSection, Fraction, PositiveFloat, PositiveInt, Section, Seed


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
    seeds: tuple[Seed, ...] = (0, 1, 2)

    @model_validator(mode="after")
    def _baseline_is_an_encoder(self) -> SweepRecipe:
        if self.baseline not in self.encoders:
            raise ValueError(f"baseline {self.baseline!r} is none of the encoders {sorted(self.encoders)}")
        return self
