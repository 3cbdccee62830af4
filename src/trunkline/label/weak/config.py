"""Options of weak labelling, one frozen model for each way; all problems are reported at once."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Literal
from urllib.parse import urlsplit

from pydantic import Field, field_validator, model_validator

from trunkline.config import Fraction, PositiveFloat, PositiveInt, Section, parse_recipe
from trunkline.errors import RecipeError
from trunkline.problems import nearest

COLUMNS = ("surface", "concept", "count", "target", "-")

Price = Annotated[float, Field(ge=0)]


class WeakLabelConfig(Section):
    """Options of every way.

    `name` is the card's (by default the output file's), `licence` what the card says about the text, `max_words` where
    a sentence is cut, `limit` the most sentences, `drop` the concepts to leave out, and `keep_unlabelled` whether
    sentences without any label are written, from which an open source learns nothing.
    """

    method: str
    name: Annotated[str, Field(pattern=r"^[a-z0-9][a-z0-9_]*$")] | None = None
    licence: Annotated[str, Field(min_length=1)] = "the user's own"
    max_words: Annotated[int, Field(ge=5)] = 60
    limit: PositiveInt | None = None
    drop: tuple[str, ...] = ()
    keep_unlabelled: bool = False


class GazetteerConfig(WeakLabelConfig):
    """A table of surfaces with concepts.

    Attributes:
        gazetteer: `.tsv`, `.csv` or `.jsonl` (also with `.gz`); the keys of `.jsonl` are the names of the columns.
        columns: The columns of a table in their order: surface, concept, count, target, and `-` for one that is not
            used. Where there is a target (what the surface stands for), one target of a surface is used: that of the
            same name, else the most frequent.
        headers: Whether the concepts are table headers, of which some are noise (see `normalise_header`).
        malformed: Whether rows without these columns are errors, or are left out and counted.
        min_length: Letters and digits that a surface must have.
        min_count: How often a concept must have been seen with a surface.
        min_share: Share of a surface's counts that a concept must have.
        min_surfaces: Surfaces that a concept must have.
        max_concepts: Most concepts of a surface, the most frequent first.
        whole_names: Whether a capitalised surface next to another capitalised word is left out, as the part of a name.
    """

    method: Literal["gazetteer"] = "gazetteer"
    gazetteer: Path
    columns: str = "surface,concept,count"
    headers: bool = False
    malformed: Literal["error", "skip"] = "error"
    min_length: PositiveInt = 3
    min_count: PositiveInt = 1
    min_share: Fraction = 0.2
    min_surfaces: PositiveInt = 1
    max_concepts: PositiveInt = 3
    whole_names: bool = True

    @field_validator("columns")
    @classmethod
    def _known_columns(cls, value: str) -> str:
        names = [name.strip() for name in value.split(",")]
        used = [name for name in names if name != "-"]
        unknown = [name for name in used if name not in COLUMNS]
        if unknown:
            raise ValueError(f"no column {unknown[0]!r}{nearest(unknown[0], COLUMNS)} (known: {', '.join(COLUMNS)})")
        if len(set(used)) < len(used) or not {"surface", "concept"} <= set(used):
            raise ValueError(f"{value!r} needs surface and concept, each column once")
        return ",".join(names)


class LinksConfig(WeakLabelConfig):
    """Linked paragraphs, as the reader `linked_gazetteer` takes them, and a table of header, surface, target, count."""

    method: Literal["links"] = "links"
    paragraphs: Path
    gazetteer: Path
    min_count: PositiveInt = 2
    max_concepts: PositiveInt = 3


class ChatConfig(WeakLabelConfig):
    """A chat endpoint that speaks OpenAI's protocol.

    Attributes:
        base_url: What goes before `/chat/completions`, such as `http://localhost:8000/v1`.
        model: The model's name there.
        key_variable: Environment variable that holds the key; without one, no key is sent.
        sentences: Sentences of one request.
        max_tokens: Most tokens of one answer.
        reasoning: For models that think first: no temperature is sent, and the limit is `max_completion_tokens`.
        concurrency: Requests at a time.
        per_minute: Most requests a minute.
        timeout: Seconds to wait for an answer.
        retries: How often a request is sent again after 429, 5xx or a lost connection.
        max_wait: Seconds; a server that asks for a longer pause ends the run, which can be resumed.
        price_in: Price of a million prompt tokens.
        price_out: Price of a million tokens of answers.
        cache: File of the answers; by default beside the output. Runs may share it.
    """

    method: Literal["chat"] = "chat"
    base_url: str
    model: Annotated[str, Field(min_length=1)]
    key_variable: Annotated[str, Field(pattern=r"^[A-Za-z_][A-Za-z0-9_]*$")] | None = None
    sentences: Annotated[int, Field(ge=1, le=100)] = 8
    max_tokens: PositiveInt = 1500
    reasoning: bool = False
    concurrency: Annotated[int, Field(ge=1, le=64)] = 4
    per_minute: PositiveFloat = 60.0
    timeout: PositiveFloat = 120.0
    retries: Annotated[int, Field(ge=0)] = 5
    max_wait: PositiveFloat = 300.0
    price_in: Price | None = None
    price_out: Price | None = None
    cache: Path | None = None

    @field_validator("base_url")
    @classmethod
    def _plain_url(cls, value: str) -> str:
        try:
            parts = urlsplit(value)
            host, _ = parts.hostname, parts.port
        except ValueError as error:
            raise ValueError(f"not a URL ({error})") from None
        if parts.scheme not in ("http", "https") or not host:
            raise ValueError("expected a URL such as http://localhost:8000/v1 or https://HOST/v1")
        if parts.username is not None or parts.password is not None:
            raise ValueError("the URL has a user or password in it; name the key's environment variable instead")
        if parts.query or parts.fragment or any(ord(character) <= 32 for character in value):
            raise ValueError("expected a URL without blanks, `?` and `#`; /chat/completions is put behind it")
        return value.rstrip("/").removesuffix("/chat/completions")

    @model_validator(mode="after")
    def _both_prices(self) -> ChatConfig:
        if (self.price_in is None) != (self.price_out is None):
            raise ValueError("give both price_in and price_out, or neither")
        return self


class TeacherConfig(WeakLabelConfig):
    """A model that finds entities.

    Attributes:
        teacher: Folder or hub id of a Hugging Face token classifier or of a GLiNER model, with safetensors weights.
        revision: Commit, tag or branch on the hub.
        labels: What a GLiNER model is to look for.
        names: A token classifier's label -> concept, or a list of `LABEL=concept`; an empty concept leaves the label
            out.
        threshold: Lowest probability of an entity (mean over its words).
        batch: Sentences at a time.
        device: `auto` takes an accelerator where there is one.
        cache: File of the answers; by default beside the output. Runs may share it.
    """

    method: Literal["teacher"] = "teacher"
    teacher: Annotated[str, Field(min_length=1)]
    revision: str | None = None
    labels: tuple[str, ...] = ()
    names: dict[str, str] = Field(default_factory=dict)
    threshold: Fraction = 0.5
    batch: PositiveInt = 32
    device: str = "auto"
    cache: Path | None = None

    @field_validator("names", mode="before")
    @classmethod
    def _from_list(cls, value: Any) -> Any:
        if not isinstance(value, list | tuple):
            return value
        for item in value:
            if not isinstance(item, str) or "=" not in item:
                raise ValueError(f"{item!r} is no LABEL=concept")
        return dict(item.split("=", 1) for item in value)


METHODS: dict[str, type[WeakLabelConfig]] = {
    "gazetteer": GazetteerConfig,
    "links": LinksConfig,
    "chat": ChatConfig,
    "teacher": TeacherConfig,
}


def parse_weak_label(raw: Mapping[str, Any], where: str = "options") -> WeakLabelConfig:
    """Checks options by name; those that are None count as not given.

    Args:
        raw: `method` and its options.
        where: Names them in errors.

    Raises:
        RecipeError: An unknown method, options that it does not have, or wrong values; all of them.
    """
    method = str(raw.get("method"))
    if method not in METHODS:
        raise RecipeError(where, [f"method: no way {method!r}{nearest(method, METHODS)} (known: {', '.join(METHODS)})"])
    given = {key: value for key, value in raw.items() if value is not None}
    return parse_recipe(given, METHODS[method], f"{where} of {method}")
