"""A cell's result: what one task gave with one encoder, one way of adaptation, one label budget and one seed."""

from __future__ import annotations

import base64
import json
import zlib
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

Counts = Sequence[Sequence[int]]
MAX_COUNTS_BYTES = 2**26


@dataclass(frozen=True)
class Result:
    """One finished or failed cell.

    Attributes:
        key: Hash of everything that determines the result.
        task: The card's name.
        family: `ner` or `classification`.
        measure: The family's main score, a key of `dev` and `test`.
        encoder: The name of the pre-finetuned encoder in the suite, such as `none` or `task-primary`.
        method: `head`, `lora`, `full`, or the name of a peer.
        budget: The label budget in words, such as `16 a class`, `10 %`, `all`.
        seed: Draws the few examples and whatever the method draws.
        n_train: Training examples used.
        dev: Scores on dev, each in [0, 1].
        test: Scores on test, each in [0, 1].
        counts: For each test example the counts whose sum gives the main score (`Family.counts`), in test order.
        seconds: Wall time of the cell, without what it shares with other cells.
        n_bytes: Bytes that this task adds to what is deployed; 0 where unknown.
        ms_per_text: Milliseconds to predict a test text; 0 where not measured.
        info: Hashes and versions: backbone, card, settings, versions.
        error: Why it failed; empty where it did not, and scores and counts are empty where it did.
    """

    key: str
    task: str
    family: str
    measure: str
    encoder: str
    method: str
    budget: str
    seed: int
    n_train: int = 0
    dev: Mapping[str, float] = field(default_factory=dict)
    test: Mapping[str, float] = field(default_factory=dict)
    counts: Counts = ()
    seconds: float = 0.0
    n_bytes: int = 0
    ms_per_text: float = 0.0
    info: Mapping[str, Any] = field(default_factory=dict)
    error: str = ""

    def to_json(self) -> dict[str, Any]:
        """Plain data; the counts are packed, because there is a row for each test example."""
        return {**asdict(self), "counts": pack_counts(self.counts)}

    @classmethod
    def from_json(cls, raw: Mapping[str, Any]) -> Result:
        """What `to_json` gave; a ValueError where a key is missing or unknown, or the counts are damaged."""
        try:
            return cls(**{**raw, "counts": unpack_counts(raw["counts"])})
        except (KeyError, TypeError, zlib.error) as error:
            raise ValueError(f"not the result of a cell: {error}") from error


def pack_counts(counts: Counts) -> str:
    """Rows of whole numbers as compressed text."""
    return base64.b85encode(zlib.compress(json.dumps([list(row) for row in counts]).encode(), 9)).decode()


def unpack_counts(packed: str) -> list[list[int]]:
    """What `pack_counts` was given."""
    inflater = zlib.decompressobj()
    raw = inflater.decompress(base64.b85decode(packed), MAX_COUNTS_BYTES)
    if not inflater.eof:
        raise ValueError("the counts of a cell are cut off or too large")
    return [[int(value) for value in row] for row in json.loads(raw)]
