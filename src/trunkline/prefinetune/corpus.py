"""Corpora: the examples of a source with their tokens in a memory-mapped Arrow file, made once and kept in the cache.

An entry of the cache is a folder under a hash of all that its content depends on: the source's state, the tokenizer,
`FORMAT`. It appears when it is complete, so several runs may make the same one at once. Above a limit the entries that
were not used for longest go, but none that this process has opened.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import suppress
from dataclasses import astuple, fields
from itertools import chain, islice
from pathlib import Path
from typing import Any, TypeVar

import numpy as np

from trunkline.cache import CACHE_VARIABLE, cache_folder
from trunkline.errors import TrunklineError
from trunkline.prefinetune.objectives import PrefinetuneFamily
from trunkline.prefinetune.objectives.ner import marks_of
from trunkline.text.examples import Example, NerExample, PairExample, PlainExample, QaExample, Span
from trunkline.text.tokens import IntArray, TextTokenizer, UnitText

T = TypeVar("T")

FORMAT = 1
"""Goes up with every change of what is stored, or of how text becomes units."""

LIMIT_VARIABLE = "TRUNKLINE_CACHE_GB"
LIMIT_GB = 4.0

_INFO, _ROWS = "info.json", "rows.arrow"
_KINDS = {kind.__name__: kind for kind in (NerExample, PairExample, PlainExample, QaExample)}
_AT_ONCE = 1000
_ABANDONED_S = 24 * 3600.0
_opened: set[Path] = set()


class View(Sequence[Any]):
    """Some items of what is read one by one, by their indices."""

    def __init__(self, get: Callable[[int], Any], indices: Sequence[int] | IntArray) -> None:
        self._get, self._indices = get, indices

    def __len__(self) -> int:
        return len(self._indices)

    def __getitem__(self, index: Any) -> Any:
        return self._get(int(self._indices[index]))


class Corpus:
    """The examples of one `kind`, read from a mapped file when they are asked for; `has_units` if they are tokenised.

    `labels` are the entity labels by their number in marks; `sha256` is of all examples, whatever the tokenizer.
    """

    def __init__(self, folder: Path) -> None:
        from datasets import Dataset

        info = json.loads((folder / _INFO).read_text("utf-8"))
        # Rows are taken off the table itself, which costs a tenth of asking the data set for them.
        table = Dataset.from_file(str(folder / _ROWS)).data.table
        self._examples, self._units = table.column("example"), table.column("units")
        self.kind: type[Example] = _KINDS[info["kind"]]
        self.labels: tuple[str, ...] = tuple(info["labels"])
        self.sha256: str = info["sha256"]
        self.has_units: bool = info["units"]

    def __len__(self) -> int:
        return len(self._examples)

    def example(self, row: int) -> Example:
        """One example."""
        values = _tuples(json.loads(self._examples[row].as_py()))
        found = dict(zip((part.name for part in fields(self.kind)), values, strict=True))
        if "spans" in found:
            found["spans"] = tuple(Span(*span) for span in found["spans"])
        return self.kind(**found)

    def units(self, row: int) -> list[UnitText]:
        """One example's tokenised texts; their arrays are views of the file and must not be written to."""
        return _unpack(self._units[row].values.to_numpy())


def corpus_of(
    state: str,
    examples: Callable[[], Iterable[Example]],
    family: PrefinetuneFamily | None = None,
    tokenizer: TextTokenizer | None = None,
) -> Corpus:
    """The corpus in the cache, made of the examples, all of one kind, if it is not there.

    `state` is what the examples depend on, such as the size and time of a file. With a tokenizer they are stored with
    the units of the family. Raises TrunklineError for no examples, or of several kinds, and as `cached` does.
    """
    tokens = f"{family.name} {tokenizer.fingerprint}" if family and tokenizer else ""
    key = f"corpus {state} {tokens}"
    return cached(key, lambda folder: _write(folder, iter(examples()), family, tokenizer), Corpus)


def cached(key: str, make: Callable[[Path], None], read: Callable[[Path], T]) -> T:
    """Reads an entry of the cache, made before if it is not there.

    `key` is all that the content depends on, but `FORMAT`. `make` writes the entry's files, `info.json` among them,
    into an empty folder; `read` reads them. Raises TrunklineError if the cache cannot be written.
    """
    folder = cache_folder() / "prefinetune" / hashlib.sha256(f"{FORMAT} {key}".encode()).hexdigest()[:32]
    try:
        found = read(folder)
    except (FileNotFoundError, NotADirectoryError):
        _make(folder, make)
        found = read(folder)
    _opened.add(folder)
    with suppress(OSError):
        os.utime(folder / _INFO)
    return found


