"""Packing: token sequences of several texts share rows, so that next to nothing is computed for padding.

A *unit* is what gets a feature vector and a label: a word for NER, a text for classification.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from trunkline.data.tokenize import IntArray, Tokens

ROW_WIDTH = 128
"""Default width of a packed row: short enough that attention, quadratic in the width, stays cheap."""


@dataclass(frozen=True, slots=True)
class UnitText:
    """A tokenised text and its units.

    Attributes:
        tokens: The text's tokens and windows.
        window: [pairs] window of a token that belongs to a unit.
        column: [pairs] its column in that window, special tokens counted.
        unit: [pairs] the unit, from 0.
        n_units: Number of units of the text.
    """

    tokens: Tokens
    window: IntArray
    column: IntArray
    unit: IntArray
    n_units: int

    @property
    def size(self) -> int:
        """Tokens of all windows, special tokens counted."""
        return sum(len(window.ids) for window in self.tokens.windows)


@dataclass(frozen=True, slots=True)
class Packed:
    """Rows of tokens as arrays; see `trunkline.model.batch.TokenBatch` for the shapes."""

    input_ids: IntArray
    positions: IntArray
    segments: IntArray
    unit_tokens: IntArray
    unit_ids: IntArray
    n_units: int


def word_units(tokens: Tokens, words: Sequence[tuple[int, int]]) -> UnitText:
    """The words of a text as units: a token belongs to every word that it overlaps.

    A word that the tokenizer drops (a control character, say) gets the opening token, so that every unit has one.
    """
    spans = np.asarray(words, dtype=np.int64).reshape(-1, 2)
    starts, ends = tokens.offsets[:, 0], tokens.offsets[:, 1]
    first = np.searchsorted(spans[:, 1], starts, side="right")
    last = np.searchsorted(spans[:, 0], ends, side="left")
    counts = np.maximum(last - first, 0)
    token = np.repeat(np.arange(len(starts)), counts)
    within = np.arange(len(token)) - np.repeat(np.cumsum(counts) - counts, counts)
    unit = np.repeat(first, counts) + within
    window, column = _locate(tokens, token)
    dropped = np.setdiff1d(np.arange(len(spans)), unit)
    zeros = np.zeros(len(dropped), dtype=np.int64)
    return UnitText(
        tokens,
        np.concatenate((window, zeros)),
        np.concatenate((column, zeros)),
        np.concatenate((unit, dropped)),
        len(spans),
    )


def text_unit(tokens: Tokens) -> UnitText:
    """A whole text as one unit: all its tokens, the special ones included (mean pooling as in SBERT)."""
    window, column = [], []
    for number, part in enumerate(tokens.windows):
        inner = len(part.ids) - 2
        lower, upper = max(part.own[0] - part.first, 0), min(part.own[1] - part.first, inner)
        columns = np.concatenate(([0], np.arange(lower, upper) + 1, [inner + 1]))
        window.append(np.full(len(columns), number))
        column.append(columns)
    columns = np.concatenate(column)
    return UnitText(tokens, np.concatenate(window), columns, np.zeros(len(columns), dtype=np.int64), 1)


def _locate(tokens: Tokens, token: IntArray) -> tuple[IntArray, IntArray]:
    uppers = np.asarray([window.own[1] for window in tokens.windows], dtype=np.int64)
    firsts = np.asarray([window.first for window in tokens.windows], dtype=np.int64)
    window = np.minimum(np.searchsorted(uppers, token, side="right"), len(uppers) - 1)
    return window, token - firsts[window] + 1


def pack(texts: Sequence[UnitText], pad_id: int, width: int = ROW_WIDTH) -> Packed:
    """Packs texts into rows, longest first, each into the first row with room.

    Args:
        texts: The texts with their units.
        pad_id: Token id of padding.
        width: Width of a row; longer windows widen all rows. 0 gives every window a row of its own.

    Returns:
        The rows; units are numbered over all texts in their order.
    """
    sizes = [
        (len(window.ids), text, number)
        for text, t in enumerate(texts)
        for number, window in enumerate(t.tokens.windows)
    ]
    longest = max((size for size, _, _ in sizes), default=0)
    room = longest if width == 0 else max(longest, min(width, sum(size for size, _, _ in sizes)))
    rows = _first_fit(sizes, room, share=width > 0)
    shape = (len(rows), room)
    ids = np.full(shape, pad_id, dtype=np.int64)
    positions = np.zeros(shape, dtype=np.int64)
    segments = np.full(shape, -1, dtype=np.int64)
    place: dict[tuple[int, int], int] = {}
    for row, members in enumerate(rows):
        column = 0
        for size, text, number in members:
            ids[row, column : column + size] = texts[text].tokens.windows[number].ids
            positions[row, column : column + size] = np.arange(size)
            segments[row, column : column + size] = len(place)
            place[text, number] = row * room + column
            column += size
    return _with_units(texts, place, ids, positions, segments)


def _with_units(
    texts: Sequence[UnitText],
    place: dict[tuple[int, int], int],
    ids: IntArray,
    positions: IntArray,
    segments: IntArray,
) -> Packed:
    tokens, units, offset = [], [], 0
    for number, text in enumerate(texts):
        starts = np.asarray([place[number, window] for window in range(len(text.tokens.windows))], dtype=np.int64)
        tokens.append(starts[text.window] + text.column)
        units.append(text.unit + offset)
        offset += text.n_units
    empty = np.zeros(0, dtype=np.int64)
    return Packed(
        ids,
        positions,
        segments,
        np.concatenate([*tokens, empty]),
        np.concatenate([*units, empty]),
        offset,
    )


def _first_fit(sizes: Sequence[tuple[int, int, int]], room: int, *, share: bool) -> list[list[tuple[int, int, int]]]:
    rows: list[list[tuple[int, int, int]]] = []
    if not share:
        return [[member] for member in sizes]
    left: list[int] = []
    for member in sorted(sizes, key=lambda item: (-item[0], item[1], item[2])):
        row = next((index for index, free in enumerate(left) if free >= member[0]), len(rows))
        if row == len(rows):
            rows.append([])
            left.append(room)
        rows[row].append(member)
        left[row] -= member[0]
    return rows


def by_budget(texts: Sequence[UnitText], budget: int) -> Iterator[list[int]]:
    """Indices of the texts in batches of at most `budget` tokens (at least one text), similar lengths together."""
    batch: list[int] = []
    size = 0
    for index in sorted(range(len(texts)), key=lambda i: (texts[i].size, i)):
        if batch and size + texts[index].size > budget:
            yield batch
            batch, size = [], 0
        batch.append(index)
        size += texts[index].size
    if batch:
        yield batch
