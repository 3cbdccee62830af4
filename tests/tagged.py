"""Entities as tags, the other way round than readers go."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from trunkline.tasks.ner import unheld_spans, word_spans
from trunkline.text.examples import NerExample, Scheme, WordSpan, decode_with_repairs


def bio_labels(types: Iterable[str]) -> list[str]:
    """The tag set of entity types: `O`, then `B-` and `I-` of each type in alphabetical order."""
    return ["O", *(f"{prefix}-{kind}" for kind in sorted(set(types)) for prefix in "BI")]


def decode_tags(tags: Sequence[str], scheme: Scheme = "BIO") -> list[WordSpan]:
    """The entities of tags."""
    return decode_with_repairs(tags, scheme)[0]


def encode_bio(n_words: int, word_spans: Iterable[WordSpan]) -> list[str]:
    """Entities that do not overlap as BIO tags."""
    tags = ["O"] * n_words
    for first, last, label in word_spans:
        assert tags[first:last] == ["O"] * (last - first) != []
        tags[first:last] = [f"B-{label}", *[f"I-{label}"] * (last - first - 1)]
    return tags


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
