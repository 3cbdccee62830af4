"""Text to tokens, windows, units and packed rows.

A text longer than the encoder takes becomes several windows. A *unit* is what gets a feature vector and a label: a word
for NER, a text for classification. Token sequences of several texts share rows, so that next to nothing is computed for
padding.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from trunkline.errors import EncoderError, TrunklineError, needs
from trunkline.text.words import EXTENDING, char_classes, split_words

IntArray = npt.NDArray[np.int64]

_NONE, _ONE = np.zeros(0, dtype=np.int64), np.zeros(1, dtype=np.int64)

ROW_WIDTH = 128
"""Default greatest width of a packed row: short enough that attention, quadratic in the width, stays cheap."""

_LONE_SURROGATE = re.compile("[\ud800-\udfff]")

_FILES = ("tokenizer.json", "vocab.txt", "vocab.json", "*.model")
"""What a tokenizer can be made of; without any of these, transformers makes one that knows no word."""

_BERT = {
    "do_lower_case": "lowercase",
    "strip_accents": "strip_accents",
    "tokenize_chinese_chars": "handle_chinese_chars",
}
"""Settings of tokenizer_config.json by which transformers rebuilds the normalizer of BERT, and their names in that."""


@dataclass(frozen=True)
class Tokens:
    """A tokenised text.

    Attributes:
        text: As it was given.
        offsets: [tokens, 2] character offsets of its tokens.
        ids: Token ids of the windows that cover it, one window after the other, each with the special tokens around it.
        sizes: Tokens of each window, special tokens counted.
        place: [tokens] where in `ids` each token stands; where windows overlap, in the one with more context around it.
    """

    text: str
    offsets: IntArray
    ids: IntArray
    sizes: tuple[int, ...]
    place: IntArray

    @cached_property
    def words(self) -> tuple[tuple[int, int], ...]:
        """Character offsets of its words."""
        return split_words(self.text)

    def borders(self, units: str) -> tuple[tuple[int, int], ...]:
        """Character offsets of what gets a label, in order and without overlap; none for the `text` as a whole.

        The `pieces` are the words, cut wherever a piece of the tokenizer begins or ends inside of one, but never before
        a mark. So they hold every entity that words hold, and those inside words besides: of `Hausboot` in the pieces
        `Haus` and `##boot`, both. All other units are words.
        """
        if units != "pieces" or not self.words:
            return () if units == "text" else self.words
        starts, ends = np.asarray(self.words, dtype=np.int64).T
        cuts = np.unique(self.offsets)
        word = np.searchsorted(starts, cuts, side="right") - 1
        cuts = cuts[(word >= 0) & (starts[word] < cuts) & (cuts < ends[word])]
        kinds = np.frombuffer(char_classes(self.text), np.uint8)
        cuts = cuts[~np.isin(kinds[cuts], np.frombuffer(EXTENDING, np.uint8))]
        borders = (np.sort(np.concatenate((side, cuts))).tolist() for side in (starts, ends))
        return tuple(zip(*borders, strict=True))

    @property
    def windows(self) -> list[IntArray]:
        """The ids of each window."""
        return np.split(self.ids, np.cumsum(self.sizes)[:-1])


@dataclass(frozen=True, slots=True)
class UnitText:
    """A tokenised text and its units.

    Attributes:
        ids: [tokens] token ids of all windows, one window after the other, special tokens counted.
        sizes: Tokens of each window.
        token: [pairs] index into `ids` of a token that belongs to a unit.
        unit: [pairs] the unit, from 0.
        n_units: Number of units of the text.
    """

    ids: IntArray
    sizes: tuple[int, ...]
    token: IntArray
    unit: IntArray
    n_units: int

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


class TextTokenizer:
    """A fast tokenizer with its window length.

    Args:
        tokenizer: A `tokenizers.Tokenizer`; truncation and padding are switched off.
        max_length: Longest window in tokens, the two special tokens included.
        overlap: Tokens that neighbouring windows share.
        pool: Whether batches go to the tokenizer's own threads. Where the cores are busy, waking these up takes longer
            than tokenising a text.
    """

    def __init__(self, tokenizer: Any, max_length: int, overlap: int = 32, *, pool: bool = True) -> None:
        tokenizer.no_truncation()
        tokenizer.no_padding()
        special = tokenizer.encode("").ids
        if len(special) != 2:
            raise EncoderError(
                f"the tokenizer adds {len(special)} special tokens to an empty text",
                expected="an opening and a closing one",
            )
        self.tokenizer = tokenizer
        self._pool = pool
        self.opening, self.closing = special
        self.max_length = max_length
        self.overlap = min(overlap, (max_length - 2) // 2)

    @classmethod
    def from_file(cls, path: Path, max_length: int, overlap: int = 32, *, pool: bool = True) -> TextTokenizer:
        """Loads a `tokenizer.json`; arguments as above. Raises EncoderError if it cannot be read."""
        from tokenizers import Tokenizer

        with _refusals(path):
            return cls(Tokenizer.from_file(str(path)), max_length, overlap, pool=pool)

    @classmethod
    def from_folder(cls, folder: Path, max_length: int) -> TextTokenizer:
        """Loads `tokenizer.json`, or converts what the folder has instead (vocab.txt, merges.txt).

        Raises EncoderError if there is no tokenizer in the folder, or it cannot be read, or two of its files disagree.
        """
        with _refusals(folder):
            if not any(any(folder.glob(name)) for name in _FILES):
                raise FileNotFoundError(f"there is none of {', '.join(_FILES)}")
            if (folder / "tokenizer.json").is_file():
                found = cls.from_file(folder / "tokenizer.json", max_length)
                _check_config(folder, found.tokenizer.normalizer)
                return found
            with needs("train", f"{folder} has no tokenizer.json, and converting its vocabulary"):
                from transformers import AutoTokenizer
            made = AutoTokenizer.from_pretrained(str(folder), use_fast=True, local_files_only=True)
            return cls(made.backend_tokenizer, max_length)

    @property
    def fingerprint(self) -> str:
        """A hash of all that tokens and windows depend on."""
        return hashlib.sha256(f"{self.tokenizer.to_str()} {self.max_length} {self.overlap}".encode()).hexdigest()

    def encode(self, texts: Sequence[str]) -> list[Tokens]:
        """Tokenises texts; nothing is cut off. Halves of surrogate pairs count as U+FFFD, which is one character, too.

        Raises EncoderError if the tokenizer fails.
        """
        readable = [_LONE_SURROGATE.sub("\ufffd", text) for text in texts]
        with _refusals("a damaged file"):
            if self._pool:
                encodings = self.tokenizer.encode_batch(readable, add_special_tokens=False)
            else:
                encodings = [self.tokenizer.encode(text, add_special_tokens=False) for text in readable]
        found = []
        for text, encoding in zip(texts, encodings, strict=True):
            offsets = np.asarray(encoding.offsets, dtype=np.int64).reshape(-1, 2)
            ids, around = np.asarray(encoding.ids, dtype=np.int64), ([self.opening], [self.closing])
            found.append(cover(text, offsets, ids, around, self.max_length - 2, self.overlap))
        return found

    def unknown_share(self, tokens: Sequence[Tokens]) -> float:
        """The share of texts' tokens that the vocabulary lacks; 0 where it can spell everything, as with bytes."""
        names = (getattr(self.tokenizer.model, "unk_token", None), "[UNK]", "<unk>")
        unknown = [i for i in (self.tokenizer.token_to_id(name) for name in names if name) if i is not None][:1]
        own = np.isin(np.concatenate([_NONE, *(text.ids[text.place] for text in tokens)]), unknown)
        return float(own.mean()) if len(own) else 0.0


