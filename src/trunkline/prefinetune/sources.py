"""The sources of a recipe: read once into stored corpora, cleaned of what the tasks are scored on, and tokenised."""

from __future__ import annotations

import hashlib
import logging
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from trunkline.cache import cache_folder
from trunkline.config import DecontaminateSection, FamilySection, MixtureFamily, PrefinetuneRecipe
from trunkline.data.checks.decontaminate import decontaminate
from trunkline.data.load import stream_examples, stream_source
from trunkline.errors import RecipeError, TrunklineError
from trunkline.prefinetune.corpus import Corpus, Subset, corpus_of, tokens_of
from trunkline.prefinetune.mixture import Source, split_source
from trunkline.prefinetune.objectives import get_prefinetune_family
from trunkline.prefinetune.store import Rows, code_fingerprint, open_rows, store_rows
from trunkline.text.examples import Example, NerExample, PairExample, PlainExample, QaExample
from trunkline.text.tokens import IntArray, TextTokenizer
from trunkline_lab.data.cards import Card, load_card
from trunkline_lab.data.checks import benchmark_index, held_out_splits, tasks_here
from trunkline_lab.data.derived import plain_texts

log = logging.getLogger(__name__)

_KINDS = {"ner": NerExample, "classification": PairExample, "qa": QaExample, "text": PlainExample}
_TEXT_FILES = (".txt", ".md", ".gz")


@dataclass(frozen=True)
class Opened:
    """A source's corpus, and what of it may be trained on.

    Attributes:
        name: As the recipe says it, without folder and suffix.
        corpus: All its examples.
        kept: Indices into the corpus that are left after decontamination.
        removed: What decontamination took out, as plain data; empty without it.
        card: Its card; none for a bare file.
    """

    name: str
    corpus: Corpus
    kept: IntArray
    removed: dict[str, Any]
    card: Card | None

    def concept(self, label: str, *, describe: bool = True) -> str:
        """The natural words for a label: what the card says, or the label itself as words."""
        if describe and self.card is not None:
            return self.card.concept(label)
        return " ".join(label.replace("_", " ").replace("-", " ").split()).lower()


class Decontaminator:
    """Takes examples out that also stand in dev or test parts; what is left of a corpus is worked out once."""

    def __init__(self, section: DecontaminateSection) -> None:
        self.section = section
        self.cards = tasks_here() if section.against == "tasks" else list(section.against)
        cards = [load_card(name) for name in self.cards]
        parts = [card.fingerprint(split) for card in cards for split in held_out_splits(card.splits)]
        self.fingerprint = hashlib.sha256(f"{parts} {section.threshold}".encode()).hexdigest()
        self._index: Any = None

    def kept(self, corpus: Corpus) -> tuple[IntArray, dict[str, Any]]:
        """Indices of the examples that are left, and the report about the others."""
        key = hashlib.sha256(f"{code_fingerprint()} {corpus.sha256} {self.fingerprint}".encode()).hexdigest()[:32]
        folder = cache_folder() / "kept" / key
        rows = open_rows(folder)
        if rows is None:
            rows = self._compute(corpus, folder)
        indices = np.asarray([index for row in range(len(rows)) for index in rows[row]], dtype=np.int64)
        return indices, rows.info["removed"]

    def _compute(self, corpus: Corpus, folder: Path) -> Rows:
        if self._index is None:
            self._index = benchmark_index(self.cards, threshold=self.section.threshold)
        kept, removal = decontaminate(corpus, self._index)
        return store_rows(folder, {"index": "int"}, ((i,) for i in kept), lambda: {"removed": removal.as_dict()})


def open_sources(
    family: str,
    section: MixtureFamily,
    clean: Decontaminator | None = None,
    on_load: Callable[[str], None] = lambda name: None,
) -> list[Opened]:
    """Opens every source of a family.

    Raises:
        RecipeError: Sources that cannot be read, all of them listed.
    """
    sources, problems = [], []
    for name in section.sources:
        on_load(name)
        try:
            sources.append(_open(name, family, clean))
        except TrunklineError as error:
            problems.append(f"families.{family}.sources.{name}: {error}")
    if problems:
        raise RecipeError("recipe", problems)
    return _told_apart(sources)


