"""Named entity recognition is pre-finetuned by contrasting words with the names of concepts.

Token-concept contrastive learning of NuNER (Bogdanov et al. 2024, arXiv 2402.15343, section 3.2).
"""

from __future__ import annotations

import math
from bisect import bisect_left, bisect_right
from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from trunkline.errors import TrunklineError
from trunkline.prefinetune.model import Source
from trunkline.prefinetune.objectives import Objective
from trunkline.text.examples import NerExample
from trunkline.text.tokens import TextTokenizer, UnitText, word_units
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
    """Contrasts words with concepts: the logit of word i and concept j is `scale * h_i . c_j + bias`.

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
        self.closed = [source.closed for source in sources]
        self.negatives = negatives
        self.seed = seed
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
        return ConceptTargets(
            torch.tensor(concepts, dtype=torch.long), torch.from_numpy(positive), torch.from_numpy(valid)
        )

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
