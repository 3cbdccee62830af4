"""Source cards: a small YAML file beside a file of pre-finetuning data that says what the data is.

`DATA.yaml` beside `DATA.jsonl`; `trunkline label` writes both, and a user may write one by hand.
"""

from __future__ import annotations

from pathlib import Path
from typing import Literal

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from trunkline.bundle.files import write_atomic
from trunkline.errors import DataError, RecipeError
from trunkline.problems import list_problems


class SourceCard(BaseModel):
    """What is known of a source of pre-finetuning.

    Attributes:
        name: How recipes, logs and model cards call it.
        title: One line for people.
        home: Where it comes from, such as an address; empty for one's own data.
        family: Whose objective it trains.
        licence: An SPDX name, or whatever the owner says.
        coverage: `closed` where an unlabelled word is known to belong to none of the concepts, else `open`.
        concepts: Label -> its natural words, for the concept encoder; a label without an entry is its own name.
        quirks: What a user of the data should know.
        counts: Numbers of examples, such as `{"train": 6000}`.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    name: str = Field(min_length=1)
    title: str = ""
    home: str = ""
    family: Literal["ner", "classification", "qa", "text"]
    licence: str = "unknown"
    coverage: Literal["open", "closed"] = "open"
    concepts: dict[str, str] = {}
    quirks: tuple[str, ...] = ()
    counts: dict[str, int] = {}

    def concept(self, label: str) -> str:
        """The natural words for a label: the card's, or the label with its punctuation turned into blanks."""
        return self.concepts.get(label) or label_words(label)


def label_words(label: str) -> str:
    """A label as words: `per_son` and `per-son` are `per son`, in lower case."""
    return " ".join(label.replace("_", " ").replace("-", " ").split()).lower()


def load_source_card(path: str | Path) -> SourceCard:
    """Reads a source card; a DataError for no YAML of keys and values, a RecipeError that lists all other problems."""
    try:
        raw = yaml.safe_load(Path(path).read_text("utf-8"))
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        mark = getattr(error, "problem_mark", None)
        problem = getattr(error, "problem", None) or getattr(error, "strerror", None) or error
        line = mark.line + 1 if mark else None
        raise DataError(f"not readable ({problem})", path=path, line=line, expected="a source card in YAML") from error
    if not isinstance(raw, dict):
        raise DataError(f"the card is a {type(raw).__name__}", path=path, expected="keys such as name and family")
    try:
        return SourceCard.model_validate(raw)
    except ValidationError as error:
        raise RecipeError(path, list_problems(error, SourceCard)) from None


def write_source_card(card: SourceCard, path: str | Path) -> None:
    """Writes a source card as YAML, complete or not at all; entries that have their defaults are left out."""
    content = {"name": card.name, "family": card.family, **card.model_dump(mode="json", exclude_defaults=True)}
    write_atomic(path, yaml.safe_dump(content, sort_keys=False, allow_unicode=True, width=100))
