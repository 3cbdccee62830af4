"""The sources of a recipe: found, read once into the cache, cleaned of what is scored on, and tokenised."""

from __future__ import annotations

import hashlib
import json
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from trunkline.config import MixtureFamily, MixtureRecipe, PrefinetuneRecipe
from trunkline.data.overlap import OverlapIndex, decontaminate, example_texts
from trunkline.data.source_card import SourceCard, label_words, load_source_card
from trunkline.data.stream import stream_examples
from trunkline.errors import RecipeError, TrunklineError
from trunkline.prefinetune.corpus import Corpus, View, cached, corpus_of
from trunkline.prefinetune.mixture import Source, split_source
from trunkline.prefinetune.objectives import get_objective
from trunkline.problems import nearest
from trunkline.text.examples import Example, NerExample, PairExample, PlainExample, QaExample, TextExample
from trunkline.text.tokens import IntArray, TextTokenizer

_READ_AS = {
    NerExample: "ner",
    TextExample: "classification",
    QaExample: "qa",
    PairExample: "pairs",
    PlainExample: "plain",
}


@dataclass(frozen=True)
class Found:
    """A source that a recipe names: its card, a `state` that changes whenever its examples do, and how to read them."""

    card: SourceCard
    state: str
    examples: Callable[[], Iterable[Example]]


@dataclass(frozen=True)
class HeldOutTexts:
    """Texts that nothing may be learnt from: `names` of their owners, `state` as for `Found`, `texts` with owners."""

    names: Sequence[str]
    state: str
    texts: Callable[[], Iterable[tuple[str, str]]]


class FileFinder:
    """What the names in a recipe mean: files (folders too for plain text), with a source card `DATA.yaml` or none."""

    def __init__(self, root: Path = Path()) -> None:
        self.root = root

    def open(self, name: str, kind: type[Any]) -> Found:
        """The source of a name, or of its card, with examples of a kind; raises TrunklineError if there is none."""
        card_path = self._existing(name).with_suffix(".yaml")
        path = self._existing(str(Path(name).with_suffix(".jsonl")) if Path(name).suffix == ".yaml" else name)
        family: Any = {"pairs": "classification", "plain": "text"}.get(_READ_AS[kind], _READ_AS[kind])
        card = SourceCard(name=path.stem, family=family, coverage="closed")
        if card_path.is_file():
            card = load_source_card(card_path)
            if family not in (card.family, "text"):  # all kinds of data have text
                raise TrunklineError(f"{card_path} is of family {card.family}", expected=f"a source for {family}")

        return Found(card, f"{_state(path)} as {kind.__name__}", lambda: stream_examples(path, _READ_AS[kind]))

    def held_out(self, names: Sequence[str]) -> HeldOutTexts:
        """The texts that `decontaminate.against` means: of dev and test files of any family."""
        paths = [self._existing(name) for name in names]

        def texts() -> Iterator[tuple[str, str]]:
            for path in paths:
                yield from ((path.name, text) for example in _read_any(path) for text in example_texts(example))

        return HeldOutTexts(names, " ".join(map(_state, paths)), texts)

    def _existing(self, name: str) -> Path:
        path = self.root / Path(name).expanduser()
        if not path.exists():
            siblings = [item.name for item in path.parent.iterdir()] if path.parent.is_dir() else []
            raise TrunklineError(
                f"there is no {path}{nearest(path.name, siblings)}",
                expected="a file of data, such as sentences.jsonl",
                todo="Correct the name in the recipe; public data sets are known to trunkline-lab alone",
            )
        return path


def recipe_sources(
    recipe: PrefinetuneRecipe | MixtureRecipe,
    tokenizer: TextTokenizer | None = None,
    *,
    finder: FileFinder | None = None,
    say: Callable[[str], None] = lambda text: None,
) -> dict[str, list[Source]]:
    """All sources of a recipe by family, as a mixture takes them; its seed chooses what is held out of each.

    With a tokenizer texts are tokenised once and kept. `finder` knows what the names mean, files by default; `say`
    receives a line for each source. Raises RecipeError for sources that cannot be read, all those of a family listed.
    """
    reader = _Reader(recipe, tokenizer, finder or FileFinder())
    result: dict[str, list[Source]] = {}
    for family, section in recipe.families.items():
        sources: list[Source] = []
        problems: list[str] = []
        seen: Counter[str] = Counter()
        for name in section.sources:
            say(f"reading {name}")
            try:
                source = reader.source(name, family, section)
            except TrunklineError as error:
                problems.append(f"families.{family}.sources.{name}: {error}")
                continue
            # Files of one name in several folders are numbered, as progress is kept by name.
            seen[source.name] += 1
            number = f"-{seen[source.name]}" if seen[source.name] > 1 else ""
            sources.append(replace(source, name=source.name + number))
        if problems:
            raise RecipeError("recipe", problems)
        result[family] = sources
    return result


