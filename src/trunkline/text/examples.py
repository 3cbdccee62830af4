"""The examples that every reader yields: one immutable type for each kind of supervision."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Span:
    """A labelled stretch of text; `start` and `end` are character offsets, `end` exclusive."""

    start: int
    end: int
    label: str


@dataclass(frozen=True, slots=True)
class NerExample:
    """A sentence with its entities.

    `words` are the character offsets of the words that carry tags, in order and without overlap.
    They come from the file where it is tokenised and from `split_words` where it is not.
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
class PairExample:
    """Two texts that belong together, such as a title and its body.

    Pairs of the same `group` (a topic, a situation, a category) are too much alike to be each other's negatives; an
    empty group is one of its own.
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
    """A question and a context; `answers` are character offsets in the context, none if it has no answer.

    Any one of several answers is right.
    """

    question: str
    context: str
    answers: tuple[tuple[int, int], ...] = ()

    @property
    def text(self) -> str:
        """Both in one text: the first line is the question, the rest the context."""
        return f"{' '.join(self.question.split())}\n{self.context}"


Example = NerExample | TextExample | PairExample | PlainExample | QaExample


def join_tokens(tokens: list[str]) -> tuple[str, tuple[tuple[int, int], ...]]:
    """Joins the tokens of a tokenised file with blanks; returns the text and the offsets of each token."""
    words, position = [], 0
    for token in tokens:
        words.append((position, position + len(token)))
        position += len(token) + 1
    return " ".join(tokens), tuple(words)
