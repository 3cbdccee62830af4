"""Options of labelling and pair mining: one frozen model for each method, whose problems are named together."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any

from pydantic import AfterValidator, Field, model_validator

from trunkline.config import Section, parse_recipe
from trunkline.errors import RecipeError, TrunklineError, nearest

# A key or a text must not go readable over a network, nor stand in a URL.
_URL = re.compile(r"(?:https://[\w.-]+|http://(?:localhost|127\.[\d.]+|\[::1\]))(?::\d{1,5})?(?:/[^\s@?#]*)?")


def _endpoint_url(value: str) -> str:
    if not _URL.fullmatch(value):
        raise ValueError("expected https://HOST/v1 or, here, http://localhost:PORT/v1, without password, `?` and `#`")
    return value.rstrip("/").removesuffix("/chat/completions")


Name = Annotated[str, Field(min_length=1)]
Positive = Annotated[int, Field(gt=0)]
Licence = Annotated[str, Field(min_length=1, description="Of the text, for the source card.")]


class TextOptions(Section):
    """`text_column` has a table's texts, `max_words` cuts sentences, `limit` is the most; concepts to `drop`."""

    licence: Licence = "the user's own"
    text_column: Name | None = None
    max_words: Annotated[int, Field(ge=5)] = 60
    limit: Positive | None = None
    drop: tuple[Name, ...] = ()


class GazetteerOptions(TextOptions):
    """A table with the columns `surface` and `concept`: `.tsv`, `.csv` or `.jsonl`, also with `.gz`."""

    gazetteer: Path


class ChatOptions(TextOptions):
    """A chat endpoint that speaks OpenAI's protocol: `base_url`/chat/completions, by https or on this machine.

    The key of `model` is in the environment variable `key_variable`; without one, no key is sent. A request has so many
    `sentences`, its answer `max_tokens`; there are `concurrency` at a time. It has `timeout` seconds, and is sent again
    after 429, 5xx or a lost connection, `retries` times. With `reasoning`, for models that think first, no temperature
    is sent, and the limit is `max_completion_tokens`. `cache` is the SQLite file of the answers, by default beside the
    output; runs may share it.
    """

    base_url: Annotated[str, AfterValidator(_endpoint_url)]
    model: Name
    key_variable: Annotated[str, Field(pattern=r"^[A-Za-z_][A-Za-z0-9_]*$")] | None = None
    sentences: Annotated[int, Field(ge=1, le=100)] = 8
    max_tokens: Positive = 1500
    reasoning: bool = False
    concurrency: Annotated[int, Field(ge=1, le=64)] = 4
    timeout: Annotated[float, Field(gt=0)] = 120.0
    retries: Annotated[int, Field(ge=0)] = 5
    cache: Path | None = None


class PairOptions(Section):
    """`min_words` and `max_words` of a side; the filter's `top_k` among `pool` texts; the `seed` of what is drawn."""

    licence: Licence = "the user's own"
    min_words: Positive = 3
    max_words: Positive = 400
    top_k: Positive = 2
    pool: Positive = 100_000
    seed: Annotated[int, Field(ge=0)] = 0

    @model_validator(mode="after")
    def _ordered(self) -> PairOptions:
        if self.min_words > self.max_words:
            raise ValueError(f"min_words {self.min_words} is more than max_words {self.max_words}")
        return self


class ColumnOptions(PairOptions):
    """Two columns of a table; pairs with the same value of `group_column` are no negatives of each other."""

    left_column: Name
    right_column: Name
    group_column: Name | None = None


class DuplicateOptions(PairOptions):
    """Rows that share the value of `group_column`; a row is paired with `per_row` earlier ones of its group."""

    group_column: Name
    text_column: Name = "text"
    per_row: Positive = 1
    max_pairs: Positive | None = None


class DocumentOptions(PairOptions):
    """At most `max_pairs` a document; with `group_documents` they are no negatives of each other."""

    text_column: Name | None = None
    max_pairs: Positive | None = None
    group_documents: bool = False


class AdjacentOptions(DocumentOptions):
    """Neighbouring passages, or neighbouring rows with the same `conversation_column`, which are turns."""

    conversation_column: Name | None = None


TEXT_METHODS: dict[str, type[TextOptions]] = {"gazetteer": GazetteerOptions, "chat": ChatOptions}
PAIR_METHODS: dict[str, type[PairOptions]] = {
    "columns": ColumnOptions,
    "adjacent": AdjacentOptions,
    "question-answer": DocumentOptions,
    "title-body": DocumentOptions,
    "duplicates": DuplicateOptions,
}


def check_options(method: str, given: Mapping[str, Any], methods: Mapping[str, type[Section]]) -> Any:
    """The checked options of a method; those that are None count as not given. A TrunklineError names all problems."""
    if method not in methods:
        raise TrunklineError(f"no method {method!r}{nearest(method, methods)}", expected=f"one of {', '.join(methods)}")
    named = {key: value for key, value in given.items() if value is not None}
    try:
        return parse_recipe(named, methods[method], f"options of the method {method}")
    except RecipeError as error:
        told = [p if not p.endswith(": is missing") else f"{option_name(p[:-12])} is missing" for p in error.problems]
        raise RecipeError(f"options of the method {method}", told) from error


def option_name(key: str) -> str:
    """The option of the command that sets an option of a method."""
    return f"--{key.replace('_', '-')}"
