"""Corpora: the examples of a source with their tokens in a memory-mapped Arrow file, made once and kept in the cache.

An entry of the cache is a folder under a hash of all that its content depends on: the source's state, the tokenizer,
`FORMAT`. It appears when it is complete, so several runs may make the same one at once; it may be deleted at any time.
"""

from __future__ import annotations

import hashlib
import json
import tempfile
from collections.abc import Callable, Iterable, Sequence
from dataclasses import astuple, fields
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np

from trunkline.cache import CACHE_VARIABLE, cache_folder
from trunkline.errors import TrunklineError
from trunkline.prefinetune.objectives import Objective
from trunkline.text.examples import Example, Span
from trunkline.text.tokens import IntArray, TextTokenizer, UnitText

FORMAT = 2
"""Goes up with every change of what is stored, or of how text becomes units."""

_INFO, _ROWS = "info.json", "rows.arrow"
_AT_ONCE = 1000


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

    `labels` are those of the entities; `sha256` is of all examples, whatever the tokenizer.
    """

    def __init__(self, folder: Path, kind: type[Example]) -> None:
        import pyarrow as pa

        info = json.loads((folder / _INFO).read_text("utf-8"))
        table = pa.ipc.open_stream(pa.memory_map(str(folder / _ROWS))).read_all()
        self._examples, self._units = table.column("example"), table.column("units")
        self.kind = kind
        self.labels: list[str] = info["labels"]
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
        return [_unpack(text.values.to_numpy()) for text in self._units[row].values]


def corpus_of(
    state: str,
    examples: Callable[[], Iterable[Example]],
    objective: type[Objective],
    tokenizer: TextTokenizer | None = None,
) -> Corpus:
    """The corpus in the cache, made of the examples, all of the objective's kind, if it is not there.

    `state` is what the examples depend on, such as the size and time of a file. With a tokenizer they are stored with
    their units. Raises TrunklineError for no examples, or of another kind, and as `cached` does.
    """
    key = f"corpus {state} {objective.__name__} {tokenizer.fingerprint if tokenizer else ''}"
    return Corpus(cached(key, lambda folder: _write(folder, examples(), objective, tokenizer)), objective.kind)


def cached(key: str, make: Callable[[Path], None]) -> Path:
    """The folder of an entry of the cache, made before if it is not there.

    `key` is all that the content depends on, but `FORMAT`. `make` writes the entry's files into an empty folder. Raises
    TrunklineError if the cache cannot be written.
    """
    folder = cache_folder() / "prefinetune" / hashlib.sha256(f"{FORMAT} {key}".encode()).hexdigest()[:32]
    try:
        if folder.is_dir():
            return folder
        folder.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=folder.parent, prefix=".") as scratch:
            made = Path(scratch) / "made"
            made.mkdir()
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
    return folder


def _write(
    folder: Path, examples: Iterable[Example], objective: type[Objective], tokenizer: TextTokenizer | None
) -> None:
    import pyarrow as pa

    rest, digest, labels = iter(examples), hashlib.sha256(), set[str]()
    schema = pa.schema({"example": pa.string(), "units": pa.list_(pa.list_(pa.int32()))})
    with pa.ipc.new_stream(str(folder / _ROWS), schema) as writer:
        while chunk := list(islice(rest, _AT_ONCE)):
            if others := [example for example in chunk if not isinstance(example, objective.kind)]:
                raise TrunklineError(f"it yields {type(others[0]).__name__}", expected=objective.kind.__name__)
            rows = [json.dumps([getattr(e, part.name) for part in fields(e)], default=astuple) for e in chunk]
            digest.update("".join(f"{row}\n" for row in rows).encode())
            labels |= {span.label for example in chunk for span in getattr(example, "spans", ())}
            texts = [_pack(text) for text in objective.unit_texts(chunk, tokenizer)] if tokenizer else []
            each = len(texts) // len(chunk)
            units = [texts[number * each : (number + 1) * each] for number in range(len(chunk))]
            writer.write_batch(pa.record_batch([pa.array(rows), pa.array(units, schema.field("units").type)], schema))
    if digest.digest() == hashlib.sha256().digest():
        raise TrunklineError("there are no examples", expected="at least one")
    info = {"labels": sorted(labels), "sha256": digest.hexdigest(), "units": tokenizer is not None}
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
