"""Objectives of pre-finetuning: words against concepts, pairs of texts, span pointers."""

from __future__ import annotations

import math
from bisect import bisect_left, bisect_right
from collections.abc import Callable, Sequence
from functools import partial
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from trunkline.config import FamilySection
from trunkline.encoder.bundle_files import Loaded
from trunkline.encoder.encoder import embed_texts
from trunkline.errors import TrunklineError
from trunkline.prefinetune.masked_text import MaskedTextObjective
from trunkline.prefinetune.model import Objective, Source
from trunkline.tasks.qa import Qa, answer_units, best_span, span_scores
from trunkline.text.examples import NerExample, PairExample, QaExample
from trunkline.text.tokens import TextTokenizer, UnitText, text_unit, word_units
from trunkline.text.words import split_words

Embed = Callable[[Sequence[str]], Tensor | npt.NDArray[np.float32]]
"""Gives [texts, width] embeddings."""


def token_concept_loss(logits: Tensor, positive: Tensor, valid: Tensor) -> Tensor:
    """Binary cross-entropy of words against concepts, summed over concepts and averaged over words with a known one.

    All are [words, concepts]: logits h_i . c_j, whether the word belongs to an entity of the concept, and whether this
    is known, which it is not for unlabelled words of an open source.
    """
    losses = F.binary_cross_entropy_with_logits(logits, positive.to(logits.dtype), reduction="none")
    known = valid.any(-1).sum().clamp(min=1)
    return (losses * valid).sum() / known


def concept_ranks(logits: Tensor, positive: Tensor) -> Tensor:
    """[words] rank, from 1, of the best-placed true concept of each word; words without one are left out."""
    labelled = positive.any(-1)
    logits, positive = logits[labelled], positive[labelled]
    if not logits.numel():
        return logits.new_zeros(0, dtype=torch.long)
    best = logits.masked_fill(~positive, float("-inf")).max(-1, keepdim=True).values
    return 1 + ((logits >= best) & ~positive).sum(-1)


class ConceptTargets(NamedTuple):
    """The concepts of a batch, [concepts] indices, and for each word which are true and which are known."""

    concepts: Tensor
    positive: Tensor
    valid: Tensor


class TokenConceptObjective(Objective):
    """Token-concept contrastive learning of NuNER (Bogdanov et al. 2024, arXiv 2402.15343, section 3.2).

    The logit of word i and concept j is `scale * h_i . c_j + bias`.
    The concept encoder is a frozen copy of the starting encoder, whose embeddings of the concept texts are computed
    once, behind a trained projection; concepts with the same text are one concept. Scale and bias start so that the
    logits are small and negatives prevail, as most words belong to no given concept (the start that SigLIP, arXiv
    2303.15343 section 3.2, found necessary). At most `negatives` concepts are added to those of a batch, drawn by the
    seed from its closed sources.
    """

    kind = NerExample

    def __init__(self, sources: Sequence[Source], embed: Embed, negatives: int, seed: int) -> None:
        super().__init__()
        if not any(source.concepts for source in sources):
            raise TrunklineError("the NER sources have no entity", expected="labelled spans", todo="Choose others")
        texts = sorted({text for source in sources for text in source.concepts.values()})
        self.index = {text: number for number, text in enumerate(texts)}
        self.by_label = [{label: self.index[text] for label, text in s.concepts.items()} for s in sources]
        self.closed, self.negatives, self.seed = [source.closed for source in sources], negatives, seed
        features = torch.as_tensor(embed(texts))
        self.register_buffer("features", features, persistent=False)
        width = features.shape[1]
        self.project = nn.Sequential(nn.Linear(width, width), nn.GELU(), nn.Linear(width, width))
        self.scale = nn.Parameter(torch.tensor(math.log(1.0 / math.sqrt(width))))
        self.bias = nn.Parameter(torch.tensor(-4.0))

    @staticmethod
    def unit_texts(examples: Sequence[NerExample], tokenizer: TextTokenizer) -> list[UnitText]:
        """The sentences with the words that prediction splits as units."""
        tokens = tokenizer.encode([example.text for example in examples])
        return [word_units(part, split_words(e.text)) for part, e in zip(tokens, examples, strict=True)]

    def logits(self, features: Tensor, concepts: Tensor) -> Tensor:
        """[words, concepts] logits of word features against concepts given by their indices."""
        table: Tensor = self.features  # type: ignore[assignment]
        return features @ self.project(table[concepts]).T * self.scale.exp() + self.bias

    def forward(self, features: Tensor, targets: ConceptTargets) -> Tensor:
        """The loss of [words, width] features."""
        return token_concept_loss(self.logits(features, targets.concepts), targets.positive, targets.valid)

    def targets(self, drawn: Sequence[tuple[int, NerExample]], step: int) -> ConceptTargets:
        """The concepts of the batch, some more from its closed sources, and what is known of each word."""
        of_source: list[int] = []
        marked: list[tuple[int, int]] = []
        for source, example in drawn:
            borders, first, concept = split_words(example.text), len(of_source), self.by_label[source]
            of_source += [source] * len(borders)
            marked += [(first + word, concept[label]) for word, label in labelled_words(example, borders)]
        words, true = np.asarray(marked, dtype=np.int64).reshape(-1, 2).T
        present = set(true.tolist())
        closed = [source for source in {source for source, _ in drawn} if self.closed[source]]
        others = sorted({concept for source in closed for concept in self.by_label[source].values()} - present)
        if len(others) > self.negatives:
            chosen = np.random.default_rng([self.seed, step]).choice(len(others), self.negatives, replace=False)
            others = [others[i] for i in sorted(chosen)]
        concepts = sorted(present) + others
        place = np.full(len(self.index), -1, dtype=np.int64)
        place[concepts] = np.arange(len(concepts))
        positive = np.zeros((len(of_source), len(concepts)), dtype=bool)
        valid = np.zeros_like(positive)
        for source in closed:
            known = place[list(self.by_label[source].values())]
            valid[np.ix_(np.asarray(of_source) == source, known[known >= 0])] = True
        positive[words, place[true]] = True
        valid[words] = True
        indices = torch.tensor(concepts, dtype=torch.long)
        return ConceptTargets(indices, torch.from_numpy(positive), torch.from_numpy(valid))

    def measure(self, features: Tensor, targets: ConceptTargets) -> tuple[str, Tensor]:
        """Whether the nearest concept of a labelled word is a true one."""
        ranks = concept_ranks(self.logits(features, targets.concepts), targets.positive)
        return "recall_at_1", (ranks == 1).float()