@contextmanager
def _refusals(where: str | Path) -> Iterator[None]:
    """Turns whatever the tokenizer raises into an EncoderError."""
    try:
        yield
    except TrunklineError:
        raise
    # The library raises bare exceptions, and its panics, for which there is no name to import, are not even those.
    except BaseException as error:
        if not isinstance(error, Exception) and type(error).__name__ != "PanicException":
            raise
        raise EncoderError(
            f"{where}: no usable tokenizer ({' '.join(str(error).split())[:200]})",
            expected="tokenizer.json, or a vocabulary with its config",
            todo="Export the bundle again, or fetch the files from where they are from",
        ) from error


def _check_config(folder: Path, normalizer: Any) -> None:
    """Raises EncoderError where tokenizer_config.json has transformers tokenise otherwise than tokenizer.json says."""
    file = folder / "tokenizer_config.json"
    if type(normalizer).__name__ != "BertNormalizer" or not file.is_file():
        return
    config = json.loads(file.read_text(encoding="utf-8"))
    if config.get("tokenizer_class") in ("PreTrainedTokenizerFast", "TokenizersBackend"):
        return  # These read tokenizer.json alone.
    for key, name in _BERT.items():
        if key in config and config[key] != getattr(normalizer, name):
            raise EncoderError(
                f"{folder}: tokenizer_config.json has {key} {json.dumps(config[key])}, and tokenizer.json "
                f"{name} {json.dumps(getattr(normalizer, name))}",
                expected="two files that agree, as it is open which of them the encoder was trained with",
                todo=f"Set {key} in tokenizer_config.json to what is right, and {name} in tokenizer.json",
            )


