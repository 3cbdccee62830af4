"""Texts as the graphs read them: tokens in windows, units, and rows of similar length. No torch."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from trunkline.bundle.lora import FloatArray
from trunkline.bundle.manifest import EncoderFacts
from trunkline.errors import DataError, MismatchError
from trunkline.tasks.base import Words
from trunkline.text.tokens import IntArray, TextTokenizer, Tokens, UnitText, unit_borders
from trunkline.text.words import split_words

BUDGET = 1024
"""Most tokens of a batch, padding counted; one row may have more. Bounds the memory that a long text takes."""

SLACK = 8
"""The longest row of a batch is longer than the shortest by at most an eighth, and two tokens."""


@dataclass(frozen=True, slots=True)
class ReadText:
    """A text with the character offsets of its words, and its tokens."""

    text: str
    words: Words
    tokens: Tokens

    def borders(self, units: str) -> Words:
        """Character offsets of what gets a label: words, or pieces of the tokenizer."""
        return unit_borders(self.text, self.tokens, "pieces") if units == "pieces" else self.words


_LONE_SURROGATE = re.compile("[\ud800-\udfff]")


def readable(texts: Iterable[str]) -> list[str]:
    """The texts with the replacement character for halves of surrogate pairs, which no tokenizer takes.

    Offsets stay what they are: a half is one character, too.
    """
    return [_LONE_SURROGATE.sub("\ufffd", text) for text in texts]


class _OneThread:
    """A `tokenizers.Tokenizer` that stays on the caller's thread.

    Its batches go to a pool of threads, even those of one text; where the cores are busy, waking one up and waiting for
    it takes longer than tokenising.
    """

    def __init__(self, tokenizer: Any) -> None:
        self._tokenizer = tokenizer

    def encode_batch(self, texts: Sequence[str], add_special_tokens: bool = True) -> list[Any]:
        return [self._tokenizer.encode(text, add_special_tokens=add_special_tokens) for text in texts]

    def __getattr__(self, name: str) -> Any:
        return getattr(self._tokenizer, name)


class TextReader:
    """Splits texts into words and tokens; `tokenizer` has the windows of the bundle and was read from `path`."""

    def __init__(self, tokenizer: TextTokenizer, path: Path) -> None:
        self.tokenizer = tokenizer
        self.path = path

    @classmethod
    def open(cls, path: Path, encoder: EncoderFacts, threads: int = 1) -> TextReader:
        """Loads a bundle's `tokenizer.json`; with more than one thread it takes as many as its own pool has.

        Raises:
            DataError: The file cannot be read.
            MismatchError: It has tokens that the encoder does not have.
        """
        from tokenizers import Tokenizer

        with _refusals(path):
            tokenizer = Tokenizer.from_file(str(path))
            own = tokenizer if threads > 1 else _OneThread(tokenizer)
            reader = cls(TextTokenizer(own, encoder.max_length, encoder.overlap), path)
        size = tokenizer.get_vocab_size(with_added_tokens=True)
        if size > encoder.vocabulary_size:
            raise MismatchError(
                f"{path} has {size} tokens",
                expected=f"at most {encoder.vocabulary_size}, the encoder's vocabulary",
                todo="Export or fetch the bundle again",
            )
        return reader

    def read(self, texts: Sequence[str]) -> list[ReadText]:
        """Reads texts; halves of surrogate pairs, which no tokenizer takes, count as U+FFFD."""
        with _refusals(self.path):
            encoded = self.tokenizer.encode(readable(texts))
        rows = zip(texts, encoded, strict=True)
        return [ReadText(text, split_words(text), tokens) for text, tokens in rows]


@contextmanager
def _refusals(path: Path) -> Iterator[None]:
    """Turns whatever the tokenizer raises into a DataError."""
    try:
        yield
    # The library raises bare exceptions, and its panics, for which there is no name to import, are not even those.
    except BaseException as error:
        if not isinstance(error, Exception) and type(error).__name__ != "PanicException":
            raise
        raise DataError(
            f"no usable tokenizer ({' '.join(str(error).split())[:200]})",
            path=path,
            expected="the tokenizer.json of the bundle",
            todo="Export or fetch the bundle again",
        ) from error


class Pooling:
    """Which shares of which tokens make up the units of a text, window by window.

    What a unit is made of may lie in several windows: each gives its part, and the parts add up. Units that are made of
    the same single token are computed once, so that a text of a million symbols that the tokenizer drops, all of which
    stand for the opening token, costs no more than another.

    Attributes:
        n_rows: Rows to compute for the text.
        rows: For each window the rows that it has a part in.
        row_of: [units] the row of each unit; None where these are the same.
    """

    __slots__ = ("_places", "n_rows", "row_of", "rows")

    def __init__(self, units: UnitText) -> None:
        token, unit = units.token, units.unit
        self.n_rows = units.n_units
        self.row_of: IntArray | None = None
        share = (1 / np.maximum(np.bincount(unit, minlength=units.n_units), 1)).astype(np.float32)
        if units.n_units > units.size:
            token, unit, share = self._merge_singles(token, unit, share)
        if len(units.sizes) == 1:
            self.rows: list[IntArray] = [np.arange(self.n_rows)]
            self._places = [(unit, token, share[unit])]
            return
        ends = np.cumsum(units.sizes)
        window = np.searchsorted(ends, token, side="right")
        order = np.argsort(window, kind="stable")
        cuts = np.searchsorted(window[order], np.arange(1, len(ends)))
        self.rows, self._places = [], []
        for pairs, begin in zip(np.split(order, cuts), ends - units.sizes, strict=True):
            rows, place = np.unique(unit[pairs], return_inverse=True)
            self.rows.append(rows)
            self._places.append((place, token[pairs] - begin, share[unit[pairs]]))

    def _merge_singles(
        self, token: IntArray, unit: IntArray, share: FloatArray
    ) -> tuple[IntArray, IntArray, FloatArray]:
        """One row for all units of the same single token."""
        single = share[unit] == 1
        _, first, which = np.unique(token[single], return_index=True, return_inverse=True)
        owner = np.arange(self.n_rows)
        owner[unit[single]] = unit[single][first][which]
        kept, row_of = np.unique(owner, return_inverse=True)
        self.n_rows, self.row_of = len(kept), row_of
        pairs = np.concatenate((np.flatnonzero(~single), np.flatnonzero(single)[first]))
        return token[pairs], row_of[unit[pairs]], share[kept]

    def fill(self, pool: FloatArray, window: int) -> None:
        """Writes the shares of a window's tokens into zeros, [at least its rows, at least its tokens]."""
        place, token, share = self._places[window]
        pool[place, token] = share


