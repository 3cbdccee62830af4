"""Texts as rows of token ids for transformers, and the model's outputs back as probabilities of words or texts."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from trunkline.tasks import FAMILIES
from trunkline.text.words import split_words
from trunkline_lab.benchmark.peers.common import plain_words

FloatArray = npt.NDArray[np.floating[Any]]
IGNORED = -100
OVERLAP = 32


@dataclass(frozen=True)
class Rows:
    """Rows of a part of a task.

    `inputs` are what a collator of transformers takes, with `labels`; short ones come first, so that little is padded
    where they are taken in order. `places` says for each example where each of its
    units is: (row, token); None for a word that the tokenizer drops. A text is a unit at token 0.
    """

    inputs: list[dict[str, Any]]
    places: list[list[tuple[int, int] | None]]


def make_rows(family: str, examples: Sequence[Any], labels: Sequence[str], tokenizer: Any) -> Rows:
    """Tokenises examples: a text is cut off at the tokenizer's length, a sentence is cut into overlapping windows."""
    if family == "classification":
        encoded = tokenizer([example.text for example in examples], truncation=True)
        targets = _targets(family, examples, labels)
        inputs = [_row(encoded, i) | {"labels": target[0]} for i, target in enumerate(targets)]
        return _by_length(inputs, [[(i, 0)] for i in range(len(inputs))])
    _blank_before_words(tokenizer)
    encoded = tokenizer(
        [plain_words(example) for example in examples],
        is_split_into_words=True,
        truncation=True,
        stride=min(OVERLAP, tokenizer.model_max_length // 4),
        return_overflowing_tokens=True,
    )
    places: list[list[tuple[int, int] | None]] = [[None] * len(split_words(e.text)) for e in examples]
    owners = encoded["overflow_to_sample_mapping"]
    margins: dict[tuple[int, int], int] = {}
    for row, owner in enumerate(owners):
        word_ids = encoded.word_ids(row)
        for token, word in enumerate(word_ids):
            # A window that begins inside of a word has its later pieces only, but a window before has the first.
            if word is None or word == word_ids[token - 1]:
                continue
            margin = min(token, len(word_ids) - token)
            if margin > margins.get((owner, word), 0) and (token > 1 or (owner, word) not in margins):
                margins[owner, word] = margin
                places[owner][word] = (row, token)
    inputs = [_row(encoded, row) for row in range(len(owners))]
    for each in inputs:
        each["labels"] = [IGNORED] * len(each["input_ids"])
    for spots, target in zip(places, _targets(family, examples, labels), strict=True):
        for spot, number in zip(spots, target, strict=True):
            if spot is not None:
                inputs[spot[0]]["labels"][spot[1]] = number
    return _by_length(inputs, places)


def unit_probabilities(logits: FloatArray, rows: Rows, labels: Sequence[str]) -> list[FloatArray]:
    """[units, labels] probabilities of each example; a dropped word is surely the first label, which is `O`.

    Args:
        logits: [rows, labels], or [rows, tokens, labels] for words.
        rows: What the logits are of.
        labels: The outputs.
    """
    from scipy.special import softmax

    deep = logits if logits.ndim == 3 else logits[:, None]
    dropped = np.eye(1, len(labels), dtype=np.float32)[0]
    return [
        np.asarray([dropped if spot is None else softmax(deep[spot].astype(np.float32)) for spot in spots]).reshape(
            -1, len(labels)
        )
        for spots in rows.places
    ]


def _by_length(inputs: list[dict[str, Any]], places: list[list[tuple[int, int] | None]]) -> Rows:
    order = sorted(range(len(inputs)), key=lambda row: len(inputs[row]["input_ids"]))
    moved = {row: number for number, row in enumerate(order)}
    return Rows(
        [inputs[row] for row in order], [[spot and (moved[spot[0]], spot[1]) for spot in spots] for spots in places]
    )


def _targets(family: str, examples: Sequence[Any], labels: Sequence[str]) -> list[list[int]]:
    targets = FAMILIES[family].unit_targets
    rows = [targets(example, tuple(labels), split_words(example.text)) for example in examples]
    return [[IGNORED if number < 0 else number for number in row] for row in rows]


def _row(encoded: Any, number: int) -> dict[str, Any]:
    return {
        name: encoded[name][number] for name in ("input_ids", "token_type_ids", "attention_mask") if name in encoded
    }


def _blank_before_words(tokenizer: Any) -> None:
    """Has a byte-level tokenizer see words as in running text, where a blank stands before each."""
    from tokenizers.pre_tokenizers import ByteLevel

    state = json.loads(tokenizer.backend_tokenizer.to_str()).get("pre_tokenizer") or {}
    if state.get("type") == "ByteLevel" and not state.get("add_prefix_space"):
        tokenizer.backend_tokenizer.pre_tokenizer = ByteLevel(
            add_prefix_space=True, use_regex=bool(state.get("use_regex", True))
        )
