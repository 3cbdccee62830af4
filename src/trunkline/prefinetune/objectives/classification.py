"""Text classification is pre-finetuned on text pairs with InfoNCE."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from trunkline.config import FamilySection
from trunkline.prefinetune.losses.text_pair import LearnedTemperature, info_nce, reciprocal_ranks
from trunkline.prefinetune.mixture import Source
from trunkline.prefinetune.objectives.base import TextEmbedder
from trunkline.text.examples import Example, PairExample, TextExample
from trunkline.text.packing import UnitText, text_unit
from trunkline.text.tokens import TextTokenizer


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


class PairFamily:
    """See `trunkline.prefinetune.objectives.base.PrefinetuneFamily`."""

    name = "classification"

    def unit_texts(self, examples: Sequence[PairExample | TextExample], tokenizer: TextTokenizer) -> list[UnitText]:
        """Both texts of each pair, or the one text."""
        texts = [text for e in examples for text in ((e.left, e.right) if isinstance(e, PairExample) else (e.text,))]
        return [text_unit(tokens) for tokens in tokenizer.encode(texts)]

    def objective(self, recipe: FamilySection, sources: Sequence[Source], embed: TextEmbedder, seed: int) -> nn.Module:
        """InfoNCE at the recipe's temperature."""
        return TextPairObjective(
            recipe.temperature, learn_temperature=recipe.learn_temperature, hardness=recipe.hardness
        )
