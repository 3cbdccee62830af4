"""Tag sequences and word spans: IO, IOB1, BIO (also called IOB2), BIOES and BILOU."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Literal

from trunkline.errors import TrunklineError

Scheme = Literal["IO", "IOB1", "BIO", "BIOES", "BILOU"]
SCHEMES: tuple[Scheme, ...] = ("IO", "IOB1", "BIO", "BIOES", "BILOU")

WordSpan = tuple[int, int, str]
"""First word, last word (exclusive), label."""

_PREFIXES = {"IO": "I", "IOB1": "BI", "BIO": "BI", "BIOES": "BIES", "BILOU": "BILU"}
_COMMON = {"L": "E", "U": "S"}


class TagError(TrunklineError):
    """A tag or span that does not fit the scheme; `index` is the word it belongs to, counted from 0."""

    def __init__(self, given: str, *, index: int, expected: str = "", todo: str = "") -> None:
        self.index = index
        super().__init__(given, expected=expected, todo=todo)


def decode_tags(tags: Sequence[str], scheme: Scheme = "BIO", *, strict: bool = False) -> list[WordSpan]:
    """Turns one tag a word into entities.

    Args:
        tags: `O`, or a prefix of the scheme, a dash and a label; in IO the prefix may be missing.
        scheme: How the tags mark borders.
        strict: Whether a sequence that breaks the scheme's rules raises. If not, an entity that was not begun begins
            where it is met, and one that was not closed ends where the next tag says so.

    Returns:
        The entities in order.

    Raises:
        TagError: A tag with an unknown prefix or no label, or, with `strict`, one that breaks the rules.
    """
    spans, broken = decode_with_repairs(tags, scheme)
    if strict and broken:
        index = broken[0]
        before = tags[index - 1] if index else "the start of the sentence"
        tag = tags[index] if index < len(tags) else "end of sentence"
        raise TagError(
            f"the tag {tag[:60]!r} cannot follow {before[:60]!r} in {scheme}",
            index=min(index, len(tags) - 1),
            expected=f"a sequence that keeps the rules of {scheme}",
            todo="Mend the tags, name the right scheme, or read without `strict` to repair them",
        )
    return spans


def decode_with_repairs(tags: Sequence[str], scheme: Scheme = "BIO") -> tuple[list[WordSpan], list[int]]:
    """Like `decode_tags` without `strict`; also returns the indices of the words where the rules were broken."""
    spans: list[WordSpan] = []
    broken: list[int] = []
    start, label = 0, ""
    closing = scheme in ("BIOES", "BILOU")
    for index, tag in enumerate(tags):
        prefix, kind = _split(tag, scheme, index)
        continues = prefix in "IE" and kind == label != ""
        if label and not continues:
            spans.append((start, index, label))
            if closing:
                broken.append(index)
            label = ""
        if prefix == "O":
            continue
        if not continues:
            if (scheme == "BIO" or closing) and prefix in "IE" and (not broken or broken[-1] != index):
                broken.append(index)
            start, label = index, kind
        if prefix in "ES":
            spans.append((start, index + 1, label))
            label = ""
    if label:
        spans.append((start, len(tags), label))
        if closing:
            broken.append(len(tags))
    return spans, broken


def _split(tag: str, scheme: Scheme, index: int) -> tuple[str, str]:
    if tag == "O":
        return "O", ""
    prefix, dash, label = tag.partition("-")
    if scheme == "IO" and tag and not (dash and len(prefix) == 1 and prefix in "BIESLU"):
        return "I", tag
    if scheme in _PREFIXES and dash and label and len(prefix) == 1 and prefix in _PREFIXES[scheme]:
        return _COMMON.get(prefix, prefix), label
    if scheme not in _PREFIXES:
        raise TagError(f"the scheme {scheme!r} is not known", index=index, expected=f"one of {', '.join(SCHEMES)}")
    allowed = ", ".join(f"{letter}-" for letter in _PREFIXES[scheme])
    raise TagError(
        f"the tag {tag[:60]!r} is not one of {scheme}",
        index=index,
        expected=f"O, or {allowed} followed by a label",
        todo="Check the tag column and the scheme",
    )


def encode_bio(n_words: int, word_spans: Iterable[WordSpan]) -> list[str]:
    """Turns entities into BIO tags.

    Raises:
        TagError: A span outside of the sentence, an empty one, or two that share a word.
    """
    tags = ["O"] * n_words
    for first, last, label in word_spans:
        if not 0 <= first < last <= n_words:
            raise TagError(
                f"the span {first}..{last} ({label}) is outside of a sentence of {n_words} words",
                index=max(0, min(first, n_words - 1)),
                expected="0 <= first < last <= number of words",
            )
        for index in range(first, last):
            if tags[index] != "O":
                raise TagError(
                    f"the entities {tags[index][2:]!r} and {label!r} share word {index}",
                    index=index,
                    expected="entities that do not overlap, because each word has one tag",
                    todo="Keep one of the two",
                )
            tags[index] = f"{'B' if index == first else 'I'}-{label}"
    return tags


def bio_labels(types: Iterable[str]) -> list[str]:
    """The tag set of entity types: `O`, then `B-` and `I-` of each type in alphabetical order."""
    return ["O", *(f"{prefix}-{kind}" for kind in sorted(set(types)) for prefix in "BI")]
