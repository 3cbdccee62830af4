"""What pre-finetuning trains and draws: backbone, primary adapters and objectives; batches of weighted sources.

What is drawn depends only on the seed and the step, so that runs can resume.

GradCache gives the exact gradient of a loss over a large batch, with the graph of one chunk in memory at a time (Gao,
Zhang, Han, Callan 2021, arXiv 2101.06983, section 3.2). It costs one more forward pass without a graph.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from accelerate.utils import send_to_device
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from trunkline.config import FamilySection
from trunkline.encoder.encoder import Encoder, TokenBatch
from trunkline.encoder.lora import LoraAdapter
from trunkline.text.examples import Example
from trunkline.text.tokens import IntArray, TextTokenizer, UnitText, pack
from trunkline.training.loop import Place, gather_units, shares

SHARED = "shared"
"""Key of the one adapter of the strategy single-adapter."""

OFTEN = 100
"""Times that each example of a source is drawn above which it is told of."""


@dataclass(frozen=True)
class Source:
    """One pre-finetuning data set, loaded, by its card's name; nothing trains on `held_out`, which are the monitor's.

    `concepts` has for each label of entities the text for the concept encoder, and `closed` says whether an unlabelled
    word is known to belong to none of them. `weight` is how often it is drawn, relative to the other sources of its
    family. `units` gives the tokenised texts of an example of `train`, if they are at hand. `facts` are what is
    reported of it: `title`, `home`, `licence`, `coverage`, hashes, and what decontamination did.
    """

    name: str
    train: Sequence[Example]
    held_out: Sequence[Example]
    concepts: Mapping[str, str] = field(default_factory=dict)
    closed: bool = True
    weight: float = 1.0
    units: Callable[[int], list[UnitText]] | None = None
    facts: Mapping[str, Any] = field(default_factory=dict)


def split_source(count: int, held_out: int, cap: int | None, seed: int) -> tuple[IntArray, IntArray]:
    """Indices to train on, at most `cap`, and `held_out` (at most a tenth) that are set aside, by the seed."""
    order = np.random.default_rng([seed, count]).permutation(count)
    aside = min(held_out, int(count * 0.1))
    return order[aside:] if cap is None else order[aside : aside + cap], order[:aside]


class Mixture:
    """Draws the examples of one family, step by step.

    Every source is walked in a permutation of its own, a new one each epoch. The state is the number of examples
    drawn from each source; which source comes next depends on the seed and the step alone.
    """

    def __init__(self, sources: Sequence[Source], seed: int, *, one_source_a_step: bool = False) -> None:
        self.sources, self.seed, self.one_source_a_step = list(sources), seed, one_source_a_step
        self.drawn = [0] * len(self.sources)
        weights = np.asarray([source.weight for source in self.sources], dtype=np.float64)
        cumulated = np.cumsum(weights / weights.sum())
        self._cumulated = cumulated / cumulated[-1]
        self._orders: dict[int, tuple[int, IntArray]] = {}

    def draw(self, step: int) -> Iterator[tuple[int, int]]:
        """The examples of a step, without end, as (source, index into its `train`). What is taken counts as drawn."""
        rng = np.random.default_rng([self.seed, step])
        source = self._choose(rng)
        while True:
            yield source, self._next(source)
            if not self.one_source_a_step:
                source = self._choose(rng)

    def _choose(self, rng: np.random.Generator) -> int:
        return int(self._cumulated.searchsorted(rng.random(), side="right"))

    def _next(self, source: int) -> int:
        count = len(self.sources[source].train)
        epoch, position = divmod(self.drawn[source], count)
        if self._orders.get(source, (-1,))[0] != epoch:
            self._orders[source] = epoch, np.random.default_rng([self.seed, source, epoch]).permutation(count)
        self.drawn[source] += 1
        return int(self._orders[source][1][position])

    def state(self) -> dict[str, int]:
        """Examples drawn so far, by source."""
        return {source.name: drawn for source, drawn in zip(self.sources, self.drawn, strict=True)}

    def repeats(self, share: float) -> Iterator[str]:
        """What to tell of sources whose examples will be drawn very often; `share` of the run is done."""
        todo = "add data, or lower its weight or the steps"
        for source, drawn in zip(self.sources, self.drawn, strict=True):
            count = len(source.train)
            if (times := drawn / share / count) > OFTEN:
                yield f"the {count} examples of {source.name} will be drawn about {times:,.0f} times each: {todo}"

    def restore(self, state: Mapping[str, int]) -> None:
        """Goes on from a `state` of the same sources."""
        self.drawn = [state[source.name] for source in self.sources]


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


class Objective(nn.Module):
    """A family's loss: called with features [units, width] and targets it gives that of a step.

    Its parameters are thrown away after the run. `kind` is the type of the family's examples, and
    `unit_texts(examples, tokenizer)` gives their texts with their units, in order (one text each; two for a pair).
    `measure(features, targets)` gives the name of a retrieval measure, and one value in [0, 1] for each query.
    """

    kind: type[Any]
    unit_texts: Callable[[Sequence[Any], TextTokenizer], list[UnitText]]
    targets: Callable[[Sequence[tuple[int, Any]], int], Any]
    measure: Callable[[Tensor, Any], tuple[str, Tensor]]

    def prepare(self, units: list[UnitText], drawn: Sequence[tuple[int, Any]], step: int) -> tuple[list[UnitText], Any]:
        """The texts of a step as the encoder gets them, and what the loss needs of (number of the source, example)."""
        return units, self.targets(drawn, step)


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


def embed_chunks(chunks: Sequence[Any], encode: Callable[[Any], Tensor]) -> Tensor:
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
        texts = source.units(index) if source.units else objective.unit_texts([source.train[index]], tokenizer)
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
    return StepBatch(chunks, send_to_device(targets, place.device), drawn, counts=counts)


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
