"""Source cards: a small YAML file beside a file of pre-finetuning data that says what the data is.

`DATA.yaml` beside `DATA.jsonl`; `trunkline label` writes both, and a user may write one by hand.
"""

from __future__ import annotations

from pathlib import Path
from typing import Literal

import yaml
from pydantic import Field

from trunkline.bundle.files import write_atomic
from trunkline.config import Section


class SourceCard(Section):
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

    name: str = Field(min_length=1)
    title: str = ""
    home: str = ""
    family: Literal["ner", "classification", "qa", "text"]
    licence: str = "unknown"
    coverage: Literal["open", "closed"] = "open"
    concepts: dict[str, str] = Field(default={})
    quirks: tuple[str, ...] = ()
    counts: dict[str, int] = Field(default={})

    def concept(self, label: str) -> str:
        """The natural words for a label: the card's, or the label with its punctuation turned into blanks."""
        return self.concepts.get(label) or label_words(label)


def label_words(label: str) -> str:
    """A label as words: `per_son` and `per-son` are `per son`, in lower case."""
    return " ".join(label.replace("_", " ").replace("-", " ").split()).lower()


def write_source_card(card: SourceCard, path: str | Path) -> None:
    """Writes a source card as YAML, complete or not at all; entries that have their defaults are left out."""
    content = {"name": card.name, "family": card.family, **card.model_dump(mode="json", exclude_defaults=True)}
    write_atomic(path, yaml.safe_dump(content, sort_keys=False, allow_unicode=True, width=100))
