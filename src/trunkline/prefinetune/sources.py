"""The sources of a recipe: found, cleaned of what is scored on, and tokenised, all of which is done once and cached.

A corpus has the examples of a source with their tokens in a memory-mapped Arrow file. An entry of the cache is a folder
under a hash of all that its content depends on: the source's state, the tokenizer, `FORMAT`. It appears when it is
complete, so several runs may make the same one at once; it may be deleted at any time.
"""

from __future__ import annotations

import hashlib
import json
import tempfile
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import astuple, dataclass, fields, replace
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
from torch.utils.data import Subset

from trunkline.config import FamilySection, PrefinetuneRecipe, load_recipe
from trunkline.data.overlap import OverlapIndex, decontaminate, example_texts
from trunkline.data.source_card import SourceCard, label_words
from trunkline.data.stream import stream_examples
from trunkline.errors import RecipeError, TrunklineError, nearest
from trunkline.prefinetune.model import Objective, Source, split_source
from trunkline.prefinetune.objectives import OBJECTIVES
from trunkline.text.examples import Example, NerExample, PairExample, PlainExample, QaExample, Span, TextExample
from trunkline.text.tokens import IntArray, TextTokenizer, UnitText
from trunkline.versions import CACHE_VARIABLE, cache_folder, used

FORMAT = 2
"""Of the cache; goes up with every change of what is stored, or of how text becomes units."""

_INFO, _ROWS = "info.json", "rows.arrow"
_AT_ONCE = 1000
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
            card = load_recipe(card_path, SourceCard)
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
            given = f"there is no {path}{nearest(path.name, siblings)}"
            todo = "Correct the name in the recipe; public data sets are known to trunkline-lab alone"
            raise TrunklineError(given, expected="a file of data, such as sentences.jsonl", todo=todo)
        return path


