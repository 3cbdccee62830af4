"""The examples that every reader yields: one immutable type for each kind of supervision."""

from __future__ import annotations

from dataclasses import dataclass

from trunkline.text.words import EXTENDING, char_classes


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
    """Joins the tokens of a tokenised file to a text, as it is written; returns it and the offsets of each token.

    Between two tokens stands a blank, but not between Chinese characters, say: where the first ends and the second
    begins in a script without blanks.
    """
    words: list[tuple[int, int]] = []
    parts: list[str] = []
    position, open_end = 0, False
    for token in tokens:
        kinds = b"" if token.isascii() else char_classes(token)
        if words and not (open_end and kinds[:1] == b"u"):
            parts.append(" ")
            position += 1
        words.append((position, position + len(token)))
        parts.append(token)
        position += len(token)
        open_end = kinds.rstrip(EXTENDING)[-1:] == b"u"
    return "".join(parts), tuple(words)
