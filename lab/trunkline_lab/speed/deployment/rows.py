"""The rows that all cases run: token ids of real sentences of the shipped sample, cut to one length."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

import numpy as np

from trunkline.atomic import write_atomic
from trunkline_lab.speed.deployment.cases import EIGHT, Options

ROWS = "rows.json"


def write_rows(options: Options) -> None:
    """Writes eight texts of exactly the options' length in tokens, with their ids."""
    from tokenizers import Tokenizer

    from trunkline_lab.data.cards import load_card

    tokenizer = Tokenizer.from_file(str(options.place("base") / "tokenizer.json"))
    tokenizer.no_padding()
    tokenizer.no_truncation()
    examples: Sequence[Any] = load_card("sample_events").load("test")
    words = [word for example in examples for word in example.text.split()]
    rows = []
    for _ in range(EIGHT):
        text = cut(tokenizer, words, options.length)
        words = words[len(text.split()) :]
        rows.append({"text": text, "ids": tokenizer.encode(text).ids})
    write_atomic(options.place(ROWS), json.dumps({"length": options.length, "rows": rows}))


def read_rows(options: Options, count: int = 1) -> tuple[Any, list[str]]:
    """Token ids [count, length] and the texts."""
    rows = json.loads(options.place(ROWS).read_text(encoding="utf-8"))["rows"][:count]
    return np.asarray([row["ids"] for row in rows], np.int64), [row["text"] for row in rows]


def cut(tokenizer: Any, words: Sequence[str], length: int) -> str:
    """The first words that are so many tokens with the special ones; filled up with a word of one token."""
    count = 1
    while len(tokenizer.encode(" ".join(words[: count + 1])).ids) <= length:
        count += 1
    chosen = list(words[:count])
    while len(tokenizer.encode(" ".join(chosen)).ids) < length:
        chosen.append("and")
    return " ".join(chosen)
