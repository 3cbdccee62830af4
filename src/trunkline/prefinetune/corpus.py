"""Corpora: the examples of a source in a memory-mapped file, and their tokens in another, both made once."""

from __future__ import annotations

import hashlib
from bisect import bisect_left, bisect_right
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from itertools import chain
from pathlib import Path
from typing import Any, TypeVar, overload

from trunkline.cache import cache_folder
from trunkline.errors import TrunklineError
from trunkline.prefinetune.store import Rows, code_fingerprint, in_chunks, open_rows, store_rows
from trunkline.text.examples import Example, NerExample, PairExample, PlainExample, QaExample, Span, TextExample
from trunkline.text.packing import UnitText
from trunkline.text.tokens import IntArray, TextTokenizer

T = TypeVar("T")
UnitTexts = Callable[[Sequence[Any], TextTokenizer], list[UnitText]]
"""Tokenises examples: for each its texts, as many for every one of them."""

_COLUMNS: dict[type[Example], dict[str, str]] = {
    NerExample: {"text": "text", "words": "ints", "spans": "ints"},
    TextExample: {"text": "text", "label": "int"},
    PairExample: {"left": "text", "right": "text", "group": "text"},
    PlainExample: {"text": "text"},
    QaExample: {"question": "text", "context": "text", "answers": "ints"},
}
_KINDS = {kind.__name__: kind for kind in _COLUMNS}
_UNITS = {"ids": "ints", "sizes": "ints", "token": "ints", "unit": "ints", "n_units": "int", "marks": "ints"}
_AT_ONCE = 1000


class Corpus(Sequence[Example]):
    """The examples of one kind, read from a mapped file when they are asked for."""

    def __init__(self, rows: Rows) -> None:
        self._rows = rows
        self._kind = _KINDS[rows.info["kind"]]
        self.labels: tuple[str, ...] = tuple(rows.info["labels"])
        self.sha256: str = rows.info["sha256"]

    def __len__(self) -> int:
        return len(self._rows)

    @overload
    def __getitem__(self, index: int) -> Example: ...
    @overload
    def __getitem__(self, index: slice) -> list[Example]: ...
    def __getitem__(self, index: int | slice) -> Example | list[Example]:
        if isinstance(index, slice):
            return [self[i] for i in range(*index.indices(len(self)))]
        row = _in_range(index, len(self))
        values = self._rows[row]
        if self._kind is NerExample:
            words, spans = values[1].tolist(), values[2].tolist()
            return NerExample(
                values[0],
                tuple(zip(words[0::2], words[1::2], strict=True)),
                tuple(
                    Span(start, end, self.labels[label])
                    for start, end, label in zip(spans[0::3], spans[1::3], spans[2::3], strict=True)
                ),
            )
        if self._kind is TextExample:
            return TextExample(values[0], self.labels[values[1]])
        if self._kind is QaExample:
            answers = values[2].tolist()
            return QaExample(values[0], values[1], tuple(zip(answers[0::2], answers[1::2], strict=True)))
        return PairExample(*values) if self._kind is PairExample else PlainExample(*values)


class Subset(Sequence[T]):
    """Some items of a sequence, by their indices."""

    def __init__(self, items: Sequence[T], indices: Sequence[int] | IntArray) -> None:
        self._items, self._indices = items, indices

    def __len__(self) -> int:
        return len(self._indices)

    @overload
    def __getitem__(self, index: int) -> T: ...
    @overload
    def __getitem__(self, index: slice) -> Sequence[T]: ...
    def __getitem__(self, index: int | slice) -> T | Sequence[T]:
        if isinstance(index, slice):
            return Subset(self._items, self._indices[index])
        return self._items[int(self._indices[index])]


class TokenCache(Sequence[list[UnitText]]):
    """The tokenised texts of each example of a corpus."""

    def __init__(self, rows: Rows) -> None:
        self._rows = rows
        self._texts: int = rows.info["texts"]

    def __len__(self) -> int:
        return len(self._rows) // self._texts

    @overload
    def __getitem__(self, index: int) -> list[UnitText]: ...
    @overload
    def __getitem__(self, index: slice) -> list[list[UnitText]]: ...
    def __getitem__(self, index: int | slice) -> list[UnitText] | list[list[UnitText]]:
        if isinstance(index, slice):
            return [self[i] for i in range(*index.indices(len(self)))]
        first = _in_range(index, len(self)) * self._texts
        return [self._unit_text(row) for row in range(first, first + self._texts)]

    def _unit_text(self, row: int) -> UnitText:
        ids, sizes, token, unit, n_units, marks = self._rows[row]
        return UnitText(ids, tuple(sizes.tolist()), token, unit, n_units, marks.reshape(-1, 2))


