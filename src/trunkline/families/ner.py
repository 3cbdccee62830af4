"""Named entity recognition: words are units; pre-finetuned by contrasting words with concept names."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn

from trunkline.config import FamilySection
from trunkline.data.batching import UnitText, word_units
from trunkline.data.corpus import marks_of
from trunkline.data.examples import Example, NerExample
from trunkline.data.mixture import Source
from trunkline.data.tagging import bio_labels, decode_tags, spans_to_bio
from trunkline.data.tokenize import IntArray, TextTokenizer, Tokens
from trunkline.decoding.bio import decode_bio, may_follow
from trunkline.families.base import FloatArray, Labels, Scores, TextEmbedder, Transitions, WordedText
from trunkline.objectives.token_concept import concept_ranks, nearest_concepts, token_concept_loss

_NO_MARKS = np.zeros((0, 2), dtype=np.int64)
NEIGHBOURS = 64
"""Nearest concepts of each concept that are kept to choose hard negatives from, or four times as many as are chosen."""
STRENGTH = 5
"""Tags that the prior of a tag's transitions is worth."""


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


class Ner:
    """See `trunkline.families.base.Family`."""

    name = "ner"
    main_score = "f1"

    def unit_texts(self, examples: Sequence[NerExample], tokenizer: TextTokenizer) -> list[UnitText]:
        """The sentences with their words as units."""
        tokens = tokenizer.encode([example.text for example in examples])
        return [word_units(part, example.words) for part, example in zip(tokens, examples, strict=True)]

    def objective(self, recipe: FamilySection, sources: Sequence[Source], embed: TextEmbedder, seed: int) -> nn.Module:
        """Token-concept contrast over the sources' concepts."""
        return TokenConceptObjective(sources, embed, recipe.negatives, seed, recipe.hard_negatives)

    def units(self, text: str, words: Sequence[tuple[int, int]], tokens: Tokens) -> UnitText:
        """The words as units."""
        return word_units(tokens, words)

    def labels(self, examples: Sequence[NerExample]) -> Labels:
        """O, then B- and I- of every entity type."""
        return tuple(bio_labels({span.label for example in examples for span in example.spans}))

    def classes(self, example: NerExample) -> set[str]:
        """The entity types of the sentence."""
        return {span.label for span in example.spans}

    def unit_targets(self, example: NerExample, labels: Labels) -> list[int]:
        """The BIO tag of each word, -1 for a type that the head does not have."""
        index = {label: number for number, label in enumerate(labels)}
        tags, _ = spans_to_bio(example)
        return [index.get(tag, -1) for tag in tags]

    def transitions(self, targets: Sequence[Sequence[int]], labels: Labels) -> Transitions:
        """Of BIO tags, see `tag_transitions`."""
        return tag_transitions(targets, labels)

    def decode(
        self,
        probabilities: Sequence[FloatArray],
        texts: Sequence[WordedText],
        labels: Labels,
        transitions: Transitions = None,
    ) -> list[list[dict[str, Any]]]:
        """Entities, see `trunkline.decoding.bio`."""
        return decode_bio(probabilities, texts, labels, transitions)

    def score(self, gold: Sequence[NerExample], predicted: Sequence[list[dict[str, Any]]]) -> Scores:
        """Strict entity precision, recall and F1 (IOB2, seqeval), micro-averaged, and F1 averaged over the types."""
        from seqeval.metrics.v1 import precision_recall_fscore_support
        from seqeval.scheme import IOB2

        truth = [spans_to_bio(example)[0] for example in gold]
        guess = [_predicted_tags(example, entities) for example, entities in zip(gold, predicted, strict=True)]
        # seqeval's `v1` is what its mode="strict" runs; its own functions would parse all tags once for each measure.
        options: dict[str, Any] = {"scheme": IOB2, "zero_division": 0}
        precision, recall, f1, _ = precision_recall_fscore_support(truth, guess, average="micro", **options)
        _, _, macro, _ = precision_recall_fscore_support(truth, guess, average="macro", **options)
        return {"f1": float(f1), "precision": float(precision), "recall": float(recall), "macro_f1": float(macro)}

    def counts(self, gold: Sequence[NerExample], predicted: Sequence[list[dict[str, Any]]]) -> list[list[int]]:
        """[entities that are right, predicted entities, gold entities] for each sentence."""
        rows = []
        for example, entities in zip(gold, predicted, strict=True):
            truth = set(decode_tags(spans_to_bio(example)[0]))
            guess = set(decode_tags(_predicted_tags(example, entities)))
            rows.append([len(truth & guess), len(guess), len(truth)])
        return rows

    def score_of_counts(self, total: FloatArray) -> float:
        """Strict entity F1."""
        return float(2 * total[0] / max(total[1] + total[2], 1))


def _predicted_tags(example: NerExample, entities: Sequence[dict[str, Any]]) -> list[str]:
    starts = {start: number for number, (start, _) in enumerate(example.words)}
    ends = {end: number for number, (_, end) in enumerate(example.words)}
    tags = ["O"] * len(example.words)
    for entity in entities:
        first, last = starts[entity["start"]], ends[entity["end"]]
        tags[first : last + 1] = [f"B-{entity['label']}"] + [f"I-{entity['label']}"] * (last - first)
    return tags


def tag_transitions(targets: Iterable[Sequence[int]], labels: Labels) -> npt.NDArray[np.float32]:
    """How much likelier a tag is after another than anywhere: log P(tag | tag before) - log P(tag).

    As pairs are few, each row is smoothed as if `STRENGTH` more tags had been seen after its tag (a Dirichlet prior),
    distributed as the pairs of all entity types together say: how often O, I, or B of the same or of another type
    follows O, B, I or the start, against how often it would if tags were independent.

    Args:
        targets: The tag of each word of each sentence, as an index into `labels`; -1 is unknown and breaks the chain.
        labels: BIO tags.

    Returns:
        [labels + 1, labels], the last row for the first word; zero where a tag may not follow.
    """
    follows = may_follow(labels)
    counts = np.zeros(follows.shape)
    for tags in targets:
        tag = np.asarray(tags, dtype=np.int64)
        before = np.concatenate([[len(labels)], tag])[: len(tag)]
        known = (before >= 0) & (tag >= 0)
        np.add.at(counts, (before[known], tag[known]), 1)
    tag_share = (counts.sum(axis=0) + 1) / (counts.sum() + len(labels))
    seen = counts.sum(axis=1, keepdims=True)
    prefixes = [label[0] for label in labels]
    names = [[f"{a[:1]}{b} {a[2:] == c[2:]}" for b, c in zip(prefixes, labels, strict=True)] for a in (*labels, "")]
    kinds = np.unique(names, return_inverse=True)[1].reshape(follows.shape)
    found, expected = (np.bincount(kinds.ravel(), table.ravel()) + 1 for table in (counts, seen * tag_share))
    prior = follows * tag_share * (found / expected)[kinds]
    smoothed = (counts + STRENGTH * prior / prior.sum(axis=1, keepdims=True)) / (seen + STRENGTH)
    return np.where(follows, np.log(np.maximum(smoothed, 1e-12) / tag_share), 0.0).astype(np.float32)
