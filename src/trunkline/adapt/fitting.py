"""Fitting and scoring a head of any family on frozen features."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from trunkline.encoder.encoder import Encoder
from trunkline.encoder.features import Branch, Features, branch_features
from trunkline.encoder.lora import Deltas
from trunkline.heads.linear import LinearHead, best_head
from trunkline.tasks.base import Family, Labels, Scored, Scores, Transitions
from trunkline.text.packing import UnitText
from trunkline.text.tokens import TextTokenizer
from trunkline.text.words import split_words

WEIGHTS = (0.0, 0.5, 0.75, 1.0)
"""Of transitions; 1 would be right if features told nothing of a word's neighbours."""


def words_of(example: Any) -> Sequence[tuple[int, int]]:
    """The words of an example, as prediction splits them."""
    return split_words(example.text)


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
    texts = [(example.text, words_of(example)) for example in examples]
    return family.decode([Scored([head.probabilities(part) for part in features], texts, labels, head.transitions)])[0]


def score(
    family: Family, head: LinearHead, features: Sequence[Features], examples: Sequence[Any], labels: Labels
) -> Scores:
    """The family's measures of a head on labelled examples."""
    return family.score(examples, predict(family, head, features, examples, labels))


def with_transitions(
    family: Family,
    head: LinearHead,
    learned: Transitions,
    dev: tuple[Sequence[Features], Sequence[Any]],
    labels: Labels,
) -> tuple[LinearHead, float]:
    """Gives a head the transitions, weighted as is best for the family's main score on dev; lower weights win ties.

    Args:
        family: What the labels are of.
        head: What it has for transitions does not count.
        learned: What `Family.transitions` made of the training targets.
        dev: Features and examples.
        labels: The head's.

    Returns:
        The head and its dev score.
    """
    features, examples = dev
    texts = [(example.text, words_of(example)) for example in examples]
    probabilities = [head.probabilities(part) for part in features]
    found = []
    for weight in WEIGHTS if learned is not None else (0.0,):
        transitions = learned * np.float32(weight) if learned is not None and weight else None
        counts = family.counts(examples, family.decode([Scored(probabilities, texts, labels, transitions)])[0])
        found.append((replace(head, transitions=transitions), family.score_of_counts(np.sum(counts, axis=0))))
    return max(found, key=lambda item: item[1])


def fit(
    family: Family,
    train: tuple[Sequence[Features], Sequence[Any]],
    dev: tuple[Sequence[Features], Sequence[Any]],
    labels: Labels,
    penalties: Sequence[float],
) -> tuple[LinearHead, float, float]:
    """Fits a head on (features, examples); its penalty and transitions are chosen by the main score on dev.

    Returns:
        The head, the chosen penalty and the dev score.
    """
    rows = [family.unit_targets(example, labels, words_of(example)) for example in train[1]]
    learned = family.transitions(rows, labels)
    features, targets = np.concatenate(list(train[0])), np.concatenate([np.asarray(row, np.int64) for row in rows])

    def finish(head: LinearHead) -> tuple[LinearHead, float]:
        return with_transitions(family, head, learned, dev, labels)

    return best_head(features, targets, len(labels), penalties, finish)