def corpus_of(key: str, examples: Callable[[], Iterable[Example]]) -> Corpus:
    """The corpus stored under a key, made of the examples if it is not there.

    Args:
        key: What the examples depend on, such as a card's fingerprint.
        examples: Called if they are to be read; all of one kind.

    Raises:
        TrunklineError: No examples, examples of several kinds, or a cache that cannot be written; whatever reading
            raises. Nothing is stored then.
    """
    name = hashlib.sha256(f"{code_fingerprint()} {key}".encode()).hexdigest()[:32]
    folder = cache_folder() / "corpora" / name
    rows = open_rows(folder)
    return Corpus(rows if rows is not None else _store(folder, iter(examples()), key))


def tokens_of(corpus: Corpus, tokenizer: TextTokenizer, family: str, unit_texts: UnitTexts) -> TokenCache:
    """The tokens of a corpus, kept under the hashes of its content and of the tokenizer.

    Args:
        corpus: Its examples belong to the family.
        tokenizer: With the length of its windows.
        family: What the units are depends on it.
        unit_texts: The family's tokenisation.
    """
    key = hashlib.sha256(f"{code_fingerprint()} {corpus.sha256} {tokenizer.fingerprint} {family}".encode()).hexdigest()[
        :32
    ]
    folder = cache_folder() / "tokens" / key
    rows = open_rows(folder)
    if rows is None:
        texts = len(unit_texts(corpus[:1], tokenizer))
        rows = store_rows(folder, _UNITS, _unit_rows(corpus, tokenizer, unit_texts), lambda: {"texts": texts})
    return TokenCache(rows)


def _store(folder: Path, examples: Iterator[Example], key: str) -> Rows:
    first = next(examples, None)
    if first is None:
        raise TrunklineError(f"{key} has no examples", expected="at least one")
    labels: dict[str, int] = {}

    def rows() -> Iterator[Sequence[Any]]:
        for example in chain((first,), examples):
            if type(example) is not type(first):
                raise TrunklineError(
                    f"{key} yields {type(example).__name__} after {type(first).__name__}", expected="one kind"
                )
            yield _values(example, labels)

    kind = type(first)
    return store_rows(folder, _COLUMNS[kind], rows(), lambda: {"kind": kind.__name__, "labels": list(labels)})


def _values(example: Example, labels: dict[str, int]) -> Sequence[Any]:
    if isinstance(example, NerExample):
        words = [position for word in example.words for position in word]
        spans = [
            number
            for span in example.spans
            for number in (span.start, span.end, labels.setdefault(span.label, len(labels)))
        ]
        return example.text, words, spans
    if isinstance(example, TextExample):
        return example.text, labels.setdefault(example.label, len(labels))
    if isinstance(example, PairExample):
        return example.left, example.right, example.group
    if isinstance(example, QaExample):
        return example.question, example.context, [place for answer in example.answers for place in answer]
    return (example.text,)


def _unit_rows(corpus: Corpus, tokenizer: TextTokenizer, unit_texts: UnitTexts) -> Iterator[Sequence[Any]]:
    numbers = {label: number for number, label in enumerate(corpus.labels)}
    for chunk in in_chunks(corpus, _AT_ONCE):
        texts = unit_texts(chunk, tokenizer)
        for position, text in enumerate(texts):
            example = chunk[position * len(chunk) // len(texts)]
            marks = marks_of(example, numbers) if isinstance(example, NerExample) else []
            flat = [number for mark in marks for number in mark]
            yield text.ids, text.sizes, text.token, text.unit, text.n_units, flat


def marks_of(example: NerExample, numbers: Mapping[str, int]) -> list[tuple[int, int]]:
    """(word, number of the label) for every word that overlaps a span; labels without a number are left out."""
    starts, ends = [start for start, _ in example.words], [end for _, end in example.words]
    return [
        (word, numbers[span.label])
        for span in example.spans
        if span.label in numbers
        for word in range(bisect_right(ends, span.start), bisect_left(starts, span.end))
    ]


def _in_range(index: int, length: int) -> int:
    if not -length <= index < length:
        raise IndexError(index)
    return index % length
