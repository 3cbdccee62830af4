"""Recipes of mixtures: the sources of pre-finetuning."""

from __future__ import annotations

from typing import Annotated, Any

from pydantic import Field, field_validator

from trunkline.config.base import FamilyName, PositiveFloat, PositiveInt, Section


class SourceSection(Section):
    """How often a source is drawn (`weight`, relative to its family's other sources) and how much of it is used."""

    weight: PositiveFloat = 1.0
    cap: PositiveInt | None = None


class MixtureFamily(Section):
    """One family's sources: files of data, see `trunkline.prefinetune.sources.FileFinder`.

    With a `source_temperature` T a source of n examples is drawn in proportion to weight * n^(1/T): 1 follows the
    sizes, a higher one evens them out. Without one the weights alone count. Without `descriptions` concepts are the
    bare labels as words, with them what a source card says of each label.
    """

    sources: dict[str, SourceSection] = Field(min_length=1)
    source_temperature: PositiveFloat | None = None
    descriptions: bool = True


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


class MixtureRecipe(Section):
    """The sources of pre-finetuning, to be used by several recipes (`mixture: FILE`)."""

    name: str
    families: dict[FamilyName, MixtureFamily] = Field(min_length=1)
    decontaminate: DecontaminateSection | None = None
