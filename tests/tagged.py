"""Entities as tags, the other way round than readers go."""

from __future__ import annotations

from collections.abc import Iterable

from trunkline.tasks.ner import unheld_spans, word_spans
from trunkline.text.examples import NerExample, Scheme, WordSpan, encode_bio


def spans_to_bio(example: NerExample) -> tuple[list[str], int]:
    """BIO tags for an example's own words, and the number of its spans that these do not hold."""
    return encode_bio(len(example.words), word_spans(example, example.words)), len(unheld_spans(example, example.words))


def encode_tags(n_words: int, word_spans: Iterable[WordSpan], scheme: Scheme = "BIO") -> list[str]:
    """Turns entities into the tags of any scheme; IO cannot tell neighbours of one label apart."""
    spans = sorted(word_spans)
    tags = encode_bio(n_words, spans)
    begun = {"BIO": "B", "BIOES": "B", "BILOU": "B"}.get(scheme, "I")
    ends = {"BIOES": ("E", "S"), "BILOU": ("L", "U")}.get(scheme)
    for number, (first, last, label) in enumerate(spans):
        touches = number > 0 and spans[number - 1][1:] == (first, label)
        tags[first] = f"{'B' if scheme == 'IOB1' and touches else begun}-{label}"
        if ends:
            tags[last - 1] = f"{ends[1] if last - first == 1 else ends[0]}-{label}"
    return tags
