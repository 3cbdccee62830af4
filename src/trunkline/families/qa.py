"""Extractive question answering: the words of a context are units; pre-finetuned by span pointers.

A text is a question and a context: its first line is the question, the rest the context.
"""

from __future__ import annotations

import re
import string
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from trunkline.config import FamilySection
from trunkline.data.batching import UnitText
from trunkline.data.examples import Example, QaExample, split_words
from trunkline.data.mixture import Source
from trunkline.data.tokenize import TextTokenizer, Tokens
from trunkline.decoding.questions import Words, question_units
from trunkline.decoding.span import END, NO_ANSWER, OUTSIDE, SINGLE, START, best_span, decode_spans, span_scores
from trunkline.families.base import FloatArray, Labels, Scores, TextEmbedder, Transitions, WordedText

_MILLION = 1_000_000
_ARTICLES = re.compile(r"\b(a|an|the)\b")
_PUNCTUATION = str.maketrans("", "", string.punctuation)


@dataclass(frozen=True, slots=True)
class PointerTargets:
    """Where the units of each question are, and its answers.

    Attributes:
        grid: [questions, units of the longest] index of each unit in the batch, -1 where a question has fewer.
        answers: [answers, 3] question, first and last unit of each; unit 0 says that there is no answer.
    """

    grid: Tensor
    answers: Tensor


class SpanPointerObjective(nn.Module):
    """Span pointers: softmax over a question's units of a start and of an end score (Devlin et al. 2019, section 4.2).

    The scores are the products of a unit's features with two learnt vectors. The loss is the negative logarithm of the
    probability of all right starts together, averaged with that of the ends (the marginal likelihood of Clark and
    Gardner 2018, section 3.2), so any of several answers counts. A question without an answer points at unit 0, as in
    Devlin et al. section 4.3.
    """

    def __init__(self, width: int) -> None:
        super().__init__()
        self.pointers = nn.Linear(width, 2)

    def forward(self, features: Tensor, targets: PointerTargets) -> Tensor:
        """The mean loss of the questions, from the features [units, width] of all of them."""
        losses = []
        for side, scores in enumerate(self._scores(features, targets.grid)):
            gold = torch.zeros_like(scores, dtype=torch.bool)
            gold[targets.answers[:, 0], targets.answers[:, 1 + side]] = True
            right = scores.masked_fill(~gold, float("-inf"))
            losses.append(scores.logsumexp(dim=1) - right.logsumexp(dim=1))
        return torch.stack(losses).mean()

    def targets(self, drawn: Sequence[tuple[int, Example]], step: int) -> PointerTargets:
        """The units and answers of each question; the words are those of `Qa.unit_texts`."""
        counts, answers = [], []
        for number, (_, example) in enumerate(drawn):
            if not isinstance(example, QaExample):
                raise TypeError(f"qa is pre-finetuned on questions, not {type(example).__name__}")
            words = split_words(example.context)
            counts.append(1 + len(words))
            answers += [(number, first, last) for first, last in answer_units(example, words)]
        longest = max(counts, default=0)
        ends = np.cumsum(counts)
        grid = (ends - counts)[:, None] + np.arange(longest)
        grid[grid >= ends[:, None]] = -1
        return PointerTargets(torch.from_numpy(grid), torch.tensor(answers, dtype=torch.long).reshape(-1, 3))

    def measure(self, features: Tensor, targets: PointerTargets) -> tuple[str, Tensor]:
        """Whether the best span of each question is exactly one of its answers."""
        start, end = (scores.detach().cpu().numpy() for scores in self._scores(features, targets.grid))
        right = {(number, first, last) for number, first, last in targets.answers.tolist()}
        found = []
        for number, count in enumerate((targets.grid >= 0).sum(dim=1).tolist()):
            scores = span_scores(start[number, 1:count], end[number, 1:count])
            null = start[number, 0] + end[number, 0]
            first, last = best_span(scores) if scores.max(initial=-np.inf) > null else (-1, -1)
            found.append((number, first + 1, last + 1) in right)
        return "exact_match", torch.tensor(found, dtype=torch.float32)

    def _scores(self, features: Tensor, grid: Tensor) -> tuple[Tensor, Tensor]:
        """[questions, units] start and end scores, minus infinity where there is no unit."""
        scores = self.pointers(features).float()[grid.clamp(min=0)]
        scores = scores.masked_fill((grid < 0)[..., None], float("-inf"))
        return scores[..., 0], scores[..., 1]


