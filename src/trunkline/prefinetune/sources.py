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

from trunkline.config import DecontaminateSection, MixtureFamily, MixtureRecipe, PrefinetuneRecipe
from trunkline.data.load import stream_examples, stream_source
from trunkline.data.overlap import OverlapIndex, decontaminate, example_texts
from trunkline.data.source_card import SourceCard, label_words, load_source_card
from trunkline.errors import RecipeError, TrunklineError
from trunkline.prefinetune.corpus import Corpus, View, cached, corpus_of
from trunkline.prefinetune.mixture import Source, split_source
from trunkline.prefinetune.objectives import get_prefinetune_family
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

        def examples() -> Iterable[Example]:
            if path.suffix == ".jsonl" and kind in (NerExample, PairExample, QaExample):
                return stream_source(path, family)  # spans may overlap, pairs may have groups
            return stream_examples(path, _READ_AS[kind])

        return Found(card, f"{_state(path)} as {kind.__name__}", examples)

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
    finder = finder or FileFinder()
    clean = _Decontaminator(recipe.decontaminate, finder) if recipe.decontaminate else None
    seed = recipe.seed if isinstance(recipe, PrefinetuneRecipe) else 0
    result: dict[str, list[Source]] = {}
    for family, section in recipe.families.items():
        sources: list[Source] = []
        problems: list[str] = []
        seen: Counter[str] = Counter()
        for name, share in section.sources.items():
            say(f"reading {name}")
            try:
                source = _load(name, family, section, seed, tokenizer, finder, clean)
            except TrunklineError as error:
                problems.append(f"families.{family}.sources.{name}: {error}")
                continue
            # Files of one name in several folders are numbered, as progress is kept by name.
            seen[source.name] += 1
            number = f"-{seen[source.name]}" if seen[source.name] > 1 else ""
            sources.append(replace(source, name=source.name + number, weight=share.weight * source.weight))
        if problems:
            raise RecipeError("recipe", problems)
        result[family] = sources
    return result


def _load(
    name: str,
    family: str,
    section: MixtureFamily,
    seed: int,
    tokenizer: TextTokenizer | None,
    finder: FileFinder,
    clean: _Decontaminator | None,
) -> Source:
    known = get_prefinetune_family(family)
    found = finder.open(name, known.kind)
    corpus, card = corpus_of(found.state, found.examples, known, tokenizer), found.card
    if corpus.kind is not known.kind:
        raise TrunklineError(f"{name} yields {corpus.kind.__name__}", expected=f"{known.kind.__name__} for {family}")
    left, why = (np.arange(len(corpus)), {}) if clean is None else clean.kept(corpus)
    if not len(left):
        raise TrunklineError(f"nothing of {name} is left after decontamination", todo="Take it out of the recipe")
    train, held_out = split_source(len(left), getattr(section, "held_out", 0), section.sources[name].cap, seed)
    words = card.concept if section.descriptions else label_words
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
        {label: words(label) for label in sorted(corpus.labels)},
        card.coverage == "closed",
        len(train) ** (1 / section.source_temperature) if section.source_temperature else 1.0,
        View(corpus.units, left[train]) if corpus.has_units else None,
        corpus.labels,
        {**card.model_dump(include={"title", "home", "licence", "coverage"}), **facts},
    )


class _Decontaminator:
    """Takes examples out that also stand in held-out texts; what is left of a corpus is worked out once."""

    def __init__(self, section: DecontaminateSection, finder: FileFinder) -> None:
        self.threshold = section.threshold
        self.held_out = finder.held_out(section.against)
        self._index: OverlapIndex | None = None

    def kept(self, corpus: Corpus) -> tuple[IntArray, dict[str, Any]]:
        """Indices of the examples that are left, and how many were removed `by_` what."""

        def make(folder: Path) -> None:
            if self._index is None:
                self._index = OverlapIndex.build(self.held_out.texts(), self.threshold)
            kept, removal = decontaminate(View(corpus.example, range(len(corpus))), self._index)
            removed = np.setdiff1d(np.arange(len(corpus)), kept).tolist()
            # The texts stay where they are: a report may be published, the data often may not.
            why = {key: value for key, value in removal.as_dict().items() if key.startswith("by_")}
            (folder / "info.json").write_text(json.dumps({"removed": removed, "why": why}), encoding="utf-8")

        key = f"kept {corpus.sha256} {self.threshold} {self.held_out.state}"
        found = cached(key, make, lambda folder: json.loads((folder / "info.json").read_text("utf-8")))
        return np.setdiff1d(np.arange(len(corpus)), found["removed"]), found["why"]


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
