"""Suites: recipes of a benchmark, tasks x encoders x methods x label budgets x seeds."""

from __future__ import annotations

import hashlib
from collections.abc import Collection, Mapping, Sequence
from typing import Annotated, Any, Literal

from pydantic import Field, ValidationInfo, field_validator, model_validator

from trunkline.adapt import LoraSettings
from trunkline.config import FamilyName, Fraction, PositiveFloat, PositiveInt, Section, Seed, Target
from trunkline.errors import TrunklineError, nearest
from trunkline_lab.benchmark.peers import PEERS
from trunkline_lab.data.cards import Card, load_card

OWN_METHODS = ("head", "lora")
METHODS = (*OWN_METHODS, *PEERS)
BENCHMARKED = {"ner": "ner", "text": "classification"}
"""Kinds of cards that a suite takes, and their family."""

SEED = "{seed}"

_LORA = LoraSettings()


class LabelBudget(Section):
    """How many labels of the train part a cell may use: a number per class or entity type, a share, or all."""

    per_class: PositiveInt | None = None
    share: Annotated[float, Field(gt=0, lt=1)] | None = None
    all: Literal[True] | None = None

    @model_validator(mode="after")
    def _exactly_one(self) -> LabelBudget:
        if sum(value is not None for value in (self.per_class, self.share, self.all)) != 1:
            raise ValueError("give one of per_class, share and all: true")
        return self

    def label(self) -> str:
        """The budget in words."""
        if self.per_class is not None:
            return f"{self.per_class} a class"
        return "all" if self.share is None else f"{100 * self.share:g} %"

    def short(self) -> str:
        """As it is written on a command line: `16`, `10%`, `all`."""
        if self.per_class is not None:
            return str(self.per_class)
        return "all" if self.share is None else f"{100 * self.share:g}%"


class TaskSection(Section):
    """A task: its card by name or path, and settings of its own, which all encoders and methods share.

    `max_length` is the longest window in tokens, instead of that of the `adapt` sections. `max_chars` cuts the texts of
    a classification task before the last word that does not fit, for peers too; else texts are read whole, in windows.
    """

    card: str
    max_length: Annotated[int, Field(ge=8)] | None = None
    max_chars: Annotated[int, Field(ge=32)] | None = None

    @field_validator("card")
    @classmethod
    def _is_a_task(cls, name: str) -> str:
        try:
            card = load_card(name)
        except TrunklineError as error:
            raise ValueError(str(error)) from None
        problem = _unfit(card)
        if problem:
            raise ValueError(f"the card {card.name} {problem}")
        return name

    @model_validator(mode="after")
    def _cuts_no_entity(self) -> TaskSection:
        if self.max_chars is not None and load_card(self.card).family != "classification":
            raise ValueError(f"max_chars is for classification; {self.card} has labels inside its texts")
        return self


def _unfit(card: Card) -> str:
    """Why a card can be no task of a suite; empty if it can."""
    if card.role != "task":
        return "is a source of pre-finetuning, no task"
    if card.kind not in BENCHMARKED:
        return f"holds data of kind {card.kind}; a suite takes {' and '.join(BENCHMARKED)}"
    missing = [split for split in ("train", "test") if split not in card.splits]
    if missing:
        return f"has no split {' and no split '.join(missing)}; add it to its `files`, or to `resplit`"
    return ""


class MethodSection(Section):
    """A way to solve a task: `head`, `lora`, or a peer; the lists restrict where it runs."""

    name: str
    budgets: Annotated[tuple[LabelBudget, ...], Field(min_length=1)] | None = None
    encoders: Annotated[tuple[str, ...], Field(min_length=1)] | None = None
    tasks: Annotated[tuple[str, ...], Field(min_length=1)] | None = None
    seeds: Annotated[tuple[Seed, ...], Field(min_length=1)] | None = None

    @field_validator("name")
    @classmethod
    def _is_known(cls, name: str) -> str:
        if name not in METHODS:
            raise ValueError(f"no method {name!r}{nearest(name, METHODS)} (known: {', '.join(METHODS)})")
        return name

    @property
    def is_peer(self) -> bool:
        """Whether another library does it, on the encoder as it is."""
        return self.name not in OWN_METHODS

    def restrictions(self) -> dict[str, tuple[str, ...] | None]:
        """For each list the names to which it restricts the method, none where it does not."""
        return {
            "encoders": self.encoders,
            "tasks": self.tasks,
            "budgets": None if self.budgets is None else tuple(budget.label() for budget in self.budgets),
            "seeds": None if self.seeds is None else tuple(map(str, self.seeds)),
        }


