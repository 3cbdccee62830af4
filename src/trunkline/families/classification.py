"""Text classification: a text is one unit; pre-finetuned on text pairs with InfoNCE."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from trunkline.config import FamilySection
from trunkline.data.batching import UnitText, text_unit
from trunkline.data.examples import Example, PairExample, TextExample
from trunkline.data.mixture import Source
from trunkline.data.tokenize import TextTokenizer, Tokens
from trunkline.decoding.ranked import decode_ranked
from trunkline.families.base import FloatArray, Labels, Scores, TextEmbedder, Transitions, WordedText
from trunkline.objectives.text_pair import LearnedTemperature, info_nce, reciprocal_ranks


@dataclass(frozen=True, slots=True)
class PairTargets:
    """[pairs] indices of the pairs of a batch that are used, and the group of each."""

    kept: Tensor
    groups: Tensor


class TextPairObjective(nn.Module):
    """Symmetric InfoNCE; units 2i and 2i + 1 are the two texts of pair i.

    Args:
        temperature: Divides the cosines.
        learn_temperature: Whether `temperature` is only where it starts.
        hardness: How much more the hardest negatives count in training, see `info_nce`; held-out losses are without.
    """

    def __init__(self, temperature: float, *, learn_temperature: bool = False, hardness: float = 0.0) -> None:
        super().__init__()
        self.temperature = temperature
        self.learned = LearnedTemperature(temperature) if learn_temperature else None
        self.hardness = hardness

    def forward(self, features: Tensor, targets: PairTargets) -> Tensor:
        """The loss of [2 * pairs, width] features over the pairs that `targets` keeps."""
        left, right = features[0::2][targets.kept], features[1::2][targets.kept]
        temperature = self.temperature if self.learned is None else self.learned()
        return info_nce(left, right, temperature, targets.groups, self.hardness if self.training else 0.0)

    def targets(self, drawn: Sequence[tuple[int, Example]], step: int) -> PairTargets:
        """The pairs to use: a text that occurs twice in a batch would be its own negative."""
        seen: set[str] = set()
        kept: list[int] = []
        groups: dict[tuple[int, str] | int, int] = {}
        numbers: list[int] = []
        for index, (source, pair) in enumerate(drawn):
            if not isinstance(pair, PairExample):
                raise TypeError(f"classification is pre-finetuned on pairs, not {type(pair).__name__}")
            if pair.left not in seen and pair.right not in seen:
                kept.append(index)
                numbers.append(groups.setdefault((source, pair.group) if pair.group else index, len(groups)))
            seen |= {pair.left, pair.right}
        return PairTargets(torch.tensor(kept, dtype=torch.long), torch.tensor(numbers, dtype=torch.long))

    def measure(self, features: Tensor, targets: PairTargets) -> tuple[str, Tensor]:
        """Mean reciprocal rank of each left text's partner among the held-out right texts."""
        return "mrr", reciprocal_ranks(features[0::2][targets.kept], features[1::2][targets.kept])


class Classification:
    """See `trunkline.families.base.Family`."""

    name = "classification"
    main_score = "accuracy"

    def unit_texts(self, examples: Sequence[PairExample | TextExample], tokenizer: TextTokenizer) -> list[UnitText]:
        """Both texts of each pair, or the one text."""
        texts = [text for e in examples for text in ((e.left, e.right) if isinstance(e, PairExample) else (e.text,))]
        return [text_unit(tokens) for tokens in tokenizer.encode(texts)]

    def objective(self, recipe: FamilySection, sources: Sequence[Source], embed: TextEmbedder, seed: int) -> nn.Module:
        """InfoNCE at the recipe's temperature."""
        return TextPairObjective(
            recipe.temperature, learn_temperature=recipe.learn_temperature, hardness=recipe.hardness
        )

    def units(self, text: str, words: Sequence[tuple[int, int]], tokens: Tokens) -> UnitText:
        """The text as one unit."""
        return text_unit(tokens)

    def labels(self, examples: Sequence[TextExample]) -> Labels:
        """The distinct labels, sorted."""
        return tuple(sorted({example.label for example in examples}))

    def classes(self, example: TextExample) -> set[str]:
        """The label."""
        return {example.label}

    def unit_targets(self, example: TextExample, labels: Labels) -> list[int]:
        """The label's index, -1 if the head does not have it."""
        return [labels.index(example.label) if example.label in labels else -1]

    def transitions(self, targets: Sequence[Sequence[int]], labels: Labels) -> None:
        """None: a text is one unit."""

    def decode(
        self,
        probabilities: Sequence[FloatArray],
        texts: Sequence[WordedText],
        labels: Labels,
        transitions: Transitions = None,
    ) -> list[dict[str, Any]]:
        """The most probable label, its score, and the probability of every label, most probable first."""
        return decode_ranked(probabilities, texts, labels)

    def score(self, gold: Sequence[TextExample], predicted: Sequence[dict[str, Any]]) -> Scores:
        """Accuracy, and F1 averaged over the classes of the gold labels."""
        from sklearn.metrics import accuracy_score, f1_score

        truth = [example.label for example in gold]
        guess = [prediction["label"] for prediction in predicted]
        macro = f1_score(truth, guess, labels=sorted(set(truth)), average="macro", zero_division=0)
        return {"accuracy": float(accuracy_score(truth, guess)), "macro_f1": float(macro)}

    def counts(self, gold: Sequence[TextExample], predicted: Sequence[dict[str, Any]]) -> list[list[int]]:
        """[hit, 1] for each text."""
        return [[int(g.label == p["label"]), 1] for g, p in zip(gold, predicted, strict=True)]

    def score_of_counts(self, total: FloatArray) -> float:
        """Accuracy."""
        return float(total[0] / max(total[1], 1))
