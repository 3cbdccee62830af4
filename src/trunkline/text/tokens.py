"""Text to tokens: the tokenizer of an encoder's folder, and windows for texts longer than the encoder takes."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from trunkline.errors import EncoderError

IntArray = npt.NDArray[np.int64]

_FILES = ("tokenizer.json", "vocab.txt", "vocab.json", "*.model")
"""What a tokenizer can be made of."""

_BERT = (
    ("do_lower_case", "lowercase"),
    ("strip_accents", "strip_accents"),
    ("tokenize_chinese_chars", "handle_chinese_chars"),
)
"""Settings of tokenizer_config.json by which transformers rebuilds the normalizer of BERT, and their names in that."""


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
            EncoderError: There is no tokenizer in the folder, or it cannot be read, or two of its files disagree.
        """
        from tokenizers import Tokenizer

        file = folder / "tokenizer.json"
        # Without any of these, transformers makes a tokenizer that knows no word.
        if not any(any(folder.glob(name)) for name in _FILES):
            raise EncoderError(
                f"{folder}: no usable tokenizer (there is none of {', '.join(_FILES)})",
                expected="tokenizer.json, or a vocabulary with its config",
                todo="Fetch the files of the tokenizer from where the encoder is from",
            )
        try:
            if file.is_file():
                tokenizer = Tokenizer.from_file(str(file))
                _check_config(folder, tokenizer.normalizer)
                return cls(tokenizer, max_length)
            from transformers import AutoTokenizer

            slow = AutoTokenizer.from_pretrained(str(folder), use_fast=True, local_files_only=True)
            return cls(slow.backend_tokenizer, max_length)
        except EncoderError:
            raise
        except ModuleNotFoundError as error:
            raise EncoderError(
                f"{folder} has no tokenizer.json, and the library that converts its vocabulary is missing ({error})",
                todo="Install it with: pip install 'trunkline[train]'",
            ) from error
        except Exception as error:
            raise EncoderError(
                f"{folder}: no usable tokenizer ({error})", expected="tokenizer.json, or a vocabulary with its config"
            ) from error

    @property
    def unknown(self) -> int | None:
        """The id that stands for what the vocabulary lacks; None where it can spell everything, as with bytes."""
        names = (getattr(self.tokenizer.model, "unk_token", None), "[UNK]", "<unk>")
        found = (self.tokenizer.token_to_id(name) for name in names if name)
        return next((number for number in found if number is not None), None)

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


def _check_config(folder: Path, normalizer: Any) -> None:
    """Raises EncoderError where tokenizer_config.json has transformers tokenise otherwise than tokenizer.json says."""
    file = folder / "tokenizer_config.json"
    if type(normalizer).__name__ != "BertNormalizer" or not file.is_file():
        return
    config = json.loads(file.read_text(encoding="utf-8"))
    if config.get("tokenizer_class") in ("PreTrainedTokenizerFast", "TokenizersBackend"):
        return  # These read tokenizer.json alone.
    for key, name in _BERT:
        if key in config and config[key] != getattr(normalizer, name):
            raise EncoderError(
                f"{folder}: tokenizer_config.json has {key} {json.dumps(config[key])}, and tokenizer.json "
                f"{name} {json.dumps(getattr(normalizer, name))}",
                expected="two files that agree, as it is open which of them the encoder was trained with",
                todo=f"Set {key} in tokenizer_config.json to what is right, and {name} in tokenizer.json",
            )


def unknown_share(tokens: Sequence[Tokens], unknown: int | None) -> float:
    """The share of the texts' tokens that are unknown to the encoder; 0 of no tokens.

    Args:
        tokens: Tokenised texts.
        unknown: The id that stands for what the vocabulary lacks, `TextTokenizer.unknown`.
    """
    total = sum(len(text.offsets) for text in tokens)
    # A window answers for tokens own[0] to own[1] of the text; its ids begin with the opening one, before `first`.
    missing = 0
    for window in (window for text in tokens for window in text.windows):
        begin, end = (1 + place - window.first for place in window.own)
        missing += int(np.count_nonzero(window.ids[begin:end] == unknown))
    return missing / total if total and unknown is not None else 0.0