def cover(
    text: str, offsets: IntArray, ids: IntArray, around: tuple[Sequence[int], Sequence[int]], room: int, overlap: int
) -> Tokens:
    """Tokens of a text in windows of at most `room` of them, with those of `around` before and behind each.

    Where neighbours overlap, each answers for the half of the shared tokens that is nearer to its middle.
    """
    starts = np.arange(0, max(len(ids) - overlap, 1), room - overlap) if len(ids) > room else _ONE
    windows = [np.concatenate((around[0], ids[start : start + room], around[1])) for start in starts]
    sizes = np.asarray([len(window) for window in windows], dtype=np.int64)
    token = np.arange(len(ids))
    window = np.searchsorted(starts[1:] + overlap // 2, token, side="right")
    place = (np.cumsum(sizes) - sizes - starts)[window] + token + len(around[0])
    return Tokens(text, offsets, np.concatenate(windows).astype(np.int64), tuple(sizes.tolist()), place)


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
    places = np.concatenate((tokens.place[token], np.zeros(len(dropped), dtype=np.int64)))
    return UnitText(tokens.ids, tokens.sizes, places, np.concatenate((unit, dropped)), len(spans))


def text_unit(tokens: Tokens) -> UnitText:
    """A whole text as one unit: all its tokens, the special ones of each window included (mean pooling as in SBERT)."""
    ends = np.cumsum(tokens.sizes)
    token = np.sort(np.concatenate((ends - tokens.sizes, tokens.place, ends - 1)))
    return UnitText(tokens.ids, tokens.sizes, token, np.zeros(len(token), dtype=np.int64), 1)


def pack(texts: Sequence[UnitText], pad_id: int, width: int = ROW_WIDTH) -> Packed:
    """Packs texts into rows, longest first, each into the first row with room.

    Args:
        texts: The texts; units are numbered over all of them in their order.
        pad_id: Token id of padding.
        width: Greatest width of a row; longer windows widen it.
    """
    sizes = np.asarray([size for text in texts for size in text.sizes], dtype=np.int64)
    rows, room, starts = _narrowest(sizes.tolist(), max(width, int(sizes.max(initial=0))))
    positions = np.concatenate([_NONE, *map(np.arange, sizes)])
    place = np.repeat(np.asarray(starts, dtype=np.int64), sizes) + positions

    def grid(values: IntArray, empty: int) -> IntArray:
        flat = np.full(rows * room, empty, dtype=np.int64)
        flat[place] = values
        return flat.reshape(rows, room)

    units = [text.n_units for text in texts]
    return Packed(
        grid(np.concatenate([_NONE, *(text.ids for text in texts)]), pad_id),
        grid(positions, 0),
        grid(np.repeat(np.arange(len(sizes)), sizes), -1),
        place[_shifted([text.token for text in texts], [text.size for text in texts])],
        _shifted([text.unit for text in texts], units),
        sum(units),
    )


def _shifted(parts: Sequence[IntArray], sizes: Sequence[int]) -> IntArray:
    """Index arrays of consecutive blocks of these sizes as one index array over all blocks."""
    begins = np.cumsum([0, *sizes]).tolist()
    return np.concatenate([_NONE, *(part + begin for part, begin in zip(parts, begins, strict=False))])


def _narrowest(sizes: Sequence[int], widest: int) -> tuple[int, int, list[int]]:
    """Rows, their width, and for each window where in the flattened rows it starts.

    Of the widths up to `widest`, in steps of 8, the one with the least padding is taken: long windows that are equal
    leave a third of wide rows empty, and a batch a little over full rows would leave one nearly empty.
    """
    total, longest = sum(sizes), max(sizes, default=0)
    widths = {min(widest, total), *range(min(-(-longest // 8) * 8, widest), min(widest, total), 8)}
    ideal = {width: -(-total // max(width, 1)) * width for width in sorted(widths, reverse=True)}
    best: tuple[int, int, list[int]] = (0, 0, [])
    for width in sorted(ideal, key=lambda width: ideal[width]):
        if best[0] and best[0] * best[1] <= ideal[width]:
            break
        rows, starts = _first_fit(sizes, width)
        if not best[0] or rows * width < best[0] * best[1]:
            best = rows, width, starts
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
    for index in sorted(range(len(texts)), key=lambda i: texts[i].size):
        if batch and size + texts[index].size > budget:
            yield batch
            batch, size = [], 0
        batch.append(index)
        size += texts[index].size
    if batch:
        yield batch
