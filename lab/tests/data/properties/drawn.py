"""Hypothesis strategies for examples: words that parsers trip over, sentences with entities, texts and pairs."""

from __future__ import annotations

from typing import TypeVar

from hypothesis import strategies as st

from trunkline.text.examples import (
    NerExample,
    PairExample,
    PlainExample,
    QaExample,
    Span,
    TextExample,
    WordSpan,
    join_tokens,
)
from trunkline.text.words import split_words

T = TypeVar("T")

# Neither blanks nor control characters, surrogates and code points without a character.
LETTERS = st.characters(codec="utf-8", exclude_categories=("Z", "C"))

TRICKY = (
    "Ann", "don't", '"', '"hi"', "'", "a,b", "x;y", "<b>", "</b>", "&amp;", "&#2;", "]]>", "naïve", "e\u0301", "東京",
    "👩\u200d👧", "co\u00adop", "\u200fא", "#Q", "^", "#", "\\", "\\n", "{", "[]", "O", "B-per", "-", "null", "NaN",
    "0", "½", "²", "a#1", "__label__x", "http://a.b/c?d=1", "=1+1", "%s", "{0}",
)  # fmt: skip

WORDS = st.one_of(st.sampled_from(TRICKY), st.text(LETTERS, min_size=1, max_size=6))
TYPES = st.sampled_from(("per", "ORG", "B-side", "geo_loc", "a/b", "étage", "O"))
LABELS = st.sampled_from(("spam", "Not-spam", "0", "é", "a_b"))

BLANKS = (" ", "  ", "\u00a0", "\u2028", "\u3000")
"""What may stand between the words of a one-line text."""

BREAKS = (*BLANKS, "\t", "\n", "\r\n", "\n\n")
"""What may stand between the words of a text whose format escapes line ends."""


def texts(blanks: tuple[str, ...] = (" ",), words: st.SearchStrategy[str] = WORDS) -> st.SearchStrategy[str]:
    """Texts without blanks at their ends."""
    rows = st.lists(st.tuples(words, st.sampled_from(blanks)), min_size=1, max_size=6)
    return rows.map(lambda parts: "".join(word + blank for word, blank in parts[:-1]) + parts[-1][0])


def some(examples: st.SearchStrategy[T], most: int = 4) -> st.SearchStrategy[list[T]]:
    return st.lists(examples, min_size=1, max_size=most)


def sentences(words: st.SearchStrategy[str] = WORDS) -> st.SearchStrategy[NerExample]:
    """Tokenised sentences; entities may touch each other but share no word."""
    rows = st.lists(st.tuples(words, st.integers(0, 2), TYPES), min_size=1, max_size=7)
    return rows.map(_sentence)


def raw_sentences(words: st.SearchStrategy[str] = WORDS) -> st.SearchStrategy[NerExample]:
    """Sentences of formats with character offsets, whose words are those of `split_words`."""
    return sentences(words).map(lambda item: NerExample(item.text, split_words(item.text), item.spans))


def labelled(text: st.SearchStrategy[str]) -> st.SearchStrategy[TextExample]:
    return st.builds(TextExample, text, LABELS)


def pairs(text: st.SearchStrategy[str]) -> st.SearchStrategy[PairExample]:
    return st.builds(PairExample, text, text)


def questions() -> st.SearchStrategy[QaExample]:
    """Questions with any number of answers in their context, none among them."""
    return st.builds(
        lambda text, item: QaExample(text, item.text, tuple((span.start, span.end) for span in item.spans)),
        texts(),
        raw_sentences(),
    )


def plain(text: st.SearchStrategy[str]) -> st.SearchStrategy[PlainExample]:
    return st.builds(PlainExample, text)


def word_spans(example: NerExample) -> list[WordSpan]:
    """The entities of a tokenised sentence as ranges of words."""
    first = {start: index for index, (start, _) in enumerate(example.words)}
    last = {end: index + 1 for index, (_, end) in enumerate(example.words)}
    return [(first[span.start], last[span.end], span.label) for span in example.spans]


def _sentence(rows: list[tuple[str, int, str]]) -> NerExample:
    """Each row is a word, a mark (0 outside, 1 begins an entity, 2 goes on with one) and a type."""
    text, words = join_tokens([word for word, _, _ in rows])
    spans: list[Span] = []
    inside = False
    for (start, end), (_, mark, kind) in zip(words, rows, strict=True):
        if mark == 2 and inside:
            spans[-1] = Span(spans[-1].start, end, spans[-1].label)
        elif mark == 1:
            spans.append(Span(start, end, kind))
        inside = mark == 1 or (mark == 2 and inside)
    return NerExample(text, words, tuple(spans))


LETTER_WORDS = st.text(st.characters(categories=("Lu", "Ll", "Lo")), max_size=5).map("Qu".__add__)
"""Words that end no sentence and that no reader takes for noise, such as `none` and `team`."""

LINE = texts(BLANKS)
FREE = texts(BREAKS)
ONE_BLANK = texts()
