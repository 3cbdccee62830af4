"""Limits, requests and answers, as the OpenAPI document describes them; unknown keys are refused, not ignored."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field, PositiveFloat, PositiveInt, ValidationError

from trunkline.bundle.manifest import NAME
from trunkline.errors import TrunklineError

Name = Annotated[str, Field(pattern=f"^{NAME.pattern}$", examples=["intent"])]
_MODEL = Field(None, description="The bundle's name; may be left out where one is served.", examples=["support-bot"])
_MIXED = [["Where is my parcel?", {"text": "See you on Monday", "tasks": ["dates"]}]]
_CLASS = {"label": "delivery", "score": 0.98, "probabilities": {"delivery": 0.98, "refund": 0.02}}
_DATES = [{"start": 8, "end": 17, "text": "on Monday", "label": "date", "score": 0.91}]


class Strict(BaseModel):
    """What all requests have in common."""

    model_config = ConfigDict(extra="forbid")


class Limits(Strict):
    """Bounds on requests, by the names of `--set`; docs/serve.md says of what."""

    texts: PositiveInt = 64
    characters: int = Field(10_000, ge=1, le=1_000_000)
    body_bytes: PositiveInt = 1_000_000
    task_bytes: PositiveInt = 50_000_000
    bytes_at_once: PositiveInt = 200_000_000
    examples: PositiveInt = 2000
    queue: PositiveInt = 512
    batch: PositiveInt = 8
    seconds: PositiveFloat = 30
    head_seconds: PositiveFloat = 10
    idle_seconds: PositiveInt = 15
    connections: PositiveInt = 4000

    @staticmethod
    def of(given: Mapping[str, Any]) -> Limits:
        """Limits by name; raises TrunklineError for those that are none."""
        try:
            found = Limits(**given)
        except ValidationError as error:
            raise TrunklineError("; ".join(problems(error.errors())), todo="Change what --set gives") from error
        if found.texts > found.queue:
            raise TrunklineError(f"texts={found.texts}", expected=f"at most queue={found.queue}")
        return found


def problems(errors: Any) -> list[str]:
    """What pydantic found, as `place: message`, without the values, which are the users' texts."""
    return [f"{'.'.join(map(str, one['loc']))}: {one['msg']}" for one in errors[:5]]


class TextForTasks(Strict):
    """A text with tasks of its own."""

    text: str
    tasks: list[str] = Field(examples=[["intent"]])


class PredictRequest(Strict):
    """Texts and tasks; `tasks`, all by default, are for texts that have none of their own."""

    texts: list[str | TextForTasks] = Field(examples=_MIXED)
    tasks: list[str] | None = Field(None, examples=[["intent", "dates"]])
    model: str | None = _MODEL


class PredictResponse(Strict):
    """One dict from task to prediction for each text, as `Model.predict` gives it."""

    model: str
    predictions: list[dict[str, Any]] = Field(examples=[[{"intent": _CLASS, "dates": []}, {"dates": _DATES}]])


class Entity(Strict):
    """A span in characters, `end` exclusive."""

    start: int
    end: int
    label: str


class FitRequest(Strict):
    """A task to learn from labelled texts; see `Model.fit`."""

    name: Name
    texts: list[str] = Field(examples=[["Where is my parcel?", "It is late", "I want my money back", "Pay me back"]])
    labels: list[str | list[str | Entity]] = Field(examples=[["delivery", "delivery", "refund", "refund"]])
    family: str | None = Field(None, description="Where the labels do not tell.", examples=["classification"])
    replace: bool = False
    model: str | None = _MODEL


class Problem(BaseModel):
    """A refusal: `message` is all of `given`, `expected` and `todo`."""

    error: dict[str, str]
