"""What the sections of all recipes are made of."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field

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