def load_sources(
    family: str, section: FamilySection, seed: int, opened: Sequence[Opened], tokenizer: TextTokenizer | None = None
) -> list[Source]:
    """The sources of a family as a mixture takes them.

    Args:
        family: Its name.
        section: Weights, caps and the number of held-out examples.
        seed: Divides each source into what is trained on and what is held out.
        opened: From `open_sources`.
        tokenizer: If given, texts are tokenised once and kept.
    """
    sources = []
    for share, source in zip(section.sources.values(), opened, strict=True):
        corpus = source.corpus
        train, held_out = split_source(len(source.kept), section.held_out, share.cap, seed)
        train, held_out = source.kept[train], source.kept[held_out]
        size = 1.0 if section.source_temperature is None else float(len(train)) ** (1 / section.source_temperature)
        units = None
        if tokenizer is not None:
            units = Subset(tokens_of(corpus, tokenizer, family, get_prefinetune_family(family).unit_texts), train)
        log.info(
            "%s: %d examples, %d held out, %d concepts", source.name, len(train), len(held_out), len(corpus.labels)
        )
        sources.append(
            Source(
                source.name,
                Subset(corpus, train),
                Subset(corpus, held_out),
                {label: source.concept(label, describe=section.descriptions) for label in sorted(corpus.labels)},
                source.card is None or source.card.coverage == "closed",
                share.weight * size,
                units,
                corpus.labels,
            )
        )
    return sources


def open_recipe(recipe: PrefinetuneRecipe, say: Callable[[str], None] = lambda text: None) -> dict[str, list[Opened]]:
    """Opens all sources of a recipe by family; problems of all sources of a family raise one RecipeError."""
    clean = Decontaminator(recipe.decontaminate) if recipe.decontaminate else None
    return {
        family: open_sources(family, section, clean, lambda name: say(f"reading {name}"))
        for family, section in recipe.families.items()
    }


def recipe_sources(
    recipe: PrefinetuneRecipe, tokenizer: TextTokenizer | None = None, say: Callable[[str], None] = lambda text: None
) -> dict[str, list[Source]]:
    """All sources of a recipe by family; problems of all sources of a family raise one RecipeError."""
    opened = open_recipe(recipe, say)
    return {
        family: load_sources(family, section, recipe.seed, opened[family], tokenizer)
        for family, section in recipe.families.items()
    }


def _open(name: str, family: str, clean: Decontaminator | None) -> Opened:
    path = Path(name)
    if path.suffix == ".jsonl" and path.with_suffix(".yaml").is_file():  # as weak-label and mine-pairs write them
        return _open(str(path.with_suffix(".yaml")), family, clean)
    # All kinds of data have text, so those of the family text are another view of them, stored under another key.
    view = " as text" if family == "text" else ""
    if path.suffix == ".jsonl" or (view and (path.suffix in _TEXT_FILES or (path.is_dir() and "/" in name))):
        read = (lambda: stream_examples(path, "plain")) if view else (lambda: stream_source(path, family))
        corpus = corpus_of(_key(_state(path) + view), read)
        opened = Opened(path.stem, corpus, np.arange(len(corpus)), {}, None)
    else:
        card, split = _card(name)

        def stream() -> Iterable[Example]:
            return plain_texts(card.stream(split)) if view else card.stream(split)

        corpus = corpus_of(_key(f"{card.name} {card.fingerprint(split)}{view}"), stream)
        label = card.name if split == "train" else f"{card.name}@{split}"
        opened = Opened(label, corpus, np.arange(len(corpus)), {}, card)
    if not isinstance(opened.corpus[0], _KINDS[family]):
        raise TrunklineError(
            f"{name} yields {type(opened.corpus[0]).__name__}", expected=f"{_KINDS[family].__name__} for {family}"
        )
    if clean is None:
        return opened
    kept, removed = clean.kept(opened.corpus)
    if not len(kept):
        raise TrunklineError(f"nothing of {name} is left after decontamination", todo="Take it out of the recipe")
    return replace(opened, kept=kept, removed=removed)


def _card(name: str) -> tuple[Card, str]:
    if Path(name).suffix in (".yaml", ".yml"):
        return load_card(Path(name)), "train"
    card, at, split = name.partition("@")
    return load_card(card), split if at else "train"


def _state(path: Path) -> str:
    """What a file, or the files of a folder, are now."""
    files = sorted(path.rglob("*")) if path.is_dir() else [path]
    found = [(file.resolve(), file.stat()) for file in files if file.is_file()]
    return " ".join(f"{file} {stat.st_size} {stat.st_mtime_ns}" for file, stat in found) or str(path)


def _key(state: str) -> str:
    return hashlib.sha256(state.encode()).hexdigest()[:32]


def _told_apart(sources: list[Opened]) -> list[Opened]:
    """Numbers sources of one name (files of one name in several folders), as progress is kept by name."""
    seen: Counter[str] = Counter()
    result = []
    for source in sources:
        seen[source.name] += 1
        number = seen[source.name]
        result.append(source if number == 1 else replace(source, name=f"{source.name}-{number}"))
    return result
