"""Text to tokens: the tokenizer of an encoder's folder, and windows for texts longer than the encoder takes."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from trunkline.errors import EncoderError

IntArray = npt.NDArray[np.int64]


@dataclass(frozen=True, slots=True)
class Window:
    """A stretch of a text's tokens with the special tokens around it.

    `ids` has the special tokens; `first` is the text token behind the opening one. The window answers for the text
    tokens `own[0]` to `own[1]` (exclusive): where windows overlap, each token belongs to the one with more context.
    """

    ids: IntArray
    first: int
    own: tuple[int, int]


@dataclass(frozen=True, slots=True)
class Tokens:
    """A tokenised text: character offsets [tokens, 2] of its tokens and the windows that cover them."""

    offsets: IntArray
    windows: tuple[Window, ...]


class TextTokenizer:
    """A fast tokenizer with its window length.

    Args:
        tokenizer: A `tokenizers.Tokenizer`; truncation and padding are switched off.
        max_length: Longest window in tokens, the two special tokens included.
        overlap: Tokens that neighbouring windows share.
    """

    def __init__(self, tokenizer: Any, max_length: int, overlap: int = 32) -> None:
        tokenizer.no_truncation()
        tokenizer.no_padding()
        special = tokenizer.encode("").ids
        if len(special) != 2:
            raise EncoderError(
                f"the tokenizer adds {len(special)} special tokens to an empty text",
                expected="an opening and a closing one",
            )
        self.tokenizer = tokenizer
        self.opening, self.closing = special
        self.max_length = max_length
        self.overlap = min(overlap, (max_length - 2) // 2)

    @classmethod
    def from_folder(cls, folder: Path, max_length: int) -> TextTokenizer:
        """Loads `tokenizer.json`, or converts what the folder has instead (vocab.txt, merges.txt).

        Raises:
            EncoderError: There is no tokenizer in the folder, or it cannot be read.
        """
        from tokenizers import Tokenizer

        file = folder / "tokenizer.json"
        try:
            if file.is_file():
                return cls(Tokenizer.from_file(str(file)), max_length)
            from transformers import AutoTokenizer

            slow = AutoTokenizer.from_pretrained(str(folder), use_fast=True, local_files_only=True)
            return cls(slow.backend_tokenizer, max_length)
        except EncoderError:
            raise
        except Exception as error:
            raise EncoderError(
                f"{folder}: no usable tokenizer ({error})", expected="tokenizer.json, or a vocabulary with its config"
            ) from error

    @property
    def fingerprint(self) -> str:
        """A hash of all that tokens and windows depend on."""
        content = f"{self.tokenizer.to_str()} {self.max_length} {self.overlap}"
        return hashlib.sha256(content.encode()).hexdigest()

    def save(self, folder: Path) -> None:
        """Writes `tokenizer.json` into a folder."""
        self.tokenizer.save(str(folder / "tokenizer.json"))

    def encode(self, texts: Sequence[str]) -> list[Tokens]:
        """Tokenises texts; nothing is cut off."""
        encodings = self.tokenizer.encode_batch(list(texts), add_special_tokens=False)
        return [self._windows(encoding) for encoding in encodings]

    def _windows(self, encoding: Any) -> Tokens:
        ids = np.asarray(encoding.ids, dtype=np.int64)
        offsets = np.asarray(encoding.offsets, dtype=np.int64).reshape(-1, 2)
        room = self.max_length - 2
        stride = room - self.overlap
        starts = list(range(0, max(len(ids) - self.overlap, 1), stride)) if len(ids) > room else [0]
        windows = []
        for number, start in enumerate(starts):
            end = min(start + room, len(ids))
            lower = 0 if number == 0 else start + self.overlap // 2
            upper = len(ids) if number == len(starts) - 1 else start + stride + self.overlap // 2
            framed = np.concatenate(([self.opening], ids[start:end], [self.closing]))
            windows.append(Window(framed, start, (lower, upper)))
        return Tokens(offsets, tuple(windows))