class AdaptSection(Section):
    """How our own methods fit a task on the frozen encoder; LoRA's settings count in mode lora."""

    mode: Literal["head", "lora"] = "head"
    rank: PositiveInt = _LORA.rank
    targets: tuple[Target, ...] = _LORA.targets
    rate: PositiveFloat = _LORA.rate
    steps: PositiveInt = _LORA.steps
    contrast: float = _LORA.contrast
    batch: PositiveInt = _LORA.batch
    dropout: Fraction = _LORA.dropout
    max_length: Annotated[int, Field(ge=8)] = 128
    precision: Literal["auto", "fp32", "bf16"] = "auto"

    def fingerprint(self) -> str:
        """A short hash of all settings; results under other settings are other results."""
        return hashlib.sha256(self.model_dump_json().encode()).hexdigest()[:12]

    def lora(self) -> LoraSettings:
        """LoRA's settings."""
        names = ("rank", "targets", "steps", "rate", "batch", "dropout", "contrast")
        return LoraSettings(**{name: getattr(self, name) for name in names})


class ModesSection(Section):
    """The settings of each of our own methods, the same for all encoders."""

    head: AdaptSection = AdaptSection(mode="head")
    lora: AdaptSection = AdaptSection(mode="lora")

    @field_validator("head", "lora", mode="before")
    @classmethod
    def _mode_is_the_name(cls, raw: Any, info: ValidationInfo) -> Any:
        if not isinstance(raw, Mapping):
            return raw
        if raw.get("mode", info.field_name) != info.field_name:
            raise ValueError(f"mode {raw['mode']!r} under {info.field_name!r}; leave mode out")
        return {**raw, "mode": info.field_name}

    def section(self, method: str, max_length: int | None) -> AdaptSection:
        """The settings of a method on a task."""
        found = self.lora if method == "lora" else self.head
        return found if max_length is None else found.model_copy(update={"max_length": max_length})


EncoderSource = str | dict[FamilyName, str]