def labelled_words(example: NerExample, words: Sequence[tuple[int, int]]) -> list[tuple[int, str]]:
    """(word, label) for every word that overlaps a span; `words` are those of `split_words`."""
    starts, ends = [start for start, _ in words], [end for _, end in words]
    return [
        (word, span.label)
        for span in example.spans
        for word in range(bisect_right(ends, span.start), bisect_left(starts, span.end))
    ]


def info_nce(left: Tensor, right: Tensor, temperature: float, groups: Tensor | None = None) -> Tensor:
    """Symmetric InfoNCE with in-batch negatives (van den Oord et al. 2018, eq. 4; both directions as in CLIP).

    Row i of `left` [pairs, width] belongs to row i of `right`; both are normalised here. The temperature divides the
    cosines; 0.01 to 0.05 is usual. Other pairs of the same group, of [pairs] `groups`, are no negatives.
    """
    logits = F.normalize(left, dim=-1) @ F.normalize(right, dim=-1).T / temperature
    own = torch.arange(len(logits), device=logits.device)
    if groups is not None:
        alike = (groups[:, None] == groups[None, :]) & (own[:, None] != own[None, :])
        logits = logits.masked_fill(alike, float("-inf"))
    both = F.cross_entropy(logits, own, reduction="sum") + F.cross_entropy(logits.T, own, reduction="sum")
    return both / max(2 * len(logits), 1)


def reciprocal_ranks(left: Tensor, right: Tensor) -> Tensor:
    """[pairs] 1 / rank of each left text's partner among all right texts, by cosine; ties count against it."""
    cosines = F.normalize(left, dim=-1) @ F.normalize(right, dim=-1).T
    return 1.0 / (cosines >= cosines.diagonal()[:, None]).sum(-1)


class PairTargets(NamedTuple):
    """[pairs] indices of the pairs of a batch that are used, and the group of each."""

    kept: Tensor
    groups: Tensor


class TextPairObjective(Objective):
    """Symmetric InfoNCE at a temperature; units 2i and 2i + 1 are the two texts of pair i."""

    kind = PairExample

    def __init__(self, temperature: float) -> None:
        super().__init__()
        self.temperature = temperature

    @staticmethod
    def unit_texts(examples: Sequence[PairExample], tokenizer: TextTokenizer) -> list[UnitText]:
        """Both texts of each pair, one after the other."""
        texts = [text for example in examples for text in (example.left, example.right)]
        return [text_unit(tokens) for tokens in tokenizer.encode(texts)]

    def forward(self, features: Tensor, targets: PairTargets) -> Tensor:
        """The loss of [2 * pairs, width] features over the pairs that `targets` keeps."""
        left, right = features[0::2][targets.kept], features[1::2][targets.kept]
        return info_nce(left, right, self.temperature, targets.groups)

    def targets(self, drawn: Sequence[tuple[int, PairExample]], step: int) -> PairTargets:
        """The pairs to use: a text that occurs twice in a batch would be its own negative."""
        seen, kept, numbers = set[str](), list[int](), list[int]()
        groups: dict[tuple[int, str] | int, int] = {}
        for index, (source, pair) in enumerate(drawn):
            if pair.left not in seen and pair.right not in seen:
                kept.append(index)
                numbers.append(groups.setdefault((source, pair.group) if pair.group else index, len(groups)))
            seen |= {pair.left, pair.right}
        return PairTargets(torch.tensor(kept, dtype=torch.long), torch.tensor(numbers, dtype=torch.long))

    def measure(self, features: Tensor, targets: PairTargets) -> tuple[str, Tensor]:
        """Mean reciprocal rank of each left text's partner among the held-out right texts."""
        return "mrr", reciprocal_ranks(features[0::2][targets.kept], features[1::2][targets.kept])


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


OBJECTIVES: dict[str, type[Objective]] = {
    "ner": TokenConceptObjective,
    "classification": TextPairObjective,
    "qa": SpanPointerObjective,
    "text": MaskedTextObjective,
}
"""By family."""


def make_objective(
    family: str, section: FamilySection, sources: Sequence[Source], start: Loaded, seed: int
) -> Objective:
    """A family's objective over its sources, for the encoder as it is at the start.

    Raises TrunklineError for sources of NER without a concept, and for plain text where the tokenizer has no mask.
    """
    encoder, tokenizer = start.encoder, start.tokenizer
    if family == "ner":
        return TokenConceptObjective(sources, partial(embed_texts, encoder, tokenizer), section.negatives, seed)
    if family == "classification":
        return TextPairObjective(section.temperature)
    if family == "qa":
        return SpanPointerObjective(encoder.config.hidden_size)
    return MaskedTextObjective(encoder, tokenizer, seed)
