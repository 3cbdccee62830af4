"""Named entity recognition is pre-finetuned by contrasting words with the names of concepts."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn

from trunkline.config import FamilySection
from trunkline.prefinetune.corpus import marks_of
from trunkline.prefinetune.losses.token_concept import concept_ranks, nearest_concepts, token_concept_loss
from trunkline.prefinetune.mixture import Source
from trunkline.prefinetune.objectives.base import TextEmbedder
from trunkline.text.examples import Example, NerExample
from trunkline.text.packing import UnitText, word_units
from trunkline.text.tokens import IntArray, TextTokenizer

_NO_MARKS = np.zeros((0, 2), dtype=np.int64)
NEIGHBOURS = 64
"""Nearest concepts of each concept that are kept to choose hard negatives from, or four times as many as are chosen."""


@dataclass(frozen=True, slots=True)
class ConceptTargets:
    """The concepts of a batch, [concepts] indices, and for each word which are true and which are known."""

    concepts: Tensor
    positive: Tensor
    valid: Tensor


class TokenConceptObjective(nn.Module):
    """Contrasts words with concepts: the logit of word i and concept j is `scale * h_i . c_j + bias`.

    The concept encoder is a frozen copy of the starting encoder, whose embeddings of the concept texts are computed
    once, behind a trained projection. Scale and bias start so that the logits are small and negatives prevail, as most
    words belong to no given concept (the start that SigLIP, arXiv 2303.15343 section 3.2, found necessary).

    Attributes:
        from_units: Targets are made of tokenised texts where these have marks, without their sentences.

    Args:
        sources: The NER sources; concepts with the same text are one concept.
        embed: Embeds the concept texts.
        negatives: Most concepts that are added to those of the batch; drawn from its closed sources.
        seed: Draws these negatives.
        hard_negatives: How many of them, in training, are instead the nearest to the batch's concepts by the cosine of
            their embeddings, of all concepts of the batch's sources. As what is near may well be true, they count only
            for words of sources that have the concept.
    """

    from_units = True

    def __init__(
        self, sources: Sequence[Source], embed: TextEmbedder, negatives: int, seed: int, hard_negatives: int = 0
    ) -> None:
        super().__init__()
        texts = sorted({text for source in sources for text in source.concepts.values()})
        self.index = {text: number for number, text in enumerate(texts)}
        self.by_label = [{label: self.index[text] for label, text in s.concepts.items()} for s in sources]
        self.labels = [source.labels or tuple(source.concepts) for source in sources]
        # The concept of each label of each source, one source after the other.
        self.first = np.cumsum([0, *(len(labels) for labels in self.labels)])
        pairs = zip(self.labels, self.by_label, strict=True)
        self.concept_of = np.asarray([by[label] for labels, by in pairs for label in labels], dtype=np.int64)
        self.closed = [source.closed for source in sources]
        self.negatives = negatives
        self.seed = seed
        self.hard_negatives = hard_negatives
        self._near: tuple[Tensor, Tensor] | None = None
        features = embed(texts)
        self.register_buffer("features", features, persistent=False)
        width = features.shape[1]
        self.project = nn.Sequential(nn.Linear(width, width), nn.GELU(), nn.Linear(width, width))
        self.scale = nn.Parameter(torch.tensor(math.log(1.0 / math.sqrt(width))))
        self.bias = nn.Parameter(torch.tensor(-4.0))

    def logits(self, features: Tensor, concepts: Tensor) -> Tensor:
        """[words, concepts] logits of word features against concepts given by their indices."""
        table: Tensor = self.features  # type: ignore[assignment]
        return features @ self.project(table[concepts]).T * self.scale.exp() + self.bias

    def forward(self, features: Tensor, targets: ConceptTargets) -> Tensor:
        """The loss of [words, width] features."""
        return token_concept_loss(self.logits(features, targets.concepts), targets.positive, targets.valid)

    def targets(self, drawn: Sequence[tuple[int, Example | UnitText]], step: int) -> ConceptTargets:
        """The concepts of the batch, some more from its closed sources, and what is known of each word.

        Args:
            drawn: The source's number, and its sentence or its tokenised text with marks.
            step: Draws the negatives.
        """
        rows = [(source, *self._marks(source, item)) for source, item in drawn]
        counts = [count for _, count, _ in rows]
        starts = np.cumsum([0, *counts])
        lengths = [len(marks) for _, _, marks in rows]
        words, numbers = np.concatenate([_NO_MARKS, *(marks for _, _, marks in rows)]).T
        words = words + np.repeat(starts[:-1], lengths)
        marked = self.concept_of[numbers + np.repeat(self.first[[source for source, _, _ in rows]], lengths)]
        present = set(np.unique(marked).tolist())
        batch_sources = {row[0] for row in rows}
        hard = self._hard(present, batch_sources)
        others = sorted(self._inventory(s for s in batch_sources if self.closed[s]) - present - set(hard))
        room = self.negatives - len(hard)
        if len(others) > room:
            chosen = np.random.default_rng([self.seed, step]).choice(len(others), room, replace=False)
            others = [others[i] for i in sorted(chosen)]
        concepts = sorted(present) + hard + others
        column = {concept: number for number, concept in enumerate(concepts)}
        of_source = np.repeat([source for source, _, _ in rows], counts)
        place = np.zeros(len(self.index), dtype=np.int64)
        place[concepts] = np.arange(len(concepts))
        positive = np.zeros((starts[-1], len(concepts)), dtype=bool)
        valid = np.zeros_like(positive)
        for source in batch_sources:
            if self.closed[source]:
                known = [column[c] for c in self.by_label[source].values() if c in column]
                valid[np.ix_(of_source == source, known)] = True
        positive[words, place[marked]] = True
        valid[words] = True
        for source in batch_sources if hard else ():
            foreign = [column[c] for c in set(hard) - set(self.by_label[source].values())]
            valid[np.ix_(of_source == source, foreign)] = False
        return ConceptTargets(
            torch.tensor(concepts, dtype=torch.long), torch.from_numpy(positive), torch.from_numpy(valid)
        )

    def measure(self, features: Tensor, targets: ConceptTargets) -> tuple[str, Tensor]:
        """Whether the nearest concept of a labelled word is a true one."""
        ranks = concept_ranks(self.logits(features, targets.concepts), targets.positive)
        return "recall_at_1", (ranks == 1).float()

    def _inventory(self, sources: Iterable[int]) -> set[int]:
        return {concept for source in sources for concept in self.by_label[source].values()}

    def _hard(self, present: set[int], sources: set[int]) -> list[int]:
        """The concepts of the sources nearest to those present, sorted; only from what is nearest to each of these."""
        if not self.hard_negatives or not self.training or not present:
            return []
        if self._near is None:
            table: Tensor = self.features  # type: ignore[assignment]
            cosines, indices = nearest_concepts(table, max(NEIGHBOURS, 4 * self.hard_negatives))
            self._near = cosines.cpu(), indices.cpu()
        possible = self._inventory(sources) - present
        best: dict[int, float] = {}
        rows = sorted(present)
        for cosines, indices in zip(self._near[0][rows].tolist(), self._near[1][rows].tolist(), strict=True):
            for cosine, concept in zip(cosines, indices, strict=True):
                if concept in possible:
                    best[concept] = max(cosine, best.get(concept, -1.0))
        return sorted(sorted(best, key=lambda concept: (-best[concept], concept))[: self.hard_negatives])

    def _marks(self, source: int, item: Example | UnitText) -> tuple[int, IntArray]:
        """Number of words, and [marks, 2] of word and number of the label among the source's."""
        if isinstance(item, UnitText) and item.marks is not None:
            return item.n_units, item.marks
        if not isinstance(item, NerExample):
            raise TypeError(f"ner is pre-finetuned on sentences with spans, not {type(item).__name__}")
        numbers = {label: number for number, label in enumerate(self.labels[source])}
        return len(item.words), np.asarray(marks_of(item, numbers), dtype=np.int64).reshape(-1, 2)


class ConceptFamily:
    """See `trunkline.prefinetune.objectives.base.PrefinetuneFamily`."""

    name = "ner"

    def unit_texts(self, examples: Sequence[NerExample], tokenizer: TextTokenizer) -> list[UnitText]:
        """The sentences with their words, as the file has them, as units."""
        tokens = tokenizer.encode([example.text for example in examples])
        return [word_units(part, example.words) for part, example in zip(tokens, examples, strict=True)]

    def objective(self, recipe: FamilySection, sources: Sequence[Source], embed: TextEmbedder, seed: int) -> nn.Module:
        """Token-concept contrast over the sources' concepts."""
        return TokenConceptObjective(sources, embed, recipe.negatives, seed, recipe.hard_negatives)
