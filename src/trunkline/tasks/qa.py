"""Extractive question answering: the words of a context are units, and the answer is a span of them.

A text is a question and a context: its first line is the question, the rest the context.
"""

from __future__ import annotations

import re
import string
from collections import Counter
from collections.abc import Sequence
from typing import Any

import numpy as np

from trunkline.errors import TrunklineError
from trunkline.tasks.classification import (
    Answer,
    Answers,
    Classification,
    Counts,
    FloatArray,
    Labels,
    Scored,
    Tally,
    Words,
)
from trunkline.text.examples import QaExample
from trunkline.text.tokens import TextTokenizer, Tokens, UnitText, cover, word_units

OVERLAP = 32
"""Tokens of the context that neighbouring windows share."""

LONGEST = 30
"""Most words of an answer, as in the original SQuAD programs."""

OUTSIDE, START, END, SINGLE, NO_ANSWER = "O", "start", "end", "single", "no answer"

_ARTICLES = re.compile(r"\b(a|an|the)\b")
_PUNCTUATION = str.maketrans("", "", string.punctuation)


class Qa(Classification):
    """A text has one unit more than its context has words: unit 0, no answer."""

    name = "qa"
    main_score = "token_f1"
    shares_trunk = False
    readable = ", ".join((OUTSIDE, START, END, SINGLE))

    def choose_units(self, examples: Sequence[Any], tokenizer: TextTokenizer) -> str:
        """The words of the context."""
        return "question"

    def units(self, tokens: Tokens, words: Words) -> UnitText:
        """Windows of a context, each with the question before it, and their units.

        Unit 0 says that there is no answer; the others are the words of the context. Unit 0 is the mean of the windows'
        opening tokens, so that all of them have a say in that. Each word is pooled where its tokens have most context.

        A window is the opening token, the question, the closing token and a piece of the context. The closing token
        stands between the two and not behind them, so that a window is no longer than that of any other text; token
        types are 0 throughout, as for all texts here. Only where the whole does not fit one window are there several,
        and there a question is cut off behind half a window. Raises TrunklineError for a text of one line.
        """
        begin = context_start(tokens.text)
        words = [word for word in words if word[0] >= begin]
        ids, room = tokens.ids[tokens.place], max(tokens.sizes) - 2
        asked = tokens.offsets[:, 0] < begin - 1
        told = ~asked & (tokens.offsets[:, 1] > begin)
        question, context = ids[asked], ids[told]
        if len(question) + len(context) > room:
            question = question[: room // 2]
        head = [tokens.ids[0], *question, tokens.ids[-1]]
        space = room - len(question)
        windows = cover(tokens.text, tokens.offsets[told], context, (head, ()), space, min(OVERLAP, space // 2))
        units = word_units(windows, words)
        first = np.cumsum(windows.sizes) - windows.sizes
        return UnitText(
            windows.ids,
            windows.sizes,
            np.concatenate((first, units.token)),
            np.concatenate((np.zeros(len(first), dtype=np.int64), units.unit + 1)),
            1 + len(words),
        )

    def labels(self, examples: Sequence[Any]) -> Labels:
        """Start and end of an answer, both of a word alone, or none; one for unit 0 if some question has no answer.

        The words inside an answer count as outside, as in pre-finetuning, where only starts and ends are pointed at.
        """
        return OUTSIDE, START, END, SINGLE, *([NO_ANSWER] if any(not example.answers for example in examples) else [])

    def unreadable(self, labels: Labels) -> list[str]:
        """All, if one of starts, ends and single words is missing."""
        return [] if {OUTSIDE, START, END, SINGLE} <= set(labels) else list(labels)

    def classes(self, example: Any) -> set[str]:
        """Whether there is an answer."""
        return {"answer" if example.answers else NO_ANSWER}

    def unit_targets(self, example: Any, labels: Labels, words: Words) -> list[int]:
        """The labels of unit 0 and of the context's words; of answers that overlap only the first is labelled."""
        inside = context_words(example.text, words)
        index = {label: number for number, label in enumerate(labels)}
        targets = [index[OUTSIDE]] * (1 + len(inside))
        taken: set[int] = set()
        for first, last in answer_units(example, inside):
            if taken.isdisjoint(range(first, last + 1)):
                taken.update(range(first, last + 1))
                targets[last] = index[END]
                targets[first] = index[START if first < last else SINGLE]
        if 0 in taken:
            targets[0] = index.get(NO_ANSWER, -1)
        return targets

    def decode(self, tasks: Sequence[Scored]) -> list[list[Any]]:
        """The best answer: `answer`, `start` and `end` in the context, and `score`; empty and None for no answer.

        The labels of the units are taken as independent under the condition that exactly one span is the answer, or
        unit 0 says that there is none. Then the odds of a span are the product of its labels' odds against O, and
        `score` is its share of the odds of all spans up to `LONGEST` words (and of no answer, if the head knows that).
        """
        return [
            [_answer(part, *text, task.labels) for part, text in zip(task.probabilities, task.texts, strict=True)]
            for task in tasks
        ]

    def measures(self, counts: Counts) -> dict[str, FloatArray]:
        """Token F1 and exact match as SQuAD computes them: the best over the answers, averaged over the questions."""
        examples = np.maximum(counts.examples, 1)
        return {"token_f1": counts.right.sum(axis=1) / examples, "exact_match": counts.exact / examples}

    def tally(self, gold: Sequence[Any], predicted: Sequence[Any], labels: Labels = ()) -> Tally:
        """The token F1 of each answer counts as what is right of it; answers have no labels."""
        rows = list[tuple[int, int, float]]()
        for number, (example, prediction) in enumerate(zip(gold, predicted, strict=True)):
            truths, guess = _gold(example), prediction["answer"]
            rows.append((0, number, best_f1(truths, guess)))
            rows.append((3, number, float(normalise(guess) in map(normalise, truths))))
        return Tally.from_rows(("",), rows)

    def align(self, example: Any, prediction: Any) -> list[tuple[Answer | None, Answer | None]]:
        """Nothing, as answers have no labels that could be confused."""
        return []

    def likelihood(self, example: Any, prediction: Any) -> None:
        """Not known: a prediction has no probability of other answers."""

    def compare(self, example: Any, prediction: Any) -> tuple[Answers, Answers]:
        """The answers; of several true ones the one that was predicted, if it is among them."""
        truths, guess = _gold(example), prediction["answer"]
        right = [truth for truth in truths if normalise(truth) == normalise(guess)]
        truth = right[0] if right else truths[0]
        return frozenset({(truth,)}), frozenset({(truth if right else guess,)})


def context_start(text: str) -> int:
    """Where the context begins in a text whose first line is the question; raises TrunklineError if it has one line."""
    end = text.find("\n")
    if end < 0:
        raise TrunklineError(
            f"the text {text[:60]!r} has one line",
            expected="a question, a line feed and the context, for question answering",
            todo="Write f'{question}\\n{context}', or leave tasks of the family qa out",
        )
    return end + 1


def context_words(text: str, words: Words) -> list[tuple[int, int]]:
    """The words of the context, by their offsets in it, of the words of a text whose first line is the question."""
    begin = context_start(text)
    return [(start - begin, end - begin) for start, end in words if start >= begin]


def _answer(probabilities: FloatArray, text: str, words: Words, labels: Labels) -> dict[str, Any]:
    begin, inside = context_start(text), context_words(text, words)
    logs = np.log(np.maximum(probabilities.astype(np.float64), 1e-12))
    odds = {label: logs[:, number] - logs[:, labels.index(OUTSIDE)] for number, label in enumerate(labels)}
    scores = span_scores(odds[START][1:], odds[END][1:])
    scores[:, 0] = odds[SINGLE][1:]
    # Without words there is nothing to answer with, whatever the head knows.
    null = odds[NO_ANSWER][0] if NO_ANSWER in labels else -np.inf if inside else 0.0
    best = max(null, scores.max(initial=-np.inf))
    share = round(float(1 / (np.exp(scores - best).sum() + np.exp(null - best))), 6)
    if null == best:
        return {"answer": "", "start": None, "end": None, "score": share}
    first, last = best_span(scores)
    start, end = inside[first][0], inside[last][1]
    return {"answer": text[begin + start : begin + end], "start": start, "end": end, "score": share}


def span_scores(start: FloatArray, end: FloatArray) -> FloatArray:
    """[words, LONGEST] start plus end score of the span that begins at a word and has so many words less one."""
    ends = np.concatenate((end, np.full(LONGEST, -np.inf)))
    return np.array(start[:, None] + np.lib.stride_tricks.sliding_window_view(ends, LONGEST)[: len(start)])


def best_span(scores: FloatArray) -> tuple[int, int]:
    """First and last word of the highest score of `span_scores`; the earlier and shorter span wins ties."""
    first, more = np.unravel_index(int(scores.argmax()), scores.shape)
    return int(first), int(first + more)


def answer_units(example: QaExample, words: Words) -> list[tuple[int, int]]:
    """First and last unit of each answer; (0, 0) if there is none. A word that an answer cuts belongs to it."""
    spans = []
    for start, end in example.answers:
        inside = [number for number, word in enumerate(words, start=1) if word[0] < end and word[1] > start]
        if inside:
            spans.append((inside[0], inside[-1]))
    return spans or [(0, 0)]


def normalise(answer: str) -> str:
    """As SQuAD compares answers: lower case, no ASCII punctuation, no English articles, one blank between words."""
    return " ".join(_ARTICLES.sub(" ", answer.lower().translate(_PUNCTUATION)).split())


def best_f1(truths: Sequence[str], guess: str) -> float:
    """The highest F1 of the normalised tokens over several true answers; an empty answer equals only an empty one."""
    return max(_f1(normalise(truth).split(), normalise(guess).split()) for truth in truths)


def _f1(truth: list[str], guess: list[str]) -> float:
    if not truth or not guess:
        return float(truth == guess)
    shared = (Counter(truth) & Counter(guess)).total()
    return 2 * shared / (len(truth) + len(guess))


def _gold(example: QaExample) -> list[str]:
    answers = [example.context[start:end] for start, end in example.answers]
    return [answer for answer in answers if normalise(answer)] or [""]
