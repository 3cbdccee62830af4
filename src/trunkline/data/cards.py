"""Cards: YAML files that describe a data set, where its files are and how they are read."""

from __future__ import annotations

import hashlib
import logging
import os
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any, Literal

import yaml
from pydantic import BaseModel, ConfigDict, Field, PrivateAttr, ValidationError, field_validator

from trunkline.data.derived import QUESTIONS, over_card
from trunkline.data.files import file_state
from trunkline.data.hub import load_hub
from trunkline.data.readers import READERS, Kind
from trunkline.errors import DataError, RecipeError, TrunklineError
from trunkline.problems import list_problems, nearest
from trunkline.text.examples import Example, NerExample, PairExample, QaExample, TextExample

DATA_VARIABLE = "TRUNKLINE_DATA"
DEFAULT_DATA = "../shared/data"

_log = logging.getLogger(__name__)
_PACKAGE = Path(__file__).resolve().parents[1]
_CARDS = Path(__file__).resolve().parent / "cards"
_FROM_PACKAGE = "trunkline:"
_FAMILY = {"ner": "ner", "text": "classification", "pair": "classification", "plain": "text", "qa": "qa"}


class _Frozen(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", populate_by_name=True, allow_inf_nan=False)


class FileRef(_Frozen):
    """One file of a split.

    `path` is relative to the data folder, to the card's folder where it begins with `./`, or to the package where it
    begins with `trunkline:`. `options` go before those of the card.
    """

    path: str = Field(min_length=1)
    member: str | None = None
    options: dict[str, Any] = {}


class Resplit(_Frozen):
    """A split that is taken out of another one, because the data set comes without it.

    Examples with the same text stay together. Which ones are taken depends on a hash of the text and the seed, so that
    it is the same on every machine and hardly changes when examples are added.
    """

    source: str = Field(alias="from")
    fraction: float = Field(gt=0, lt=1)
    seed: int = 0


class HubRef(_Frozen):
    """Where the hub has the data set, at a pinned revision; `splits` and `columns` name what differs from ours.

    The card's counts and labels are checked on what the hub gives, too.
    """

    id: str = Field(min_length=1)
    revision: str = Field(pattern=r"^[0-9a-f]{40}$")
    config: str | None = None
    splits: dict[str, str] = {}
    columns: tuple[str, str] | None = None


class Card(_Frozen):
    """A data set: what it is, under which licence, and how each split is read."""

    name: str = Field(pattern=r"^[a-z0-9][a-z0-9_]*$")
    title: str = Field(min_length=1)
    version: str = ""
    role: Literal["task", "source"]
    family: Literal["ner", "classification", "qa", "text"]
    kind: Kind
    home: str
    licence: str = Field(min_length=1)
    citation: str = ""
    encoding: str = "utf-8"
    files: dict[str, tuple[FileRef, ...]] = Field(min_length=1)
    reader: str
    options: dict[str, Any] = {}
    labels: dict[str, str] = Field(default={}, description="Label -> the concept in natural words.")
    coverage: Literal["closed", "open"] = "closed"
    quirks: tuple[str, ...] = ()
    counts: dict[str, int] = {}
    resplit: dict[str, Resplit] = {}
    metric: Literal["entity_f1", "accuracy", "macro_f1"] | None = None
    hub: HubRef | None = None
    waive: dict[str, str] = Field(default={}, description="Finding of check-data -> why it is accepted.")
    _origin: Path = PrivateAttr(default=_CARDS)

    @field_validator("files", mode="before")
    @classmethod
    def _one_or_many(cls, value: Any) -> Any:
        if not isinstance(value, dict):
            return value
        return {
            split: tuple(
                {"path": ref} if isinstance(ref, str) else ref for ref in (refs if isinstance(refs, list) else [refs])
            )
            for split, refs in value.items()
        }

    @property
    def splits(self) -> tuple[str, ...]:
        """The splits that can be loaded, those with files first."""
        return (*self.files, *self.resplit)

    def concept(self, label: str) -> str:
        """The natural words for a label: from the card, or the label with its punctuation turned into blanks."""
        return self.labels.get(label) or " ".join(label.replace("_", " ").replace("-", " ").split()).lower()

    def load(self, split: str) -> list[Example]:
        """Reads a split into memory; errors as for `stream`."""
        return list(self.stream(split))

    def stream(self, split: str) -> Iterator[Example]:
        """Yields the examples of a split. What concerns all of them is known, and raised, at the end.

        Raises:
            DataError: Files that are missing or malformed, another number of examples than the card says, or a label
                that it does not have.
            TrunklineError: No such split.
        """
        if split not in self.splits:
            raise TrunklineError(
                f"the card {self.name} has no split {split!r}{nearest(split, self.splits)}",
                expected=f"one of {', '.join(self.splits)}",
            )
        base = self.resplit[split].source if split in self.resplit else split
        examples: Iterable[Example] = self._read(base)
        if any(rule.source == base for rule in self.resplit.values()):
            examples = divide(list(examples), base, self.resplit)[split]
        count, labels = 0, set()
        for example in examples:
            count += 1
            labels.update(_labels(example))
            yield example
        if not count:
            raise DataError(f"the split {split} is empty", path=self._origin, todo="Raise the fraction in `resplit`")
        if count != self.counts.get(split, count):
            raise DataError(
                f"{count} examples in {split}",
                path=self.resolve(self.files[base][0].path),
                expected=f"{self.counts[split]}, as the card {self.name} says",
                todo="Get the files that the card describes, or correct its counts",
            )
        self._check_labels(labels, base)

    def splits_here(self) -> list[str]:
        """The splits whose files are on this machine."""
        here = {split for split, refs in self.files.items() if all(self.resolve(ref.path).exists() for ref in refs)}
        return [
            split for split in self.splits if (self.resplit[split].source if split in self.resplit else split) in here
        ]

    def is_here(self) -> bool:
        """Whether the files of all splits are on this machine."""
        return len(self.splits_here()) == len(self.splits)

    def resolve(self, path: str) -> Path:
        """Where a path of this card lies on this machine."""
        if path.startswith(_FROM_PACKAGE):
            return _PACKAGE / path.removeprefix(_FROM_PACKAGE)
        if path.startswith("./"):
            return self._origin.parent / path
        return data_folder() / path

    def fingerprint(self, split: str, *, content: bool = False) -> str:
        """A hash of what a split depends on: the card, and its files by name and `file_state`."""
        base = self.resplit[split].source if split in self.resplit else split
        state = [self.model_dump_json(exclude={"quirks", "citation", "title", "waive"}), split]
        for ref in self.files[base]:
            path = self.resolve(ref.path)
            options = _options(self.encoding, self.options, ref)
            inner = options.get("options")
            values = [*options.values(), *(inner.values() if isinstance(inner, dict) else ())]
            beside = [path.parent / value for value in values if isinstance(value, str)]
            for file in (path, *beside):
                if file.is_file():
                    state.append(f"{file.name} {file_state(file, content=content)}")
        return hashlib.sha256("\n".join(state).encode()).hexdigest()[:16]

    def _read(self, split: str) -> Iterator[Example]:
        reader = READERS[self.reader]
        if self.hub is not None and not any(self.resolve(ref.path).exists() for ref in self.files[split]):
            yield from self._from_hub(self.hub, split)
            return
        for ref in self.files[split]:
            path = self.resolve(ref.path)
            if not path.exists():
                raise DataError(
                    f"the file of {self.name} ({split}) is not here",
                    path=path,
                    expected=f"the data set in the folder that {DATA_VARIABLE} names (now {data_folder()})",
                    todo=f"Get it from {self.home} and set {DATA_VARIABLE}",
                )
            options = reader.options(_options(self.encoding, self.options, ref), where=self._origin)
            yield from reader.read(path, options)

    def _from_hub(self, hub: HubRef, split: str) -> list[Example]:
        _log.info("%s (%s): not in %s, taken from the hub as %s", self.name, split, data_folder(), hub.id)
        family = "pairs" if self.kind == "pair" else self.family
        return load_hub(
            f"{hub.id}:{hub.config}" if hub.config else hub.id,
            hub.splits.get(split, split),
            family=family,
            columns=hub.columns,
            revision=hub.revision,
        )

    def _check_labels(self, labels: set[str], split: str) -> None:
        unknown = sorted(labels - self.labels.keys()) if self.labels else []
        if unknown:
            raise DataError(
                f"the labels {', '.join(map(repr, unknown[:5]))} are not in the card {self.name}",
                path=self.resolve(self.files[split][0].path),
                expected=f"one of its {len(self.labels)} labels",
                todo="Add them to `labels` with their names",
            )


def data_folder() -> Path:
    """The folder of the data sets: the environment variable TRUNKLINE_DATA, or ../shared/data."""
    return Path(os.environ.get(DATA_VARIABLE) or DEFAULT_DATA)


def list_cards() -> list[str]:
    """The names of the cards that come with the package, in alphabetical order."""
    return sorted(path.stem for path in _CARDS.glob("*.yaml"))


def load_card(name_or_path: str | Path) -> Card:
    """Loads a card by its name or from a YAML file.

    Raises:
        TrunklineError: No such card; names the nearest.
        DataError: A file that is missing or not YAML.
        RecipeError: A card with problems, all of them listed.
    """
    path = _card_path(name_or_path)
    return parse_card(_parse_yaml(path), path)


def _card_path(name_or_path: str | Path) -> Path:
    text = str(name_or_path)
    if isinstance(name_or_path, Path) or text.endswith((".yaml", ".yml")) or "/" in text or os.sep in text:
        path = Path(name_or_path)
        if not path.is_file():
            raise DataError("no such card file", path=path, expected="a YAML file that describes a data set")
    else:
        path = _CARDS / f"{text}.yaml"
        if not path.is_file():
            raise TrunklineError(
                f"no card {text!r}{nearest(text, list_cards())}",
                expected=f"one of {', '.join(list_cards())}, or the path of a .yaml file",
            )
    return path


def parse_card(raw: Mapping[str, Any], path: Path) -> Card:
    """Checks the content of a card file; raises a RecipeError with all problems at once."""
    try:
        raw = _filled_in(raw, path)
    except TrunklineError as error:
        raise RecipeError(path, [f"options.card: {error}"]) from None
    problems: list[str] = []
    card: Card | None = None
    try:
        card = Card.model_validate(dict(raw))
    except ValidationError as error:
        problems.extend(list_problems(error, Card))
    problems.extend(_reader_problems(raw, card, path))
    problems.extend(_split_problems(raw))
    if problems or card is None:
        raise RecipeError(path, problems)
    card._origin = path.resolve()
    return card


def _filled_in(raw: Mapping[str, Any], path: Path) -> Mapping[str, Any]:
    options = raw.get("options")
    name = options.get("card") if isinstance(options, dict) and raw.get("reader") == QUESTIONS else None
    if not isinstance(name, str):
        return raw
    base = _card_path(path.parent / name if name.endswith((".yaml", ".yml")) else name)
    content = _parse_yaml(base)
    if content.get("reader") == QUESTIONS:
        raise TrunklineError(f"{base.stem} is made of another card itself", expected="a card of labelled sentences")
    return over_card(raw, parse_card(content, base))


def divide(examples: list[Example], base: str, resplit: Mapping[str, Resplit]) -> dict[str, list[Example]]:
    """Takes the splits of `resplit` out of the examples of `base`, one after the other; the order is kept.

    Returns:
        The examples of each split that was taken out, and under `base` those that are left.
    """
    left = list(examples)
    total = len({_key(example) for example in examples})
    parts: dict[str, list[Example]] = {}
    for split, rule in resplit.items():
        if rule.source != base:
            continue
        ranked = sorted({_key(example) for example in left}, key=lambda key: _rank(key, rule.seed))
        taken = set(ranked[: round(rule.fraction * total)])
        parts[split] = [example for example in left if _key(example) in taken]
        left = [example for example in left if _key(example) not in taken]
    return {**parts, base: left}


def _key(example: Example) -> str:
    if isinstance(example, QaExample):  # the questions about a context stay together
        text = example.context
    else:
        text = example.left if isinstance(example, PairExample) else example.text
    return " ".join(text.lower().split())


def _rank(key: str, seed: int) -> bytes:
    return hashlib.sha256(f"{seed}\0{key}".encode("utf-8", "surrogatepass")).digest()


def _labels(example: Example) -> list[str]:
    if isinstance(example, NerExample):
        return [span.label for span in example.spans]
    return [example.label] if isinstance(example, TextExample) else []


def _options(encoding: str, options: Mapping[str, Any], ref: FileRef) -> dict[str, Any]:
    return {"encoding": encoding, **options, **({"member": ref.member} if ref.member else {}), **ref.options}


def _parse_yaml(path: Path) -> dict[str, Any]:
    try:
        raw = yaml.safe_load(path.read_text("utf-8"))
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        mark = getattr(error, "problem_mark", None)
        raise DataError(
            f"not YAML ({getattr(error, 'problem', None) or error})",
            path=path,
            line=mark.line + 1 if mark else None,
            expected="a card in YAML",
        ) from None
    if not isinstance(raw, dict):
        raise DataError(
            f"the card is a {type(raw).__name__}", path=path, expected="keys such as name, files and reader"
        )
    return raw


def _reader_problems(raw: Mapping[str, Any], card: Card | None, path: Path) -> list[str]:
    name = raw.get("reader")
    if not isinstance(name, str):
        return []
    if name not in READERS:
        return [f"reader: no reader {name!r}{nearest(name, READERS)} (known: {', '.join(READERS)})"]
    reader, problems = READERS[name], []
    kind = raw.get("kind")
    if kind in _FAMILY:
        if kind not in reader.kinds:
            problems.append(f"kind: the reader {name} gives {' or '.join(reader.kinds)}, not {kind}")
        if raw.get("family") in _FAMILY.values() and raw.get("family") != _FAMILY[kind]:
            problems.append(f"kind: {kind} does not belong to the family {raw.get('family')}")
        if kind in ("plain", "qa") and raw.get("hub") is not None:
            problems.append(f"hub: data of kind {kind} is not read from the hub, only from files")
    refs = [ref for group in card.files.values() for ref in group] if card else [FileRef(path="?")]
    options = raw.get("options", {})
    encoding = str(raw.get("encoding", "utf-8"))
    for ref in refs if isinstance(options, dict) else []:
        try:
            reader.options(_options(encoding, options, ref), where=path)
        except RecipeError as error:
            problems.extend(problem for problem in error.problems if problem not in problems)
    return problems


def _split_problems(raw: Mapping[str, Any]) -> list[str]:
    files, resplit, counts = (raw.get(key) or {} for key in ("files", "resplit", "counts"))
    if not all(isinstance(value, dict) for value in (files, resplit, counts)):
        return []
    problems = [f"counts: no split {split!r}" for split in counts if split not in files and split not in resplit]
    for split, rule in resplit.items():
        source = rule.get("from") if isinstance(rule, dict) else None
        if source is not None and source not in files:
            problems.append(f"resplit.{split}: no files for the split {source!r} from which it is taken")
        if split in files:
            problems.append(f"resplit.{split}: the split has files of its own")
    return problems