def _make(folder: Path, make: Callable[[Path], None]) -> None:
    made = None
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        made = Path(tempfile.mkdtemp(dir=folder.parent, prefix="."))
        make(made)
        try:
            made.rename(folder)
        except OSError:
            if not folder.is_dir():  # else another run was faster, and what it made is the same
                raise
    except OSError as error:
        raise TrunklineError(
            f"{folder} cannot be written ({error.strerror or error})",
            expected="a folder for the cache with room for the corpus",
            todo=f"Set {CACHE_VARIABLE} to another folder, or make room",
        ) from error
    finally:
        if made is not None:
            shutil.rmtree(made, ignore_errors=True)
    _opened.add(folder)
    _evict(folder.parent)


def _evict(root: Path) -> None:
    """Removes the entries that were not used for longest until the rest fits, and what killed runs left half made."""
    left = float(os.environ.get(LIMIT_VARIABLE, LIMIT_GB)) * 2**30
    entries = []
    for folder in root.iterdir():
        with suppress(OSError):  # another run may remove it at this moment
            if not folder.name.startswith("."):
                size = sum(file.stat().st_size for file in folder.iterdir())
                entries.append(((folder / _INFO).stat().st_mtime, size, folder))
            elif folder.stat().st_mtime < time.time() - _ABANDONED_S:
                shutil.rmtree(folder, ignore_errors=True)
    for _, size, folder in sorted(entries, reverse=True):
        left -= size
        if left < 0 and folder not in _opened:
            shutil.rmtree(folder, ignore_errors=True)


def _write(
    folder: Path, examples: Iterator[Example], family: PrefinetuneFamily | None, tokenizer: TextTokenizer | None
) -> None:
    from datasets import Features, Value
    from datasets import Sequence as ListOf
    from datasets.arrow_writer import ArrowWriter

    first = next(examples, None)
    if first is None:
        raise TrunklineError("there are no examples", expected="at least one")
    rest, digest, labels = chain((first,), examples), hashlib.sha256(), dict[str, int]()
    features = Features({"example": Value("string"), "units": ListOf(Value("int32"))})
    with ArrowWriter(path=str(folder / _ROWS), features=features) as writer:
        while chunk := list(islice(rest, _AT_ONCE)):
            texts = family.unit_texts(chunk, tokenizer) if family and tokenizer else []
            each = len(texts) // len(chunk)
            for number, example in enumerate(chunk):
                if type(example) is not type(first):
                    kinds = f"{type(example).__name__} after {type(first).__name__}"
                    raise TrunklineError(f"a source yields {kinds}", expected="one kind")
                content = json.dumps([getattr(example, part.name) for part in fields(example)], default=astuple)
                digest.update(content.encode() + b"\n")
                units = _pack(texts[number * each : (number + 1) * each], example, labels)
                writer.write({"example": content, "units": units})
        writer.finalize()
    info = {"kind": type(first).__name__, "labels": list(labels), "sha256": digest.hexdigest()}
    (folder / _INFO).write_text(json.dumps({**info, "units": tokenizer is not None}), encoding="utf-8")


def _tuples(value: Any) -> Any:
    return tuple(map(_tuples, value)) if isinstance(value, list) else value


def _pack(texts: Sequence[UnitText], example: Example, labels: dict[str, int]) -> Any:
    """Texts as one row of numbers: for each its four counts, then sizes, ids, tokens and units of pairs, marks."""
    marks = np.zeros(0, dtype=np.int32)
    if isinstance(example, NerExample):
        for span in example.spans:
            labels.setdefault(span.label, len(labels))
        marks = np.asarray(marks_of(example, labels), dtype=np.int32).reshape(-1)
    parts: list[Any] = [np.zeros(0)]
    for text in texts:
        counts = len(text.sizes), len(text.token), text.n_units, len(marks)
        parts += [counts, text.sizes, text.ids, text.token, text.unit, marks]
    return np.concatenate(parts).astype(np.int32)


def _unpack(row: IntArray) -> list[UnitText]:
    texts, at = [], 0
    while at < len(row):
        windows, pairs, n_units, marks = row[at : at + 4].tolist()
        sizes = tuple(row[at + 4 : at + 4 + windows].tolist())
        bounds = np.cumsum([at + 4 + windows, sum(sizes), pairs, pairs, marks]).tolist()
        ids, token, unit, flat = (row[bounds[i] : bounds[i + 1]] for i in range(4))
        texts.append(UnitText(ids, sizes, token, unit, n_units, flat.reshape(-1, 2)))
        at = bounds[4]
    return texts
