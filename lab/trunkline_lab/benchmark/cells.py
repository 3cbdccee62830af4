"""The cells of a suite: what each depends on, the key made of that, and the jobs that share work."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

from trunkline.errors import TrunklineError, nearest
from trunkline.tasks import FAMILIES
from trunkline_lab.benchmark.peers import PEERS, describe
from trunkline_lab.benchmark.results import Result
from trunkline_lab.benchmark.suite import AdaptSection, LabelBudget, MethodSection, SuiteRecipe, TaskSection
from trunkline_lab.data.cards import Card, load_card

RESULT_FORMAT = 1
"""Part of every key; raised when the same settings give other results, so that all cells run again."""

T = TypeVar("T")
Place = tuple[str, str, str, str, int]
Identity = Mapping[str, Any]
Identify = Callable[[str, str], Identity]
"""From an encoder's source and a family (empty for the bare encoder) to what identifies the encoder."""


@dataclass(frozen=True)
class Cell:
    """One task with one encoder, method, label budget and seed.

    Attributes:
        key: SHA-256 of all that determines the result, `identity` among it.
        card: The card, by name or absolute path.
        task: The card's name.
        family: Its family.
        encoder: The encoder's name in the suite.
        source: What `load_any` takes for it.
        method: `head`, `lora` or the name of a peer.
        budget: How many labels.
        seed: Draws them.
        section: The method's settings; none for a peer.
        max_chars: Where the task's texts are cut; none if they are read whole.
        identity: Hashes of the encoder and of the task.
    """

    key: str
    card: str
    task: str
    family: str
    encoder: str
    source: str
    method: str
    budget: LabelBudget
    seed: int
    section: AdaptSection | None
    max_chars: int | None = None
    identity: Identity = field(default_factory=dict)

    @property
    def place(self) -> Place:
        """Where its result stands in a report; another key at the same place replaces it."""
        return self.task, self.encoder, self.method, self.budget.label(), self.seed

    def result(self, **values: Any) -> Result:
        """Its result with these values."""
        return Result(
            key=self.key,
            task=self.task,
            family=self.family,
            measure=FAMILIES[self.family].main_score,
            encoder=self.encoder,
            method=self.method,
            budget=self.budget.label(),
            seed=self.seed,
            **values,
        )


def place_of(result: Result) -> Place:
    """The `Cell.place` of the cell that a result is of."""
    return result.task, result.encoder, result.method, result.budget, result.seed


@dataclass(frozen=True)
class Job:
    """Cells that are run one after the other in one process, because they share an encoder, a task and features."""

    cells: tuple[Cell, ...]


def expand(recipe: SuiteRecipe, identify: Identify, only: Collection[str] = ()) -> list[Cell]:
    """The cells of a suite, task by task, so that what is compared is done at about the same time.

    Args:
        recipe: The suite.
        identify: Identifies encoders; asked once for each source and family.
        only: Names of the tasks to keep; all if empty.

    Raises:
        TrunklineError: `only` names a task that the suite does not have.
    """
    cards = [(task, load_card(task.card)) for task in recipe.tasks]
    names = [card.name for _, card in cards]
    for name in only:
        if name not in names:
            raise TrunklineError(
                f"the suite {recipe.name} has no task {name!r}{nearest(name, names)}",
                expected=f"one of {', '.join(names)}",
            )
    known: dict[tuple[str, str], Identity] = {}

    def identity_of(source: str, family: str) -> Identity:
        if (source, family) not in known:
            known[source, family] = identify(source, family)
        return known[source, family]

    found: dict[str, Cell] = {}
    for task, card in cards:
        if not only or card.name in only:
            # By content, so that a data set that was fetched again is the same task.
            splits = {split: card.fingerprint(split, content=True) for split in card.splits}
            for method in recipe.methods:
                for cell in _cells(recipe, (task, card), method, identity_of, splits):
                    found.setdefault(cell.key, cell)
    order = list(recipe.encoders)
    return sorted(found.values(), key=lambda cell: (names.index(cell.task), order.index(cell.encoder)))


def _cells(
    recipe: SuiteRecipe, of: tuple[TaskSection, Card], method: MethodSection, identify: Identify, splits: Identity
) -> Iterable[Cell]:
    task, card = of
    chosen = method.restrictions()
    if not _kept(card.name, chosen["tasks"]) or (method.is_peer and card.family not in PEERS[method.name].families):
        return
    encoders = [recipe.peers_encoder or recipe.baseline] if method.is_peer else list(recipe.encoders)
    section = None if method.is_peer else recipe.adapt.section(method.name, task.max_length)
    settings = describe(method.name) if section is None else section.fingerprint()
    for encoder in encoders:
        for seed in recipe.seeds:
            if not _kept(encoder, chosen["encoders"]) or not _kept(str(seed), chosen["seeds"]):
                continue
            source = absolute(recipe.source(encoder, card.family, seed))
            identity = {
                "encoder": dict(identify(source, "" if method.is_peer else card.family)),
                "card": dict(splits),
                "settings": settings,
                # Left out where it is not used, so that the keys of other tasks stay as they are.
                **({} if task.max_chars is None else {"max_chars": task.max_chars}),
            }
            for budget in recipe.budgets:
                if _kept(budget.label(), chosen["budgets"]):
                    names = (card.name, encoder, method.name, budget.label(), seed)
                    yield Cell(
                        key=key_of(names, identity),
                        card=absolute(task.card),
                        task=card.name,
                        family=card.family,
                        encoder=encoder,
                        source=source,
                        method=method.name,
                        budget=budget,
                        seed=seed,
                        section=section,
                        max_chars=task.max_chars,
                        identity=identity,
                    )


def select(items: Iterable[T], *asked: tuple[str, Collection[str], Callable[[T], str]]) -> list[T]:
    """Those of some cells or results that have one of the names asked for.

    Args:
        items: The cells or results.
        asked: What kind of name it is, the names, all if empty, and where an item has its own.

    Raises:
        TrunklineError: None of the items has a name.
    """
    items = list(items)
    for what, names, name_of in asked:
        known = sorted({name_of(item) for item in items})
        for name in names:
            if name not in known:
                raise TrunklineError(
                    f"none of the cells has the {what} {name!r}{nearest(name, known)}",
                    expected=f"one of {', '.join(known)}",
                )
    return [item for item in items if all(not names or name_of(item) in names for _, names, name_of in asked)]


def key_of(place: Place, identity: Identity) -> str:
    """The key of a cell: the first half of a SHA-256."""
    content = {"format": RESULT_FORMAT, "place": place, **identity}
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()[:32]


def absolute(name: str) -> str:
    """The absolute path of what is a path here, so that workers find it from wherever they start."""
    path = Path(name).expanduser()
    return str(path.resolve()) if path.exists() and (os.sep in name or path.is_dir() or path.suffix) else name


def group_jobs(cells: Sequence[Cell]) -> list[Job]:
    """Cells that need the same features into one job; a peer's cells, into one each."""
    groups: dict[Any, list[Cell]] = {}
    for cell in cells:
        shared: Any = cell.method
        if cell.section is not None:
            shared = (cell.section.max_length, cell.section.precision)
        groups.setdefault((cell.card, cell.source, cell.encoder, shared), []).append(cell)
    return [Job(tuple(group)) for group in groups.values()]


def _kept(name: str, chosen: Collection[str] | None) -> bool:
    return chosen is None or name in chosen
