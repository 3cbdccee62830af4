"""Fitting and scoring a head of any family on frozen features."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from trunkline.data.batching import UnitText
from trunkline.data.examples import split_words
from trunkline.data.tokenize import TextTokenizer
from trunkline.families.base import Family, Labels, Scores
from trunkline.model.encoder import Encoder
from trunkline.model.features import Branch, Features, branch_features
from trunkline.model.heads import LinearHead, best_head
from trunkline.model.lora import Deltas


def words_of(example: Any) -> Sequence[tuple[int, int]]:
    """The words of an example, split here where its file does not."""
    return example.words if hasattr(example, "words") else split_words(example.text)


def example_units(family: Family, examples: Sequence[Any], tokenizer: TextTokenizer) -> list[UnitText]:
    """Tokenises downstream examples, one text each."""
    tokens = tokenizer.encode([example.text for example in examples])
    return [family.units(e.text, words_of(e), t) for e, t in zip(examples, tokens, strict=True)]


def example_features(
    family: Family,
    examples: Sequence[Any],
    encoder: Encoder,
    tokenizer: TextTokenizer,
    deltas: Deltas | None = None,
    *,
    bf16: bool = False,
) -> list[Features]:
    """[units, width] features of each example through one branch."""
    units = example_units(family, examples, tokenizer)
    return branch_features(encoder, [Branch(units, deltas)], bf16=bf16)[0]


def predict(
    family: Family, head: LinearHead, features: Sequence[Features], examples: Sequence[Any], labels: Labels
) -> list[Any]:
    """Predictions as plain data, one for each example."""
    return [
        family.decode(head.probabilities(part), example.text, words_of(example), labels)
        for part, example in zip(features, examples, strict=True)
    ]


def score(
    family: Family, head: LinearHead, features: Sequence[Features], examples: Sequence[Any], labels: Labels
) -> Scores:
    """The family's measures of a head on labelled examples."""
    return family.score(examples, predict(family, head, features, examples, labels))


def main_score(
    family: Family, head: LinearHead, features: Sequence[Features], examples: Sequence[Any], labels: Labels
) -> float:
    """The family's main score alone, from counts: what choices on dev are made by, many times faster than `score`."""
    counts = family.counts(examples, predict(family, head, features, examples, labels))
    return family.score_of_counts(np.sum(counts, axis=0))


def fit(
    family: Family,
    train: tuple[Sequence[Features], Sequence[Any]],
    dev: tuple[Sequence[Features], Sequence[Any]],
    labels: Labels,
    penalties: Sequence[float],
) -> tuple[LinearHead, float, float]:
    """Fits a head on (features, examples) and chooses its penalty by the family's main score on dev.

    Returns:
        The head, the chosen penalty and the dev score.
    """
    features = np.concatenate(list(train[0]))
    targets = np.concatenate([np.asarray(family.unit_targets(example, labels)) for example in train[1]])

    def dev_score(head: LinearHead) -> float:
        return main_score(family, head, dev[0], dev[1], labels)

    return best_head(features, targets, len(labels), penalties, dev_score)
