"""Extractive question answering is pre-finetuned by span pointers."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor, nn

from trunkline.prefinetune.objectives import Objective
from trunkline.tasks.qa import Qa, answer_units, best_span, span_scores
from trunkline.text.examples import QaExample
from trunkline.text.tokens import TextTokenizer, UnitText
from trunkline.text.words import split_words


class PointerTargets(NamedTuple):
    """[questions, units of the longest] index of each unit in the batch, -1 where a question has fewer; and answers.

    These are [answers, 3], question, first and last unit of each; unit 0 says that there is no answer.
    """

    grid: Tensor
    answers: Tensor


class SpanPointerObjective(Objective):
    """Span pointers: softmax over a question's units of a start and of an end score (Devlin et al. 2019, section 4.2).

    The scores are the products of a unit's features with two learnt vectors. The loss is the negative logarithm of the
    probability of all right starts together, averaged with that of the ends (the marginal likelihood of Clark and
    Gardner 2018, section 3.2), so any of several answers counts. A question without an answer points at unit 0.
    """

    kind = QaExample

    def __init__(self, width: int) -> None:
        super().__init__()
        self.pointers = nn.Linear(width, 2)

    @staticmethod
    def unit_texts(examples: Sequence[QaExample], tokenizer: TextTokenizer) -> list[UnitText]:
        """The contexts with their words as units, each window headed by the question."""
        return [Qa().units(tokens, tokens.words) for tokens in tokenizer.encode([example.text for example in examples])]

    def forward(self, features: Tensor, targets: PointerTargets) -> Tensor:
        """The mean loss of the questions, from the features [units, width] of all of them."""
        losses = []
        for side, scores in enumerate(self._scores(features, targets.grid)):
            gold = torch.zeros_like(scores, dtype=torch.bool)
            gold[targets.answers[:, 0], targets.answers[:, 1 + side]] = True
            right = scores.masked_fill(~gold, float("-inf"))
            losses.append(scores.logsumexp(dim=1) - right.logsumexp(dim=1))
        return torch.stack(losses).mean()

    def targets(self, drawn: Sequence[tuple[int, QaExample]], step: int) -> PointerTargets:
        """The units and answers of each question; the words are those of `unit_texts`."""
        counts, answers = [], []
        for number, (_, example) in enumerate(drawn):
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
