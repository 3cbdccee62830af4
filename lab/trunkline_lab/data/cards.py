"""Cards: YAML files that describe a data set, where its files are and how they are read."""

from __future__ import annotations

import hashlib
import os
import posixpath
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any, Literal

import yaml
from pydantic import BaseModel, ConfigDict, Field, PrivateAttr, ValidationError, field_validator

from trunkline import samples
from trunkline.config import list_problems
from trunkline.errors import DataError, RecipeError, TrunklineError, nearest
from trunkline.text.examples import Example, NerExample, TextExample
from trunkline_lab.data.archives import unpacked
from trunkline_lab.data.derived import QUESTIONS, over_card
from trunkline_lab.data.readers import READERS, Kind
from trunkline_lab.data.resplit import Resplit, divide

DATA_VARIABLE = "TRUNKLINE_DATA"

_PACKAGE = samples.FOLDER.parent
CARDS = Path(__file__).resolve().parent / "cards"
"""The folder of the cards that come with the lab."""

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


class PublishedFile(_Frozen):
    """A file that the published numbers came from."""

    bytes: int = Field(ge=0)
    sha256: str = Field(pattern=r"^[0-9a-f]{64}$")


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
    waive: dict[str, str] = Field(default={}, description="Finding of a check -> why it is accepted.")
    published: dict[str, PublishedFile] = Field(default={}, description="Files by their paths in the data folder.")
    _origin: Path = PrivateAttr(default=CARDS)

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
            labels.update(labels_of(example))
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
        here = {split for split, refs in self.files.items() if all(self._exists(ref) for ref in refs)}
        return [
            split for split in self.splits if (self.resplit[split].source if split in self.resplit else split) in here
        ]

    def is_here(self) -> bool:
        """Whether the files of all splits are on this machine."""
        return len(self.splits_here()) == len(self.splits)

    def resolve(self, path: str) -> Path:
        """Where a path of this card lies on this machine; raises a TrunklineError if no data folder is named."""
        if path.startswith(_FROM_PACKAGE):
            return _PACKAGE / path.removeprefix(_FROM_PACKAGE)
        if path.startswith("./"):
            return self._origin.parent / path
        return Path(path) if Path(path).is_absolute() else data_folder() / path

    def fingerprint(self, split: str, *, content: bool = False) -> str:
        """A hash of what a split depends on: the card, and its files by name and size and time, or by content."""
        base = self.resplit[split].source if split in self.resplit else split
        state = [self.model_dump_json(exclude={"quirks", "citation", "title", "waive", "published"}), split]
        for ref in self.files[base]:
            for file in map(self.resolve, self.paths(ref)):
                if file.is_file():
                    state.append(f"{file.name} {_file_state(file, content=content)}")
        return hashlib.sha256("\n".join(state).encode()).hexdigest()[:16]

    def paths(self, ref: FileRef) -> list[str]:
        """The path of a file and what may be paths of files beside it, which are named from its folder."""
        options = _options(self.encoding, self.options, ref)
        inner = options.get("options")
        values = [*options.values(), *(inner.values() if isinstance(inner, dict) else ())]
        folder = posixpath.dirname(ref.path)
        # Normal paths, so that a file has one name in all cards; but `./` at the start has a meaning.
        start = "./" if ref.path.startswith("./") else ""
        beside = [value for value in values if isinstance(value, str) and "\0" not in value]
        return [ref.path, *(start + posixpath.normpath(posixpath.join(folder, value)) for value in beside)]

    def locate(self, path: str) -> Path | None:
        """As `resolve`, but None for a path in the data folder if none is named."""
        return self.resolve(path) if has_data_folder() or path.startswith((_FROM_PACKAGE, "./", "/")) else None

    def _exists(self, ref: FileRef) -> bool:
        file = self.locate(ref.path)
        return file is not None and file.exists()

    def _read(self, split: str) -> Iterator[Example]:
        reader = READERS[self.reader]
        for ref in self.files[split]:
            path = self.resolve(ref.path)
            if not path.exists():
                raise DataError(
                    f"the file of {self.name} ({split}) is not here",
                    path=path,
                    expected=f"the data set in the folder that {DATA_VARIABLE} names",
                    todo=f"`trunkline-lab data where {self.name}` says where to get it",
                )
            options = reader.options(_options(self.encoding, self.options, ref), where=self._origin)
            yield from reader.read(unpacked(path, ref.member) if ref.member else path, options)

    def _check_labels(self, labels: set[str], split: str) -> None:
        unknown = sorted(labels - self.labels.keys()) if self.labels else []
        if unknown:
            raise DataError(
                f"the labels {', '.join(map(repr, unknown[:5]))} are not in the card {self.name}",
                path=self.resolve(self.files[split][0].path),
                expected=f"one of its {len(self.labels)} labels",
                todo="Add them to `labels` with their names",
            )


def has_data_folder() -> bool:
    """Whether the environment names a folder of data sets."""
    return bool(os.environ.get(DATA_VARIABLE))


def data_folder() -> Path:
    """The folder of the data sets, which TRUNKLINE_DATA names; a TrunklineError if it is not set."""
    folder = os.environ.get(DATA_VARIABLE)
    if not folder:
        raise TrunklineError(
            f"{DATA_VARIABLE} is not set",
            expected="the folder of the public data sets in this environment variable",
            todo="`trunkline-lab data where` says which files belong there, and where to get them",
        )
    return Path(folder)


def list_cards() -> list[str]:
    """The names of the cards that come with the package, in alphabetical order."""
    return sorted(path.stem for path in CARDS.glob("*.yaml"))


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
        path = CARDS / f"{text}.yaml"
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


def labels_of(example: Example) -> list[str]:
    """The label of a text, or those of a sentence's entities."""
    if isinstance(example, NerExample):
        return [span.label for span in example.spans]
    return [example.label] if isinstance(example, TextExample) else []


def _options(encoding: str, options: Mapping[str, Any], ref: FileRef) -> dict[str, Any]:
    return {"encoding": encoding, **options, **ref.options}


def _file_state(path: Path, *, content: bool) -> str:
    if not content:
        return f"{path.stat().st_size} {path.stat().st_mtime_ns}"
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


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
