"""Packing: token sequences of several texts share rows, so that next to nothing is computed for padding.

A *unit* is what gets a feature vector and a label: a word for NER, a text for classification.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Literal, get_args

import numpy as np

from trunkline.errors import TrunklineError
from trunkline.text.tokens import IntArray, Tokens
from trunkline.text.words import EXTENDING, char_classes, split_words

UnitKind = Literal["words", "pieces"]
"""What gets a label in a text: its words, or these cut where a piece of the tokenizer begins or ends."""

ROW_WIDTH = 128
"""Default greatest width of a packed row: short enough that attention, quadratic in the width, stays cheap."""


@dataclass(frozen=True, slots=True)
class UnitText:
    """A tokenised text and its units.

    Attributes:
        ids: [tokens] token ids of all windows, one window after the other, special tokens counted.
        sizes: Tokens of each window.
        token: [pairs] index into `ids` of a token that belongs to a unit.
        unit: [pairs] the unit, from 0.
        n_units: Number of units of the text.
        marks: [marks, 2] unit and label of what is labelled in a stored corpus, labels by their number there.
    """

    ids: IntArray
    sizes: tuple[int, ...]
    token: IntArray
    unit: IntArray
    n_units: int
    marks: IntArray | None = None

    @property
    def size(self) -> int:
        """Tokens of all windows, special tokens counted."""
        return len(self.ids)


@dataclass(frozen=True, slots=True)
class Packed:
    """Rows of tokens as arrays; see `trunkline.encoder.encoder.TokenBatch` for the shapes."""

    input_ids: IntArray
    positions: IntArray
    segments: IntArray
    unit_tokens: IntArray
    unit_ids: IntArray
    n_units: int


def unit_borders(text: str, tokens: Tokens, kind: UnitKind = "words") -> tuple[tuple[int, int], ...]:
    """Character offsets of the units of a text, in order and without overlap.

    Pieces are the words, cut wherever a piece of the tokenizer begins or ends inside of one, but never before a mark.
    So they hold every entity that words hold, and those inside words besides: of `Hausboot` in the pieces `Haus` and
    `##boot`, both.

    Raises:
        TrunklineError: An unknown kind.
    """
    words = split_words(text)
    if kind == "words":
        return words
    if kind != "pieces":
        raise TrunklineError(f"units {kind!r}", expected="one of " + ", ".join(get_args(UnitKind)))
    if not words:
        return words
    starts, ends = np.asarray(words, dtype=np.int64).T
    cuts = np.unique(tokens.offsets)
    word = np.searchsorted(starts, cuts, side="right") - 1
    cuts = cuts[(word >= 0) & (starts[word] < cuts) & (cuts < ends[word])]
    kinds = np.frombuffer(char_classes(text), np.uint8)
    cuts = cuts[~np.isin(kinds[cuts], np.frombuffer(EXTENDING, np.uint8))]
    borders = (np.sort(np.concatenate((side, cuts))).tolist() for side in (starts, ends))
    return tuple(zip(*borders, strict=True))


def word_units(tokens: Tokens, words: Sequence[tuple[int, int]]) -> UnitText:
    """The words of a text, or its pieces, as units: a token belongs to every unit that it overlaps.

    A unit that the tokenizer drops (a lone mark, say) gets the opening token, so that every unit has one.
    """
    spans = np.asarray(words, dtype=np.int64).reshape(-1, 2)
    starts, ends = tokens.offsets[:, 0], tokens.offsets[:, 1]
    first = np.searchsorted(spans[:, 1], starts, side="right")
    last = np.searchsorted(spans[:, 0], ends, side="left")
    counts = np.maximum(last - first, 0)
    token = np.repeat(np.arange(len(starts)), counts)
    within = np.arange(len(token)) - np.repeat(np.cumsum(counts) - counts, counts)
    unit = np.repeat(first, counts) + within
    dropped = np.setdiff1d(np.arange(len(spans)), unit)
    return _unit_text(
        tokens,
        np.concatenate((_locate(tokens, token), np.zeros(len(dropped), dtype=np.int64))),
        np.concatenate((unit, dropped)),
        len(spans),
    )


def text_unit(tokens: Tokens) -> UnitText:
    """A whole text as one unit: all its tokens, the special ones included (mean pooling as in SBERT)."""
    chosen, begin = [], 0
    for part in tokens.windows:
        inner = len(part.ids) - 2
        lower, upper = max(part.own[0] - part.first, 0), min(part.own[1] - part.first, inner)
        chosen.append(begin + np.concatenate(([0], np.arange(lower, upper) + 1, [inner + 1])))
        begin += len(part.ids)
    token = np.concatenate(chosen)
    return _unit_text(tokens, token, np.zeros(len(token), dtype=np.int64), 1)


def _unit_text(tokens: Tokens, token: IntArray, unit: IntArray, n_units: int) -> UnitText:
    windows = [window.ids for window in tokens.windows]
    ids = windows[0] if len(windows) == 1 else np.concatenate(windows)
    return UnitText(ids, tuple(len(window) for window in windows), token, unit, n_units)


def _locate(tokens: Tokens, token: IntArray) -> IntArray:
    """Where in all windows' ids the text's tokens stand, each in the window that answers for it."""
    if len(tokens.windows) == 1:
        return token + 1
    uppers = np.asarray([window.own[1] for window in tokens.windows], dtype=np.int64)
    firsts = np.asarray([window.first for window in tokens.windows], dtype=np.int64)
    sizes = np.asarray([len(window.ids) for window in tokens.windows], dtype=np.int64)
    window = np.minimum(np.searchsorted(uppers, token, side="right"), len(uppers) - 1)
    return (np.cumsum(sizes) - sizes)[window] + token - firsts[window] + 1


def pack(texts: Sequence[UnitText], pad_id: int, width: int = ROW_WIDTH) -> Packed:
    """Packs texts into rows, longest first, each into the first row with room.

    Args:
        texts: The texts with their units.
        pad_id: Token id of padding.
        width: Greatest width of a row; longer windows widen it. 0 gives every window a row of its own.

    Returns:
        The rows; units are numbered over all texts in their order.
    """
    sizes = np.asarray([size for text in texts for size in text.sizes], dtype=np.int64)
    longest = int(sizes.max(initial=0))
    rows, room, starts = _narrowest(sizes.tolist(), max(width, longest)) if width else _one_each(len(sizes), longest)
    begins = np.cumsum(sizes) - sizes
    positions = np.arange(int(sizes.sum())) - np.repeat(begins, sizes)
    place = np.repeat(np.asarray(starts, dtype=np.int64), sizes) + positions

    def grid(values: IntArray, empty: int) -> IntArray:
        flat = np.full(rows * room, empty, dtype=np.int64)
        flat[place] = values
        return flat.reshape(rows, room)

    units = np.asarray([text.n_units for text in texts], dtype=np.int64)
    return Packed(
        grid(_joined([text.ids for text in texts]), pad_id),
        grid(positions, 0),
        grid(np.repeat(np.arange(len(sizes)), sizes), -1),
        place[_shifted([text.token for text in texts], [text.size for text in texts])],
        _shifted([text.unit for text in texts], units.tolist()),
        int(units.sum()),
    )


def _joined(parts: Sequence[IntArray]) -> IntArray:
    return np.concatenate(parts) if parts else np.zeros(0, dtype=np.int64)


def _shifted(parts: Sequence[IntArray], sizes: Sequence[int]) -> IntArray:
    """Index arrays of consecutive blocks of these sizes as one index array over all blocks."""
    begins = np.cumsum([0, *sizes[:-1]]) if sizes else np.zeros(0, dtype=np.int64)
    return _joined(parts) + np.repeat(begins, [len(part) for part in parts])


def _one_each(count: int, room: int) -> tuple[int, int, list[int]]:
    return count, room, [number * room for number in range(count)]


def _narrowest(sizes: Sequence[int], widest: int) -> tuple[int, int, list[int]]:
    """Rows, their width, and for each window where in the flattened rows it starts.

    Of the widths up to `widest`, in steps of 8, the one with the least padding is taken: long windows that are equal
    leave a third of wide rows empty, and a batch a little over full rows would leave one nearly empty.
    """
    total, longest = sum(sizes), max(sizes, default=0)
    widths = sorted(
        {min(widest, total), *range(min(-(-longest // 8) * 8, widest), min(widest, total), 8)}, reverse=True
    )
    ideal = {width: -(-total // max(width, 1)) * width for width in widths}
    best: tuple[int, int, list[int]] = 0, 0, []
    area = -1
    for width in sorted(widths, key=lambda width: ideal[width]):
        if 0 <= area <= ideal[width]:
            break
        rows, starts = _first_fit(sizes, width)
        if area < 0 or rows * width < area:
            best, area = (rows, width, starts), rows * width
    return best


def _first_fit(sizes: Sequence[int], room: int) -> tuple[int, list[int]]:
    """The number of rows, and where each window starts, if each goes into the first row with room, longest first."""
    left: list[int] = []
    starts = [0] * len(sizes)
    for number in sorted(range(len(sizes)), key=lambda i: -sizes[i]):
        size = sizes[number]
        for row, free in enumerate(left):  # noqa: B007 (a loop is faster here than a generator)
            if free >= size:
                break
        else:
            row = len(left)
            left.append(room)
        starts[number] = row * room + room - left[row]
        left[row] -= size
    return len(left), starts


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
