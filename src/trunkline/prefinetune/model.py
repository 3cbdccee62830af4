"""What pre-finetuning trains: the backbone, each family's primary adapter and each family's objective."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from trunkline.config import PrefinetuneRecipe
from trunkline.data.batching import UnitText, pack
from trunkline.data.mixture import Mixture, Source
from trunkline.data.tokenize import TextTokenizer
from trunkline.errors import TrunklineError
from trunkline.families import get_family
from trunkline.model.batch import TokenBatch
from trunkline.model.encoder import Encoder
from trunkline.model.lora import LoraAdapter, lora_config


@dataclass(frozen=True, slots=True)
class StepBatch:
    """One family's part of a step."""

    tokens: TokenBatch
    targets: Any
    drawn: Sequence[tuple[int, Any]]


class PrefinetuneModel(nn.Module):
    """Backbone, primary adapters and objectives; a family's batch goes through its own adapter and objective only.

    Strategies differ in `adapters` alone: with one for each family this is task-primary LoRA (MTPF-TPL, arXiv
    2510.07566), with none it is naive joint training, or individual training where there is one family.
    """

    def __init__(self, encoder: Encoder, adapters: dict[str, LoraAdapter], objectives: dict[str, nn.Module]) -> None:
        super().__init__()
        self.encoder = encoder
        self.adapters = nn.ModuleDict(adapters)
        self.objectives = nn.ModuleDict(objectives)

    def adapter(self, family: str) -> LoraAdapter | None:
        """The family's primary adapter, if the strategy has one."""
        found = self.adapters[family] if family in self.adapters else None  # noqa: SIM401 (ModuleDict has no get)
        return found if isinstance(found, LoraAdapter) else None

    def features(self, family: str, tokens: TokenBatch) -> Tensor:
        """[units, width] features of a batch through the family's branch."""
        return tokens.pool(self.encoder(tokens, self.adapter(family)))

    def forward(self, family: str, batch: StepBatch) -> Tensor:
        """The family's loss of a batch."""
        loss: Tensor = self.objectives[family](self.features(family, batch.tokens), batch.targets)
        return loss


def primary_adapters(recipe: PrefinetuneRecipe, encoder: Encoder) -> dict[str, LoraAdapter]:
    """The adapters that the recipe's strategy trains beside the backbone."""
    if recipe.strategy != "task-primary":
        return {}
    config = lora_config(recipe.adapter, encoder.config, encoder.fork)
    return {family: LoraAdapter(config, encoder.config) for family in recipe.families}


def draw_batch(
    family: str,
    mixture: Mixture,
    objective: Any,
    tokenizer: TextTokenizer,
    *,
    step: int,
    budget: int,
    pad_id: int,
    device: torch.device | str,
) -> StepBatch:
    """Draws examples until their tokens reach the budget, and packs them."""
    drawn: list[tuple[int, Any]] = []
    units: list[UnitText] = []
    size = 0
    stream = mixture.draw(step)
    while size < budget:
        number, index = next(stream)
        source = mixture.sources[number]
        example = source.train[index]
        cached = source.units
        texts = cached[index] if cached is not None else get_family(family).unit_texts([example], tokenizer)
        drawn.append((number, example))
        units.extend(texts)
        size += sum(text.size for text in texts)
    tokens = TokenBatch.from_packed(pack(units, pad_id), device)
    return StepBatch(tokens, to_device(objective.targets(drawn, step), device), drawn)


def to_device(targets: Any, device: torch.device | str) -> Any:
    """Moves a tensor, or a slotted dataclass of tensors, to a device."""
    if isinstance(targets, Tensor):
        return targets.to(device)
    return type(targets)(*(to_device(getattr(targets, name), device) for name in targets.__slots__))


def check_families(recipe: PrefinetuneRecipe, sources: dict[str, list[Source]]) -> None:
    """Raises unless every family has data and NER has concepts."""
    for family in recipe.families:
        if not sources.get(family):
            raise TrunklineError(f"family {family} has no source", todo="Name one under `sources`")
    if "ner" in sources and not any(source.concepts for source in sources["ner"]):
        raise TrunklineError("the NER sources have no entity", expected="labelled spans", todo="Choose other sources")
