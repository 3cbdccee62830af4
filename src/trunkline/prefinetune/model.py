"""What pre-finetuning trains: the backbone, each family's primary adapter and each family's objective.

GradCache gives the exact gradient of a loss over a large batch, with the graph of one chunk in memory at a time (Gao,
Zhang, Han, Callan 2021, arXiv 2101.06983, section 3.2). It costs one more forward pass without a graph.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from trunkline.config import FamilySection
from trunkline.encoder.encoder import Encoder, TokenBatch
from trunkline.encoder.lora import LoraAdapter
from trunkline.prefinetune.mixture import Mixture
from trunkline.text.tokens import TextTokenizer, UnitText, pack
from trunkline.training.loop import Place, gather_units, shares

Chunk = TypeVar("Chunk")

SHARED = "shared"
"""Key of the one adapter of the strategy single-adapter."""


@dataclass(frozen=True, slots=True)
class StepBatch:
    """One family's part of a step: the texts, packed, in several chunks where they are too many for one pass.

    `targets` are what the family's objective made of the examples, `drawn` (number of the source, index into what it
    trains on), `counts` the units that each process encodes; `chunks` are of this process, `targets` of all.
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
    training, or individual training where there is one family. Adapters are by family, or one is under `SHARED`.
    """

    def __init__(self, encoder: Encoder, adapters: dict[str, LoraAdapter], objectives: dict[str, nn.Module]) -> None:
        super().__init__()
        self.encoder = encoder
        self.adapters, self.objectives = nn.ModuleDict(adapters), nn.ModuleDict(objectives)

    def adapter(self, family: str) -> LoraAdapter | None:
        """The adapter that the family's batches go through, if the strategy has one."""
        adapters: dict[str, Any] = dict(self.adapters.items())
        return adapters.get(family, adapters.get(SHARED))

    def features(self, family: str, tokens: TokenBatch) -> Tensor:
        """[units, width] features of a batch through the family's branch."""
        return tokens.pool(self.encoder(tokens, self.adapter(family)))

    def forward(self, family: str, batch: StepBatch) -> Tensor:
        """The family's loss of a batch."""
        features = embed_chunks(batch.chunks, lambda tokens: self.features(family, tokens))
        # In bf16 the cosines of InfoNCE are too coarse at small temperatures, and this part costs next to nothing.
        with torch.autocast(features.device.type, enabled=False):
            features = gather_units(features, batch.counts)
            loss: Tensor = self.objectives[family](features, batch.targets)
            return loss


def embed_chunks(chunks: Sequence[Chunk], encode: Callable[[Chunk], Tensor]) -> Tensor:
    """[units of the batch, width] embeddings of a batch's chunks, with the graph of one chunk in memory at a time.

    Of several chunks only the embeddings are kept. In the backward pass each chunk is encoded once more, with the same
    random numbers, for its share of the gradient, which is exact whatever the loss does with all embeddings.
    """
    if len(chunks) == 1:
        return encode(chunks[0])
    return torch.cat([checkpoint(encode, chunk, use_reentrant=False) for chunk in chunks])


def draw_batch(
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
    units: list[UnitText] = []
    size, stream = 0, mixture.draw(step)
    while size < section.tokens:
        number, index = next(stream)
        source = mixture.sources[number]
        stored = source.units
        texts = objective.unit_texts([source.train[index]], tokenizer) if stored is None else stored[index]
        drawn.append((number, index))
        units.extend(texts)
        size += sum(text.size for text in texts)
    examples = [(number, mixture.sources[number].train[index]) for number, index in drawn]
    units, targets = objective.prepare(units, examples, step)
    parts = shares([text.size for text in units], place.processes)
    own = units[parts[place.rank]]
    slices = chunk_slices([text.size for text in own], section.chunk_tokens or size)
    chunks = tuple(TokenBatch.from_packed(pack(own[part], pad_id), place.device) for part in slices)
    counts = tuple(sum(text.n_units for text in units[part]) for part in parts)
    return StepBatch(chunks, to_device(targets, place.device), drawn, counts=counts)


def to_device(targets: Any, device: torch.device | str) -> Any:
    """Moves a tensor, or a slotted dataclass of tensors, to a device."""
    if isinstance(targets, Tensor):
        return targets.to(device)
    return type(targets)(*(to_device(getattr(targets, name), device) for name in targets.__slots__))


def chunk_slices(sizes: Sequence[int], budget: int) -> list[slice]:
    """Cuts texts of these sizes into runs of neighbours of at most `budget` tokens, at least one text each."""
    slices: list[slice] = []
    first, total = 0, 0
    for number, size in enumerate(sizes):
        if number > first and total + size > budget:
            slices.append(slice(first, number))
            first, total = number, 0
        total += size
    return [*slices, slice(first, len(sizes))] if len(sizes) else []