class _Reader:
    """Reads a recipe's sources, and takes examples out that also stand in held-out texts, which is worked out once."""

    def __init__(
        self, recipe: PrefinetuneRecipe | MixtureRecipe, tokenizer: TextTokenizer | None, finder: FileFinder
    ) -> None:
        self.tokenizer, self.finder = tokenizer, finder
        self.seed = recipe.seed if isinstance(recipe, PrefinetuneRecipe) else 0
        self.decontaminate = recipe.decontaminate
        self.held_out = finder.held_out(recipe.decontaminate.against) if recipe.decontaminate else None
        self._index: OverlapIndex | None = None

    def source(self, name: str, family: str, section: MixtureFamily) -> Source:
        """One of a family's sources."""
        objective = get_objective(family)
        found = self.finder.open(name, objective.kind)
        corpus, card = corpus_of(found.state, found.examples, objective, self.tokenizer), found.card
        left, why = self._left(corpus)
        if not len(left):
            raise TrunklineError(f"nothing of {name} is left after decontamination", todo="Take it out of the recipe")
        asked, words = section.sources[name], card.concept if section.descriptions else label_words
        train, held_out = split_source(len(left), getattr(section, "held_out", 0), asked.cap, self.seed)
        by_size = len(train) ** (1 / section.source_temperature) if section.source_temperature else 1.0
        # What is drawn depends on the corpus and on what is left of it, which another machine with other held-out texts
        # may have otherwise.
        facts = {
            "sha256": corpus.sha256,
            "left_sha256": hashlib.sha256(left.astype("<i8").tobytes()).hexdigest(),
            "examples": len(corpus),
            "removed": len(corpus) - len(left),
            "why": why,
        }
        return Source(
            card.name,
            View(corpus.example, left[train]),
            View(corpus.example, left[held_out]),
            {label: words(label) for label in corpus.labels},
            card.coverage == "closed",
            asked.weight * by_size,
            View(corpus.units, left[train]) if corpus.has_units else None,
            {**card.model_dump(include={"title", "home", "licence", "coverage"}), **facts},
        )

    def _left(self, corpus: Corpus) -> tuple[IntArray, dict[str, Any]]:
        """Indices of the examples that touch no held-out text, and how many were removed `by_` what."""
        everything = np.arange(len(corpus))
        if self.decontaminate is None or self.held_out is None:
            return everything, {}
        threshold, held_out = self.decontaminate.threshold, self.held_out

        def make(folder: Path) -> None:
            self._index = self._index or OverlapIndex(held_out.texts(), threshold)
            kept, removal = decontaminate(View(corpus.example, everything), self._index)
            # The texts stay where they are: a report may be published, the data often may not.
            why = {"by_kind": removal.by_kind, "by_owner": removal.by_owner}
            content = {"removed": np.setdiff1d(everything, kept).tolist(), "why": why}
            (folder / "info.json").write_text(json.dumps(content), encoding="utf-8")

        folder = cached(f"kept {corpus.sha256} {threshold} {held_out.state}", make)
        found = json.loads((folder / "info.json").read_text("utf-8"))
        return np.setdiff1d(everything, found["removed"]), found["why"]


def _read_any(path: Path) -> list[Example]:
    """Data of whatever family they are."""
    problems = []
    for family in _READ_AS.values():
        try:
            return list(stream_examples(path, family))
        except TrunklineError as error:
            problems.append(str(error))
    raise TrunklineError(f"{path} cannot be read as data of any family: {problems[0]}")


def _state(path: Path) -> str:
    """What a file, or the files of a folder, are now."""
    files = sorted(path.rglob("*")) if path.is_dir() else [path]
    found = [(file.resolve(), file.stat()) for file in files if file.is_file()]
    return " ".join(f"{file} {stat.st_size} {stat.st_mtime_ns}" for file, stat in found) or str(path)