class SuiteRecipe(Section):
    """A benchmark.

    Attributes:
        name: The suite's name, and that of its folder of results by default.
        encoders: What `load_any` accepts, or one such source a family, under the name that the report shows; `{seed}`
            in it becomes the cell's seed, so that each seed has an encoder that was pre-finetuned with it.
        baseline: The encoder that the others are compared with.
        tasks: Cards, in any order.
        budgets: Label budgets.
        seeds: Draw the few labels, and whatever a method draws.
        methods: Names, or sections that restrict a method to some budgets, encoders, tasks or seeds.
        adapt: Settings of our own methods.
        peers_encoder: The encoder on which the peers work; the baseline by default.
    """

    name: str = Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9_.-]*$")
    encoders: dict[str, EncoderSource] = Field(min_length=1)
    baseline: str
    tasks: tuple[TaskSection, ...] = Field(min_length=1)
    budgets: tuple[LabelBudget, ...] = Field(default=(LabelBudget(all=True),), min_length=1)
    seeds: tuple[Seed, ...] = Field(default=(0, 1, 2), min_length=1)
    methods: tuple[MethodSection, ...] = Field(default=(MethodSection(name="head"),), min_length=1)
    adapt: ModesSection = ModesSection()
    peers_encoder: str | None = None

    # Checks across keys are checks of one key that look at those above it, so that all problems are found at once.

    @field_validator("tasks", mode="before")
    @classmethod
    def _names_are_tasks(cls, raw: Any) -> Any:
        return [{"card": item} if isinstance(item, str) else item for item in raw] if isinstance(raw, list) else raw

    @field_validator("methods", mode="before")
    @classmethod
    def _names_are_methods(cls, raw: Any) -> Any:
        return [{"name": item} if isinstance(item, str) else item for item in raw] if isinstance(raw, list) else raw

    @field_validator("baseline", "peers_encoder")
    @classmethod
    def _is_an_encoder(cls, name: str | None, info: ValidationInfo) -> str | None:
        known = info.data.get("encoders")
        if name is not None and known is not None and name not in known:
            raise ValueError(f"{name!r} is none of the encoders{nearest(name, known)} (known: {', '.join(known)})")
        if name is not None and known and info.field_name == "peers_encoder" and not isinstance(known[name], str):
            raise ValueError(f"{name!r} is one encoder a family; peers need a single one")
        return name

    @field_validator("tasks")
    @classmethod
    def _tasks_differ_and_have_encoders(
        cls, tasks: tuple[TaskSection, ...], info: ValidationInfo
    ) -> tuple[TaskSection, ...]:
        cards = [load_card(task.card) for task in tasks]
        problems = _repeated([card.name for card in cards])
        for name, source in info.data.get("encoders", {}).items():
            if not isinstance(source, str):
                without = [card.name for card in cards if card.family not in source]
                if without:
                    listed = ", ".join(source)
                    problems.append(
                        f"the encoder {name} has sources for {listed}, which leaves out {', '.join(without)}"
                    )
        _raise(problems)
        return tasks

    @field_validator("budgets")
    @classmethod
    def _budgets_differ(cls, budgets: tuple[LabelBudget, ...]) -> tuple[LabelBudget, ...]:
        _raise(_repeated([budget.label() for budget in budgets]))
        return budgets

    @field_validator("seeds")
    @classmethod
    def _seeds_differ(cls, seeds: tuple[int, ...]) -> tuple[int, ...]:
        negative = [f"the seed {seed} is negative" for seed in seeds if seed < 0]
        _raise([*negative, *_repeated([str(seed) for seed in seeds])])
        return seeds

    @field_validator("methods")
    @classmethod
    def _restrictions_are_known(
        cls, methods: tuple[MethodSection, ...], info: ValidationInfo
    ) -> tuple[MethodSection, ...]:
        known: dict[str, Collection[str] | None] = {
            "encoders": info.data.get("encoders"),
            "tasks": _or_none(info.data.get("tasks"), lambda task: load_card(task.card).name),
            "budgets": _or_none(info.data.get("budgets"), LabelBudget.label),
            "seeds": _or_none(info.data.get("seeds"), str),
        }
        problems = _repeated([method.model_dump_json() for method in methods])
        for method in methods:
            if method.is_peer and method.encoders is not None:
                problems.append(f"{method.name} is a peer, its encoder is `peers_encoder`; leave `encoders` out")
            for key, names in method.restrictions().items():
                wanted = known[key]
                strangers = [] if wanted is None or names is None else [name for name in names if name not in wanted]
                hints = [nearest(name, wanted or ()) for name in strangers]
                pairs = zip(strangers, hints, strict=True)
                problems += [f"{method.name}: {name!r} is none of the suite's {key}{hint}" for name, hint in pairs]
        _raise(problems)
        return methods

    def source(self, encoder: str, family: str, seed: int) -> str:
        """Where an encoder comes from, for a family and a seed."""
        found = self.encoders[encoder]
        return (found if isinstance(found, str) else found[family]).replace(SEED, str(seed))  # type: ignore[index]


def _or_none(items: Sequence[Any] | None, name: Any) -> list[str] | None:
    return None if items is None else [name(item) for item in items]


def _repeated(names: Sequence[str]) -> list[str]:
    return [f"{name} is given {names.count(name)} times" for name in dict.fromkeys(names) if names.count(name) > 1]


def _raise(problems: Sequence[str]) -> None:
    if problems:
        raise ValueError("; ".join(problems))
