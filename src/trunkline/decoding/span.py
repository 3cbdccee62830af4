"""Answers from the probabilities of where they start and end in a context."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from trunkline.decoding.base import FloatArray, Labels, Transitions, WordedText
from trunkline.decoding.questions import Words, context_start

LONGEST = 30
"""Most words of an answer, as in the original SQuAD programs."""

OUTSIDE, START, END, SINGLE, NO_ANSWER = "O", "start", "end", "single", "no answer"


def decode_spans(
    probabilities: Sequence[FloatArray],
    texts: Sequence[WordedText],
    labels: Labels,
    transitions: Transitions = None,
) -> list[dict[str, Any]]:
    """The best answer: `answer`, `start` and `end` in the context, and `score`; empty and None for no answer.

    The labels of the units are taken as independent under the condition that exactly one span is the answer, or
    unit 0 says that there is none. Then the odds of a span are the product of its labels' odds against O, and
    `score` is its share of the odds of all spans up to `LONGEST` words (and of no answer, if the head knows that).
    """
    return [_answer(part, *text, labels) for part, text in zip(probabilities, texts, strict=True)]


def _answer(probabilities: FloatArray, text: str, words: Words, labels: Labels) -> dict[str, Any]:
    begin = context_start(text)
    inside = [(start - begin, end - begin) for start, end in words if start >= begin]
    logs = np.log(np.maximum(probabilities.astype(np.float64), 1e-12))
    odds = {label: logs[:, number] - logs[:, labels.index(OUTSIDE)] for number, label in enumerate(labels)}
    scores = span_scores(odds[START][1:], odds[END][1:])
    scores[:, 0] = odds[SINGLE][1:]
    null = odds[NO_ANSWER][0] if NO_ANSWER in labels else -np.inf
    best = max(null, scores.max(initial=-np.inf))
    if not np.isfinite(best):
        return {"answer": "", "start": None, "end": None, "score": 1.0}
    share = round(float(1 / (np.exp(scores - best).sum() + np.exp(null - best))), 6)
    if null == best:
        return {"answer": "", "start": None, "end": None, "score": share}
    first, last = best_span(scores)
    start, end = inside[first][0], inside[last][1]
    return {"answer": text[begin + start : begin + end], "start": start, "end": end, "score": share}


def span_scores(start: FloatArray, end: FloatArray) -> FloatArray:
    """[words, LONGEST] score of the span that begins at a word and has so many words less one: start plus end score."""
    if not len(start):
        return np.zeros((0, LONGEST))
    ends = np.concatenate((end, np.full(LONGEST - 1, -np.inf)))
    return np.array(start[:, None] + np.lib.stride_tricks.sliding_window_view(ends, LONGEST))


def best_span(scores: FloatArray) -> tuple[int, int]:
    """First and last word of the highest score of `span_scores`; the earlier and shorter span wins ties."""
    first, more = np.unravel_index(int(scores.argmax()), scores.shape)
    return int(first), int(first + more)