@dataclass(frozen=True, slots=True)
class Row:
    """A window of a text: the text's number, the window's, and its token ids."""

    text: int
    window: int
    ids: IntArray


def rows_of(text: int, units: UnitText) -> list[Row]:
    """The windows of a text."""
    if len(units.sizes) == 1:
        return [Row(text, 0, units.ids)]
    parts = np.split(units.ids, np.cumsum(units.sizes)[:-1])
    return [Row(text, window, ids) for window, ids in enumerate(parts)]


def batches(rows: Sequence[Row], budget: int = BUDGET) -> Iterator[list[Row]]:
    """Rows of similar length together, so that little is computed for padding."""
    batch: list[Row] = []
    for row in sorted(rows, key=lambda row: len(row.ids)):
        length = len(row.ids)
        if batch and (
            (len(batch) + 1) * length > budget or length > len(batch[0].ids) + len(batch[0].ids) // SLACK + 2
        ):
            yield batch
            batch = []
        batch.append(row)
    if batch:
        yield batch


def padded(rows: Sequence[Row], pad_id: int) -> tuple[IntArray, FloatArray]:
    """`ids` and `mask` [rows, width] of a batch."""
    width = max(len(row.ids) for row in rows)
    ids = np.full((len(rows), width), pad_id, dtype=np.int64)
    mask = np.zeros((len(rows), width), np.float32)
    for number, row in enumerate(rows):
        ids[number, : len(row.ids)] = row.ids
        mask[number, : len(row.ids)] = 1
    return ids, mask


def pool_of(rows: Sequence[tuple[Pooling, int]], width: int) -> FloatArray:
    """`pool` [rows, units, width] of a batch, from the pooling and the window of each row."""
    most = max(len(pooling.rows[window]) for pooling, window in rows)
    pool = np.zeros((len(rows), most, width), np.float32)
    for number, (pooling, window) in enumerate(rows):
        pooling.fill(pool[number], window)
    return pool
