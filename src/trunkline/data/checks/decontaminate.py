"""Removing from pre-finetuning data what touches a dev or test set."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from typing import Any

from trunkline.data.checks.overlap import Match, OverlapIndex, batch_texts
from trunkline.data.checks.report import example_texts, shorten, whole_text
from trunkline.text.examples import Example

MIN_WORDS = 3
"""Texts with fewer words are not taken for leaks: every corpus of dialogue has `yes please`."""

_TOP = 20
_SAMPLES = 5
_SENTENCE = re.compile(r"(?<=[.!?])\s+|\n+")


@dataclass(frozen=True)
class Removal:
    """What decontamination removed, and how often by kind of match and by owner, such as `wnut17@test`.

    Kinds are those of `Match`, and `contained`: one of the text's sentences is a held-out text. `samples` have kind,
    owner, similarity, the text and the held-out text.
    """

    examined: int
    removed: int
    by_kind: dict[str, int]
    by_owner: dict[str, int]
    samples: list[dict[str, Any]]

    def as_dict(self) -> dict[str, Any]:
        """Plain data, ready for JSON."""
        return asdict(self)


def decontaminate(
    examples: Iterable[Example], index: OverlapIndex, *, min_exact_words: int = MIN_WORDS
) -> tuple[list[int], Removal]:
    """Finds the examples that touch no text of the index.

    An example is removed if one of its texts (either side of a pair) is in the index exactly, normalised or nearly, or
    if one sentence of a text of several is, exactly or normalised and with at least `index.min_words` words. Only a
    batch of the examples is in memory at a time.

    Args:
        examples: Any number, of any kind.
        index: Of the held-out texts.
        min_exact_words: Texts with fewer words are kept.

    Returns:
        The positions of the examples to keep, in order, and what was removed.
    """
    kept: list[int] = []
    kinds: Counter[str] = Counter()
    owners: Counter[str] = Counter()
    samples: list[dict[str, Any]] = []
    examined = 0
    for batch in batch_texts(examples, whole_text):
        for position, hit in enumerate(_match(batch, index, min_exact_words), start=examined):
            if hit is None:
                kept.append(position)
                continue
            kind, text, match = hit
            if kinds[kind] < _SAMPLES:
                sample = {"kind": kind, "owner": match.owner, "similarity": match.similarity}
                samples.append({**sample, "text": shorten(text), "held_out": shorten(match.text)})
            kinds[kind] += 1
            owners[match.owner] += 1
        examined += len(batch)
    report = Removal(examined, examined - len(kept), dict(kinds.most_common()), dict(owners.most_common(_TOP)), samples)
    return kept, report


def _match(batch: list[Example], index: OverlapIndex, min_exact_words: int) -> list[tuple[str, str, Match] | None]:
    hits: list[tuple[str, str, Match] | None] = [None] * len(batch)
    texts = [(place, text) for place, example in enumerate(batch) for text in example_texts(example)]
    matches = index.find([text for _, text in texts], min_exact_words=min_exact_words)
    for (place, text), match in zip(texts, matches, strict=True):
        if match is not None and hits[place] is None:
            hits[place] = match.kind, text, match
    rest = [(place, text, _SENTENCE.split(text)) for place, text in texts if hits[place] is None]
    parts = [(place, text, part) for place, text, found in rest if len(found) > 1 for part in found]
    words = max(min_exact_words, index.min_words)
    matches = index.find([part for *_, part in parts], min_exact_words=words, near=False)
    for (place, text, _), match in zip(parts, matches, strict=True):
        if match is not None and hits[place] is None:
            hits[place] = "contained", text, match
    return hits
