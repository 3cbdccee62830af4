"""What the sections of all recipes are made of."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, SerializerFunctionWrapHandler, model_serializer

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
    """The LoRA of a primary or task adapter. `layers` counts from the top; none means all above the fork.

    `rank_growth` is the factor of the rank from one adapted layer to the next one above it. `rank` stays the mean of
    the layers' ranks, so that an adapter has as many parameters with any growth; 1 gives all layers the same rank.
    """

    rank: Annotated[int, Field(ge=0)] = 16
    alpha: PositiveFloat = 32.0
    targets: tuple[Target, ...] = ("query", "value")
    layers: PositiveInt | None = None
    rank_growth: Annotated[float, Field(ge=1)] = 1.0

    @model_serializer(mode="wrap")
    def _written(self, handler: SerializerFunctionWrapHandler) -> dict[str, Any]:
        # A recipe that leaves the switch off is written, and so hashed and compared, like one that does not know it.
        content: dict[str, Any] = handler(self)
        if self.rank_growth == 1:
            content.pop("rank_growth", None)
        return content
