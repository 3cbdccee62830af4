"""What pre-finetuning trains: the backbone, each family's primary adapter and each family's objective.

GradCache gives the exact gradient of a loss over a large batch, with the graph of one chunk in memory at a time (Gao,
Zhang, Han, Callan 2021, arXiv 2101.06983, section 3.2). It costs one more forward pass without a graph.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

import torch
from torch import Tensor, nn

from trunkline.config import FamilySection
from trunkline.encoder.encoder import Encoder, TokenBatch
from trunkline.encoder.lora import LoraAdapter
from trunkline.errors import TrainingError
from trunkline.prefinetune.mixture import Mixture
from trunkline.text.tokens import TextTokenizer, UnitText, pack
from trunkline.training.checkpoint import random_state
from trunkline.training.distributed import Place, gather_units, shares

Chunk = TypeVar("Chunk")

SHARED = "shared"
"""Key of the one adapter of the strategy single-adapter."""

REPEAT_TOLERANCE = 1e-2
"""Greatest relative difference of a chunk's two encodings: kernels may round otherwise, other dropout masks differ."""


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


def cached_losses(
    chunks: Sequence[Chunk],
    encode: Callable[[Chunk], Tensor],
    loss: Callable[[Tensor], Tensor],
    own: Iterable[Tensor] = (),
) -> Iterator[Tensor]:
    """Yields the loss of a batch as one scalar for each chunk, to be back-propagated one after the other.

    Every chunk is encoded without a graph, the gradient of the loss is taken with respect to the embeddings, and each
    chunk is encoded once more, with a graph and the same random numbers, for its share of the gradient. The gradients
    of the shares, each times the same factor, add up to that factor times the gradient of the loss, their values to it.

    Args:
        chunks: The parts of a batch, in the order of their units.
        encode: A chunk's embeddings, [units, width]; called twice for each chunk.
        loss: A scalar from the embeddings of all chunks, [units of the batch, width]; called once.
        own: Parameters that the loss may use besides the embeddings; they get their gradient with the first share.

    Raises:
        TrainingError: There are no chunks, or the second encoding of a chunk is not the first.
    """
    if not chunks:
        raise TrainingError("a batch without chunks", expected="at least one")
    states, parts = [], []
    with torch.no_grad():
        for chunk in chunks:
            states.append(random_state())
            parts.append(encode(chunk).detach())
    sizes = [len(part) for part in parts]
    embeddings = torch.cat(parts).requires_grad_()
    del parts
    with torch.enable_grad():
        value = loss(embeddings)
    parameters = [parameter for parameter in own if parameter.requires_grad]
    inputs = [embeddings, *parameters]
    found = torch.autograd.grad(value, inputs, allow_unused=True) if value.requires_grad else [None] * len(inputs)
    gradient = torch.zeros_like(embeddings) if found[0] is None else found[0]
    share = value.detach() / len(chunks)
    before = embeddings.detach().split(sizes)
    for number, (chunk, wanted) in enumerate(zip(chunks, gradient.split(sizes), strict=True)):
        again = _encode_again(encode, chunk, states[number])
        _check_repeated(before[number], again)
        surrogate = (again * wanted).sum()
        if number == 0:
            pairs = zip(parameters, found[1:], strict=True)
            surrogate = surrogate + sum((parameter * part).sum() for parameter, part in pairs if part is not None)
        del again
        # Only the gradient of the surrogate means something; its value is replaced by a share of the loss.
        yield surrogate - surrogate.detach() + share


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


def _encode_again(encode: Callable[[Chunk], Tensor], chunk: Chunk, state: dict[str, Tensor]) -> Tensor:
    """Encodes with a graph and with earlier random numbers; the generators go on from where they were."""
    devices = [torch.cuda.current_device()] if "cuda" in state else []
    with torch.random.fork_rng(devices), torch.enable_grad():
        torch.set_rng_state(state["cpu"])
        if devices:
            torch.cuda.set_rng_state(state["cuda"])
        return encode(chunk)


def _check_repeated(before: Tensor, again: Tensor) -> None:
    difference = float((again.detach() - before).norm())
    # A difference that is not a number comes from embeddings that are not finite, which the loss shows.
    if difference > REPEAT_TOLERANCE * float(before.norm()):
        raise TrainingError(
            f"a chunk's second encoding differs from its first by {difference:.3g}",
            expected="the same embeddings twice, else the gradient is wrong",
            todo="Let the encoder draw random numbers from torch's generators only, or leave out chunk_tokens",
        )