def recipe_sources(
    recipe: PrefinetuneRecipe,
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
        sources, problems, seen = list[Source](), list[str](), Counter[str]()
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
    """Reads a recipe's sources, without the examples that also stand in its held-out texts."""

    def __init__(self, recipe: PrefinetuneRecipe, tokenizer: TextTokenizer | None, finder: FileFinder) -> None:
        self.tokenizer, self.finder, self.seed = tokenizer, finder, recipe.seed
        asked = recipe.decontaminate
        self.held_out = finder.held_out(asked.against) if asked else None
        self.threshold = asked.threshold if asked else 0.0
        self._index: OverlapIndex | None = None

    def source(self, name: str, family: str, section: FamilySection) -> Source:
        """One of a family's sources."""
        objective = OBJECTIVES[family]
        found = self.finder.open(name, objective.kind)
        against = f"{self.threshold} {self.held_out.state}" if self.held_out else ""
        corpus = corpus_of(f"{found.state} {against}", lambda: self._left(found), objective, self.tokenizer)
        card, asked = found.card, section.sources[name]
        words = card.concept if section.descriptions else label_words
        part: Any = Subset  # whose types know no arrays
        indices = split_source(len(corpus), section.held_out, asked.cap, self.seed)
        train, held_out = (part(corpus, own) for own in indices)
        by_size = len(train) ** (1 / section.source_temperature) if section.source_temperature else 1.0
        return Source(
            card.name,
            train,
            held_out,
            {label: words(label) for label in corpus.labels},
            card.coverage == "closed",
            asked.weight * by_size,
            (lambda index: corpus.units(train.indices[index])) if corpus.has_units else None,
            {**card.model_dump(include={"title", "home", "licence", "coverage"}), **corpus.facts},
        )

    def _left(self, found: Found) -> tuple[Iterable[Example], dict[str, Any]]:
        """The examples that touch no held-out text; how many were `removed`, and `why`."""
        if self.held_out is None:
            return found.examples(), {"removed": 0, "why": {}}
        self._index = self._index or OverlapIndex(self.held_out.texts(), self.threshold)
        positions, kinds, owners = decontaminate(found.examples(), self._index)
        if kinds and not positions:
            raise TrunklineError("nothing of it is left after decontamination", todo="Take it out of the recipe")
        kept = set(positions)
        # The texts stay where they are: a report may be published, the data often may not.
        why = {"by_kind": dict(kinds.most_common()), "by_owner": dict(owners.most_common(20))}
        examples = (example for number, example in enumerate(found.examples()) if number in kept)
        return examples, {"removed": kinds.total(), "why": why}


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


class Corpus:
    """The examples of one `kind`, read from a mapped file when they are asked for; `has_units` if they are tokenised.

    `labels` are those of the entities. `facts` are how many `examples` were read, how many `removed` and `why`, and the
    `sha256` of those that are there, whatever the tokenizer.
    """

    def __init__(self, folder: Path, kind: type[Example]) -> None:
        import pyarrow as pa

        info = json.loads((folder / _INFO).read_text("utf-8"))
        table = pa.ipc.open_stream(pa.memory_map(str(folder / _ROWS))).read_all()
        self._examples, self._units = table.column("example"), table.column("units")
        self.kind = kind
        self.labels: list[str] = info["labels"]
        self.has_units: bool = info["units"]
        self.facts: dict[str, Any] = info["facts"]

    def __len__(self) -> int:
        return len(self._examples)

    def __getitem__(self, row: int) -> Example:
        values = _tuples(json.loads(self._examples[int(row)].as_py()))
        found = dict(zip((part.name for part in fields(self.kind)), values, strict=True))
        if "spans" in found:
            found["spans"] = tuple(Span(*span) for span in found["spans"])
        return self.kind(**found)

    def units(self, row: int) -> list[UnitText]:
        """One example's tokenised texts; their arrays are views of the file and must not be written to."""
        return [_unpack(text.values.to_numpy()) for text in self._units[int(row)].values]


def corpus_of(
    state: str,
    make: Callable[[], tuple[Iterable[Example], dict[str, Any]]],
    objective: type[Objective],
    tokenizer: TextTokenizer | None = None,
) -> Corpus:
    """The corpus in the cache, made if it is not there, of examples, all of the objective's kind, and facts of them.

    `state` is what they depend on, such as the size and time of a file. With a tokenizer they are stored with their
    units. Raises TrunklineError for no examples, or of another kind, and if the cache cannot be written.
    """
    key = f"{FORMAT} {state} {objective.__name__} {tokenizer.fingerprint if tokenizer else ''}"
    folder = cache_folder() / "prefinetune" / hashlib.sha256(key.encode()).hexdigest()[:32]
    try:
        if not folder.is_dir():
            folder.parent.mkdir(parents=True, exist_ok=True)
            with tempfile.TemporaryDirectory(dir=folder.parent, prefix=".") as scratch:
                made = Path(scratch) / "made"
                made.mkdir()
                _write(made, *make(), objective, tokenizer)
                try:
                    made.rename(folder)
                except OSError:
                    if not folder.is_dir():  # else another run was faster, and what it made is the same
                        raise
        return Corpus(used(folder), objective.kind)
    except OSError as error:
        given, todo = f"{folder} cannot be written", f"Set {CACHE_VARIABLE} to another folder, or make room"
        expected = "a folder for the cache with room for the corpus"
        raise TrunklineError(f"{given} ({error.strerror or error})", expected=expected, todo=todo) from error


def _write(
    folder: Path,
    examples: Iterable[Example],
    facts: Mapping[str, Any],
    objective: type[Objective],
    tokenizer: TextTokenizer | None,
) -> None:
    import pyarrow as pa

    rest, digest, labels, count = iter(examples), hashlib.sha256(), set[str](), 0
    schema = pa.schema({"example": pa.string(), "units": pa.list_(pa.list_(pa.int32()))})
    with pa.ipc.new_stream(str(folder / _ROWS), schema) as writer:
        while chunk := list(islice(rest, _AT_ONCE)):
            rows = [json.dumps([getattr(e, part.name) for part in fields(e)], default=astuple) for e in chunk]
            digest.update("".join(f"{row}\n" for row in rows).encode())
            count += len(rows)
            labels |= {span.label for example in chunk for span in getattr(example, "spans", ())}
            texts = [_pack(text) for text in objective.unit_texts(chunk, tokenizer)] if tokenizer else []
            each = len(texts) // len(chunk)
            units = [texts[number * each : (number + 1) * each] for number in range(len(chunk))]
            writer.write_batch(pa.record_batch([pa.array(rows), pa.array(units, schema.field("units").type)], schema))
    if not count:
        raise TrunklineError("there are no examples", expected="at least one")
    facts = {**facts, "examples": count + facts["removed"], "sha256": digest.hexdigest()}
    info = {"labels": sorted(labels), "units": tokenizer is not None, "facts": facts}
    (folder / _INFO).write_text(json.dumps(info), encoding="utf-8")


def _tuples(value: Any) -> Any:
    return tuple(map(_tuples, value)) if isinstance(value, list) else value


def _pack(text: UnitText) -> IntArray:
    """A text as numbers: how many sizes and how many tokens of units, its units; then sizes, ids, tokens and units."""
    counts = len(text.sizes), len(text.token), text.n_units
    return np.concatenate([counts, text.sizes, text.ids, text.token, text.unit]).astype(np.int32)


def _unpack(row: IntArray) -> UnitText:
    windows, pairs, n_units = row[:3].tolist()
    sizes, ids, token, unit = np.split(row[3:], [windows, len(row) - 3 - 2 * pairs, len(row) - 3 - pairs])
    return UnitText(ids, tuple(sizes.tolist()), token, unit, n_units)
