"""The examples that every reader yields, one immutable type for each kind of supervision, and tags as files have them.

Tag schemes are IO, IOB1, BIO (also called IOB2), BIOES and BILOU.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from trunkline.errors import TrunklineError
from trunkline.text.words import EXTENDING, char_classes

Scheme = Literal["IO", "IOB1", "BIO", "BIOES", "BILOU"]
SCHEMES: tuple[Scheme, ...] = ("IO", "IOB1", "BIO", "BIOES", "BILOU")

WordSpan = tuple[int, int, str]
"""First word, last word (exclusive), label."""

_PREFIXES = {"IO": "I", "IOB1": "BI", "BIO": "BI", "BIOES": "BIES", "BILOU": "BILU"}
_COMMON = {"L": "E", "U": "S"}


@dataclass(frozen=True, slots=True)
class Span:
    """A labelled stretch of text; `start` and `end` are character offsets, `end` exclusive."""

    start: int
    end: int
    label: str


@dataclass(frozen=True, slots=True)
class NerExample:
    """A sentence with its entities.

    `words` are character offsets, in order and without overlap: those of the file where it is tokenised, else those of
    `split_words`. Only pre-finetuning reads them; tasks have words of their own, by one rule for all texts.
    Spans may overlap or repeat with several labels only in pre-finetuning sources.
    """

    text: str
    words: tuple[tuple[int, int], ...]
    spans: tuple[Span, ...]


@dataclass(frozen=True, slots=True)
class TextExample:
    """A text with one label."""

    text: str
    label: str


@dataclass(frozen=True, slots=True)
class MultiLabelExample:
    """A text with any number of labels, none included."""

    text: str
    labels: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class PairExample:
    """Two texts that belong together, such as a title and its body.

    Pairs of a `group`, such as a topic, are too much alike to be each other's negatives; an empty one is of its own.
    """

    left: str
    right: str
    group: str = ""


@dataclass(frozen=True, slots=True)
class PlainExample:
    """A text without any annotation, for masked-language-model training, weak labelling and mining."""

    text: str


@dataclass(frozen=True, slots=True)
class QaExample:
    """A question and a context; `answers`, any one of which is right, are character offsets in the context."""

    question: str
    context: str
    answers: tuple[tuple[int, int], ...] = ()

    @property
    def text(self) -> str:
        """Both in one text: the first line is the question, the rest the context."""
        return f"{' '.join(self.question.split())}\n{self.context}"


Example = NerExample | TextExample | MultiLabelExample | PairExample | PlainExample | QaExample


def join_tokens(tokens: list[str]) -> tuple[str, tuple[tuple[int, int], ...]]:
    """Joins the tokens of a tokenised file to a text, as it is written; returns it and the offsets of each token.

    Between two tokens stands a blank, but not between Chinese characters, say: where the first ends and the second
    begins in a script without blanks.
    """
    text, words, open_end = "", list[tuple[int, int]](), False
    for token in tokens:
        kinds = b"" if token.isascii() else char_classes(token)
        text += " " if words and not (open_end and kinds[:1] == b"u") else ""
        words.append((len(text), len(text) + len(token)))
        text += token
        open_end = kinds.rstrip(EXTENDING)[-1:] == b"u"
    return text, tuple(words)


class TagError(TrunklineError):
    """A tag or span that does not fit the scheme; `index` is the word it belongs to, counted from 0."""

    def __init__(self, given: str, *, index: int, expected: str = "", todo: str = "") -> None:
        self.index = index
        super().__init__(given, expected=expected, todo=todo)


def decode_with_repairs(tags: Sequence[str], scheme: Scheme = "BIO") -> tuple[list[WordSpan], list[int]]:
    """Turns one tag a word into entities, in order; also returns the words where the scheme's rules were broken.

    A tag is `O`, or a prefix of the scheme, a dash and a label; in IO the prefix may be missing. An entity that was not
    begun begins where it is met, and one that was not closed ends where the next tag says so.

    Raises:
        TagError: A tag with an unknown prefix or no label.
    """
    spans: list[WordSpan] = []
    broken: list[int] = []
    start, label = 0, ""
    closing = scheme in ("BIOES", "BILOU")
    for index, tag in enumerate([*tags, "O"]):
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
    return spans, broken


def _split(tag: str, scheme: Scheme, index: int) -> tuple[str, str]:
    if tag == "O":
        return "O", ""
    prefix, dash, label = tag.partition("-")
    if scheme == "IO" and tag and not (dash and len(prefix) == 1 and prefix in "BIESLU"):
        return "I", tag
    if dash and label and len(prefix) == 1 and prefix in _PREFIXES[scheme]:
        return _COMMON.get(prefix, prefix), label
    allowed = ", ".join(f"{letter}-" for letter in _PREFIXES[scheme])
    raise TagError(
        f"the tag {tag[:60]!r} is not one of {scheme}",
        index=index,
        expected=f"O, or {allowed} followed by a label",
        todo="Check the tag column and the scheme",
    )