class Qa:
    """See `trunkline.families.base.Family`. A text has one unit more than its context has words: unit 0, no answer."""

    name = "qa"
    main_score = "token_f1"

    def unit_texts(self, examples: Sequence[QaExample], tokenizer: TextTokenizer) -> list[UnitText]:
        """The contexts with their words as units, each window headed by the question."""
        texts = [example.text for example in examples]
        rows = zip(texts, tokenizer.encode(texts), strict=True)
        return [self.units(text, split_words(text), tokens) for text, tokens in rows]

    def objective(self, recipe: FamilySection, sources: Sequence[Source], embed: TextEmbedder, seed: int) -> nn.Module:
        """Span pointers over the encoder's width."""
        return SpanPointerObjective(embed(["?"]).shape[1])

    def units(self, text: str, words: Words, tokens: Tokens) -> UnitText:
        """Unit 0 and the words of the context; see `trunkline.decoding.questions`."""
        return question_units(text, words, tokens)

    def labels(self, examples: Sequence[QaExample]) -> Labels:
        """Start and end of an answer, both of a word alone, or none; one for unit 0 if some question has no answer.

        The words inside an answer count as outside, as in pre-finetuning, where only starts and ends are pointed at.
        """
        return OUTSIDE, START, END, SINGLE, *([NO_ANSWER] if any(not example.answers for example in examples) else [])

    def classes(self, example: QaExample) -> set[str]:
        """Whether there is an answer."""
        return {"answer" if example.answers else NO_ANSWER}

    def unit_targets(self, example: QaExample, labels: Labels) -> list[int]:
        """The labels of unit 0 and of the words; of answers that overlap only the first is labelled."""
        words = split_words(example.context)
        index = {label: number for number, label in enumerate(labels)}
        targets = [index[OUTSIDE]] * (1 + len(words))
        taken: set[int] = set()
        for first, last in answer_units(example, words):
            if taken.isdisjoint(range(first, last + 1)):
                taken.update(range(first, last + 1))
                targets[last] = index[END]
                targets[first] = index[START if first < last else SINGLE]
        if 0 in taken:
            targets[0] = index.get(NO_ANSWER, -1)
        return targets

    def transitions(self, targets: Sequence[Sequence[int]], labels: Labels) -> None:
        """None: `decode` weighs whole spans."""

    def decode(
        self,
        probabilities: Sequence[FloatArray],
        texts: Sequence[WordedText],
        labels: Labels,
        transitions: Transitions = None,
    ) -> list[dict[str, Any]]:
        """The best answer, see `trunkline.decoding.span`."""
        return decode_spans(probabilities, texts, labels)

    def score(self, gold: Sequence[QaExample], predicted: Sequence[dict[str, Any]]) -> Scores:
        """Token F1 and exact match as SQuAD computes them: the best over the answers, averaged over the questions."""
        pairs = [(_gold(example), answer["answer"]) for example, answer in zip(gold, predicted, strict=True)]
        return {
            "token_f1": float(np.mean([best_f1(truth, guess) for truth, guess in pairs])),
            "exact_match": float(np.mean([normalise(guess) in map(normalise, truth) for truth, guess in pairs])),
        }

    def counts(self, gold: Sequence[QaExample], predicted: Sequence[dict[str, Any]]) -> list[list[int]]:
        """[millionths of token F1, 1] for each question."""
        rows = zip(gold, predicted, strict=True)
        return [[round(_MILLION * best_f1(_gold(example), answer["answer"])), 1] for example, answer in rows]

    def score_of_counts(self, total: FloatArray) -> float:
        """Mean token F1."""
        return float(total[0] / max(total[1], 1) / _MILLION)


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
