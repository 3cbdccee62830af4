"""What pre-finetuning trains: the backbone, each family's primary adapter and each family's objective."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from trunkline.config import FamilySection
from trunkline.encoder.encoder import Encoder, TokenBatch
from trunkline.encoder.lora import LoraAdapter
from trunkline.prefinetune.grad_cache import cached_losses, chunk_slices
from trunkline.prefinetune.mixture import Mixture
from trunkline.prefinetune.objectives import get_prefinetune_family
from trunkline.prefinetune.strategies import SHARED
from trunkline.text.tokens import TextTokenizer, UnitText, pack
from trunkline.training.distributed import Place, gather_units, shares


@dataclass(frozen=True, slots=True)
class StepBatch:
    """One family's part of a step.

    Attributes:
        chunks: The texts, packed; several where a batch is too large for one pass (GradCache).
        targets: What the family's objective made of the examples.
        drawn: (number of the source, index into what it trains on).
        counts: Units that each process encodes; `chunks` are this one's, `targets` are of all.
    """

    chunks: tuple[TokenBatch, ...]
    targets: Any
    drawn: Sequence[tuple[int, int]]
    counts: tuple[int, ...] = ()

    @property
    def n_tokens(self) -> int:
        """Real tokens of all chunks."""
        return sum(chunk.n_tokens for chunk in self.chunks)


class PrefinetuneModel(nn.Module):
    """Backbone, primary adapters and objectives; a family's batch goes through its own adapter and objective only.

    With an adapter for each family this is task-primary LoRA (MTPF-TPL, arXiv 2510.07566), with none it is naive joint
    training, or individual training where there is one family.

    Args:
        encoder: The backbone.
        adapters: By family, or one under `SHARED`.
        objectives: By family.
    """

    def __init__(self, encoder: Encoder, adapters: dict[str, LoraAdapter], objectives: dict[str, nn.Module]) -> None:
        super().__init__()
        self.encoder = encoder
        self.adapters, self.objectives = nn.ModuleDict(adapters), nn.ModuleDict(objectives)

    def adapter(self, family: str) -> LoraAdapter | None:
        """The adapter that the family's batches go through, if the strategy has one."""
        key = family if family in self.adapters else SHARED
        found = self.adapters[key] if key in self.adapters else None  # noqa: SIM401 (ModuleDict has no get)
        return found if isinstance(found, LoraAdapter) else None

    def features(self, family: str, tokens: TokenBatch) -> Tensor:
        """[units, width] features of a batch through the family's branch."""
        return tokens.pool(self.encoder(tokens, self.adapter(family)))

    def forward(self, family: str, batch: StepBatch) -> Tensor:
        """The family's loss of a batch of one chunk."""
        return self._loss(family, self.features(family, batch.chunks[0]), batch)

    def losses(self, family: str, batch: StepBatch) -> Iterator[Tensor]:
        """The family's loss in parts whose sum it is, and whose gradients add up to its own; one part a chunk."""
        if len(batch.chunks) == 1:
            yield self(family, batch)
            return
        # Masked-LM training uses the encoder's word embeddings once more, as its output layer.
        own = [*self.objectives[family].parameters(), self.encoder.embeddings.word.weight]
        yield from cached_losses(
            batch.chunks,
            lambda tokens: self.features(family, tokens),
            lambda features: self._loss(family, features, batch),
            own,
        )

    def _loss(self, family: str, features: Tensor, batch: StepBatch) -> Tensor:
        # In bf16 the cosines of InfoNCE are too coarse at small temperatures, and this part costs next to nothing.
        with torch.autocast(features.device.type, enabled=False):
            features = gather_units(features, batch.counts)
            loss: Tensor = self.objectives[family](features, batch.targets)
            return loss


def draw_batch(
    family: str,
    mixture: Mixture,
    objective: Any,
    tokenizer: TextTokenizer,
    *,
    step: int,
    section: FamilySection,
    pad_id: int,
    place: Place,
) -> StepBatch:
    """Draws a step's examples until their tokens reach the family's budget, and packs the share of this process.

    With several processes the budget is that of all together. `tokenizer` is for sources that are not tokenised yet.
    """
    drawn: list[tuple[int, int]] = []
    items: list[tuple[int, Any]] = []
    units: list[UnitText] = []
    size = 0
    stream = mixture.draw(step)
    # Reading an example costs more than its tokens do, so it is left out where the objective can do without.
    without = getattr(objective, "from_units", False)
    while size < section.tokens:
        number, index = next(stream)
        source = mixture.sources[number]
        example = None if without and source.units is not None else source.train[index]
        if source.units is not None:
            texts = source.units[index]
        else:
            texts = get_prefinetune_family(family).unit_texts([example], tokenizer)
        items.append((number, texts[0] if example is None else example))
        drawn.append((number, index))
        units.extend(texts)
        size += sum(text.size for text in texts)
    units, targets = with_targets(objective, items, units, step)
    parts = shares([text.size for text in units], place.processes)
    own = units[parts[place.rank]]
    slices = chunk_slices([text.size for text in own], section.chunk_tokens or size)
    chunks = tuple(TokenBatch.from_packed(pack(own[part], pad_id), place.device) for part in slices)
    counts = tuple(sum(text.n_units for text in units[part]) for part in parts)
    return StepBatch(chunks, to_device(targets, place.device), drawn, counts=counts)


def with_targets(
    objective: Any, items: Sequence[tuple[int, Any]], units: list[UnitText], step: int
) -> tuple[list[UnitText], Any]:
    """The texts as the encoder gets them, which an objective with `masked` alters, and the objective's targets."""
    if hasattr(objective, "masked"):
        altered, targets = objective.masked(units, step)
        return altered, targets
    return units, objective.targets(items, step)


def to_device(targets: Any, device: torch.device | str) -> Any:
    """Moves a tensor, or a slotted dataclass of tensors, to a device."""
    if isinstance(targets, Tensor):
        return targets.to(device)
    return type(targets)(*(to_device(getattr(targets, name), device) for name in targets.__slots__))
