"""What a cell is run on: its task with a dev part, its encoder, and the few examples drawn for it."""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import Any

import torch

from trunkline.encoder.bundle_files import Loaded, load_any, manifest_of
from trunkline.errors import DataError, MismatchError, TrunklineError
from trunkline.tasks import FAMILIES
from trunkline.text.tokens import TextTokenizer
from trunkline.text.words import split_words
from trunkline_lab.benchmark.cells import Cell, Identity
from trunkline_lab.data.cards import Resplit, divide, load_card
from trunkline_lab.data.sample import draw
from trunkline_lab.fitting import TaskData

Indices = Sequence[int]

LEAST_DEV = 100
"""With few labels dev is cut to as many examples as train has, but not below this."""

ASIDE = Resplit.model_validate({"from": "train", "fraction": 0.1, "seed": 1})
"""What is set aside for dev from the train part of a card that has no dev part, as the shipped cards do it."""


@dataclass(frozen=True)
class Drawn:
    """The examples of a cell, as indices into the parts of its task."""

    train: Indices
    dev: Indices


def identify_encoder(source: str, family: str, known: dict[str, Identity]) -> Identity:
    """Hashes of all of an encoder that a result depends on; `known` keeps those of each source.

    Args:
        source: What `load_any` accepts.
        family: Whose primary adapter counts; empty for none.
        known: Filled by this function.
    """
    if source not in known:
        try:
            loaded = load_any(source)
        except (TrunklineError, OSError) as error:
            # Its cells fail when they are run, with the same error; what is here of other encoders is run.
            known[source] = {"missing": f"{type(error).__name__}: {error}"}
        else:
            tokenizer = hashlib.sha256(loaded.tokenizer.tokenizer.to_str().encode()).hexdigest()[:16]
            manifest = manifest_of(loaded)
            primaries = {name: manifest.files[file].sha256[:16] for name, file in manifest.adapters.items()}
            common = {"backbone": loaded.backbone[:16], "tokenizer": tokenizer}
            known[source] = {**common, "fork": loaded.encoder.fork, "primaries": primaries}
    found = dict(known[source])
    primaries = found.pop("primaries", {})
    if not family:
        found.pop("fork", None)
    return {**found, "primary": primaries.get(family, "")} if family and "missing" not in found else found


@lru_cache(maxsize=1)
def load_task(name: str, max_chars: int | None = None) -> tuple[TaskData, bool]:
    """A task with its dev part; jobs of one task come one after the other, so the last one is kept.

    Args:
        name: Of the card, or its path.
        max_chars: Where the texts of a classification task are cut; they are whole if it is none.

    Returns:
        The task, and whether a tenth of train was set aside for dev because the card has none.

    Raises:
        DataError: The files are not here or damaged, or too few for a dev part.
    """
    card = load_card(name)
    train, test = card.load("train"), card.load("test")
    aside = "dev" not in card.splits
    if aside:
        parts = divide(train, "train", {"dev": ASIDE})
        train, dev = parts["train"], parts["dev"]
        if not dev or not train:
            raise DataError(
                f"the card {card.name} has no dev part, and its {len(train)} training examples are too few for one",
                path=card.resolve(card.files["train"][0].path),
                expected="a dev part, on which settings are chosen",
                todo="Add files for the split dev to the card",
            )
    else:
        dev = card.load("dev")
    if max_chars is not None:
        train, dev, test = (_cut_all(part, max_chars) for part in (train, dev, test))
    return TaskData(card.name, card.family, train, dev, test), aside


def _cut_all(part: Sequence[Any], most: int) -> list[Any]:
    return [replace(example, text=cut(example.text, most)) for example in part]


def cut(text: str, most: int) -> str:
    """The whole words at the start of a text that fit into `most` characters; a longer first word is cut itself."""
    if len(text) <= most:
        return text
    ends = [end for _, end in split_words(text[: most + 1]) if end <= most]
    return text[: ends[-1] if ends else most]


def load_start(source: str, family: str, max_length: int) -> Loaded:
    """An encoder on this machine's device; a MismatchError if its primary adapters are all of other families."""
    loaded = load_any(source, max_length=max_length)
    if loaded.primaries and family not in loaded.primaries:
        raise MismatchError(
            f"{source} has primary adapters for {', '.join(sorted(loaded.primaries))}, none for {family}",
            expected="an adapter for the family of each task, or no adapters at all",
            todo="Name another encoder for this family: `{ner: ..., classification: ...}` under the encoder's name",
        )
    windows = TextTokenizer(loaded.tokenizer.tokenizer, min(max_length, loaded.encoder.config.max_length))
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    loaded.encoder.to(device)
    for lora in loaded.primaries.values():
        lora.to(device)
    return replace(loaded, tokenizer=windows)


def draw_cell(task: TaskData, cell: Cell) -> Drawn:
    """The train and dev examples of a cell: the same for every encoder and method, nested in nothing but the seed."""
    classes = FAMILIES[task.family].classes
    every, budget = range(len(task.train)), cell.budget
    if budget.all:
        return Drawn(every, range(len(task.dev)))
    sentences = None if budget.share is None else max(1, round(budget.share * len(every)))
    train = draw(
        every, lambda i: classes(task.train[i]), seed=cell.seed, sentences=sentences, per_class=budget.per_class
    )
    most = max(LEAST_DEV, len(train))
    dev = draw(range(len(task.dev)), lambda i: set(), seed=cell.seed, sentences=most)
    return Drawn(train, dev)


def short_classes(task: TaskData, cell: Cell) -> dict[str, int]:
    """The classes that have fewer examples than a budget per class asks for, with how many they have."""
    if cell.budget.per_class is None:
        return {}
    classes = FAMILIES[task.family].classes
    found = Counter(name for example in task.train for name in classes(example))
    return {name: count for name, count in sorted(found.items()) if count < cell.budget.per_class}
