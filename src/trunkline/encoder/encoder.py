"""The encoder with its fork: layers below it are the trunk, shared by every task; layers from it up are the branches.

One implementation serves all architectures of `architectures.py`; tests hold it equal to Hugging Face's own.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from trunkline.bundle.manifest import LINEARS, LORA_TARGETS
from trunkline.encoder.architectures import EncoderConfig
from trunkline.encoder.lora import Delta, Deltas, linear_shape
from trunkline.errors import MismatchError
from trunkline.text.tokens import ROW_WIDTH, Packed, TextTokenizer, UnitText, by_budget, pack, text_unit

_ACTIVATIONS = {
    "gelu": F.gelu,
    "gelu_new": lambda x: F.gelu(x, approximate="tanh"),
    "gelu_pytorch_tanh": lambda x: F.gelu(x, approximate="tanh"),
    "relu": F.relu,
    "silu": F.silu,
}


@dataclass(frozen=True, slots=True)
class TokenBatch:
    """Rows of tokens. Several texts may share a row: a token attends only to tokens of its own segment.

    [rows, width] are the ids, the positions inside the own segment, from 0, and the segments' numbers, -1 for padding;
    [pairs] the flat index (row * width + column) of a token that belongs to a unit, and the unit that it belongs to.
    """

    input_ids: Tensor
    positions: Tensor
    segments: Tensor
    unit_tokens: Tensor
    unit_ids: Tensor
    n_units: int

    @classmethod
    def from_packed(cls, packed: Packed, device: torch.device | str = "cpu") -> TokenBatch:
        """Moves the arrays of `trunkline.text.tokens.pack` to a device."""
        names = ("input_ids", "positions", "segments", "unit_tokens", "unit_ids")
        arrays = {name: torch.as_tensor(getattr(packed, name), dtype=torch.long) for name in names}
        moved = {name: array.to(device, non_blocking=True) for name, array in arrays.items()}
        return cls(n_units=packed.n_units, **moved)

    @property
    def n_tokens(self) -> int:
        """Tokens without padding."""
        return int((self.segments >= 0).sum())

    def attention_mask(self) -> Tensor:
        """[rows, 1, width, width], true where a token may attend. Padding attends to padding, which keeps it finite."""
        return (self.segments[:, :, None] == self.segments[:, None, :])[:, None]

    def pool(self, hidden: Tensor) -> Tensor:
        """Mean of the token states of each unit, [rows, width, hidden] -> [units, hidden] in float32."""
        flat = hidden.reshape(-1, hidden.shape[-1]).float()
        sums = flat.new_zeros(self.n_units, flat.shape[-1])
        sums.index_add_(0, self.unit_ids, flat[self.unit_tokens])
        counts = torch.bincount(self.unit_ids, minlength=self.n_units).clamp_(min=1)
        return sums / counts[:, None]


class Embeddings(nn.Module):
    """Word, position and (where the architecture has them) segment-kind embeddings, normalised."""

    def __init__(self, config: EncoderConfig) -> None:
        super().__init__()
        size = config.embedding_size
        self.position_offset = config.position_offset
        self.word = nn.Embedding(config.vocab_size, size)
        self.position = nn.Embedding(config.max_positions, size)
        self.kind = nn.Embedding(config.type_vocab_size, size) if config.type_vocab_size else None
        self.norm = nn.LayerNorm(size, eps=config.norm_eps)
        self.project = nn.Linear(size, config.hidden_size) if size != config.hidden_size else None

    def forward(self, batch: TokenBatch) -> Tensor:
        """[rows, width] ids -> [rows, width, hidden]."""
        x = self.word(batch.input_ids) + self.position(batch.positions + self.position_offset)
        if self.kind is not None:
            x = x + self.kind.weight[0]
        x = self.norm(x)
        return x if self.project is None else self.project(x)


class Layer(nn.Module):
    """A post-norm transformer layer; `deltas` are the low-rank updates of its linear layers."""

    def __init__(self, config: EncoderConfig) -> None:
        super().__init__()
        self.n_heads = config.n_heads
        self.activation = _ACTIVATIONS[config.activation]
        for name in LINEARS:
            outputs, inputs = linear_shape(config, name)
            setattr(self, name, nn.Linear(inputs, outputs))
        self.attention_norm = nn.LayerNorm(config.hidden_size, eps=config.norm_eps)
        self.output_norm = nn.LayerNorm(config.hidden_size, eps=config.norm_eps)

    def forward(self, x: Tensor, mask: Tensor, deltas: Mapping[str, Delta], eager: bool, dropout: float) -> Tensor:
        """[rows, width, hidden] -> [rows, width, hidden]."""

        def linear(name: str, value: Tensor) -> Tensor:
            result = getattr(self, name)(value)
            return deltas[name](value, result) if name in deltas else result

        parts = self._projections(as_computed(x), deltas)
        query, key, value = (part.unflatten(-1, (self.n_heads, -1)).transpose(1, 2) for part in parts)
        attend = eager_attention if eager else F.scaled_dot_product_attention
        context = attend(query, key, value, attn_mask=mask).transpose(1, 2).flatten(2)
        x = self.attention_norm(x + F.dropout(linear("out", context), dropout, self.training))
        inner = self.activation(linear("up", as_computed(x)))
        return self.output_norm(x + F.dropout(linear("down", inner), dropout, self.training))

    def _projections(self, x: Tensor, deltas: Mapping[str, Delta]) -> list[Tensor]:
        """Query, key and value by one product, which reads and casts the states once instead of three times."""
        names = LORA_TARGETS["qkv"]
        layers = [getattr(self, name) for name in names]
        weight, bias = (torch.cat([getattr(layer, part) for layer in layers]) for part in ("weight", "bias"))
        parts = F.linear(x, weight, bias).chunk(3, -1)
        return [deltas[name](x, part) if name in deltas else part for name, part in zip(names, parts, strict=True)]


def as_computed(x: Tensor) -> Tensor:
    """`x` in the type that autocast computes products in; cast here, several products share one cast."""
    kind = x.device.type
    return x.to(torch.get_autocast_dtype(kind)) if torch.is_autocast_enabled(kind) else x


def eager_attention(query: Tensor, key: Tensor, value: Tensor, attn_mask: Tensor) -> Tensor:
    """Attention written out, whose backward pass in bf16 on CPUs is faster than that of the fused kernel.

    All [rows, heads, width, size]; `attn_mask` [rows, 1, width, width] is added.
    """
    # Scaled where it is small; the mask is added in place, as no gradient needs the scores before it.
    scores = (query * query.shape[-1] ** -0.5) @ key.transpose(-1, -2)
    return scores.add_(attn_mask).softmax(-1) @ value


class Encoder(nn.Module):
    """A BERT-like encoder with `fork` layers in the trunk, 0 to all; adapters sit only at or above it.

    `attention` is `sdpa` or `eager`; `auto` takes eager for gradients where autocast runs in bf16 on a CPU. `dropout`
    is the rate on the outputs of attention and feed-forward blocks in training.
    """

    def __init__(self, config: EncoderConfig, fork: int = 0) -> None:
        super().__init__()
        if not 0 <= fork <= config.n_layers:
            raise MismatchError(f"fork at layer {fork}", expected=f"0 to {config.n_layers}, the number of layers")
        self.config = config
        self.fork = fork
        self.attention = "auto"
        self.dropout = 0.0
        self.embeddings = Embeddings(config)
        self.layers = nn.ModuleList(Layer(config) for _ in range(config.n_layers))
        self.apply(_initialise)

    def batch(self, units: Sequence[UnitText]) -> TokenBatch:
        """Texts packed into rows, where the encoder's weights are."""
        return TokenBatch.from_packed(pack(units, self.config.pad_id, ROW_WIDTH), self.embeddings.word.weight.device)

    def forward(self, batch: TokenBatch, deltas: Deltas | None = None) -> Tensor:
        """The states of the last layer, [rows, width, hidden], through one adapter, a bank, or none."""
        return self.branch(self.trunk(batch), batch, deltas)

    def trunk(self, batch: TokenBatch) -> Tensor:
        """The states at the fork, [rows, width, hidden]: the same for every task."""
        hidden = F.dropout(self.embeddings(batch), self.dropout, self.training)
        return self._run(hidden, batch, None, range(self.fork))

    def branch(self, hidden: Tensor, batch: TokenBatch, deltas: Deltas | None = None) -> Tensor:
        """The states of the last layer from those at the fork, [rows, width, hidden].

        Raises MismatchError for an adapter with updates for layers of the trunk, which would be left out.
        """
        return self._run(hidden, batch, deltas, self._above(deltas))

    def read(self, hidden: Tensor, batch: TokenBatch, deltas: Deltas | None = None) -> Tensor:
        """What heads read, [rows, width, hidden]: the mean of the outputs of the branch's layers.

        With the fork above the last layer that is `hidden`, the states at the fork. Errors as for `branch`.
        """
        layers = self._above(deltas)
        return self._run(hidden, batch, deltas, layers, mean=True) if layers else hidden

    def _above(self, deltas: Deltas | None) -> range:
        """The layers of the branch, after a check that the adapter has updates for no others."""
        below = [index for index in range(self.fork) if deltas is not None and deltas(index)]
        if below:
            raise MismatchError(
                f"an adapter with updates for layers {below}",
                expected=f"layers from the fork at {self.fork} up",
                todo="Load the encoder with a lower fork",
            )
        return range(self.fork, self.config.n_layers)

    def _run(
        self, hidden: Tensor, batch: TokenBatch, deltas: Deltas | None, layers: range, mean: bool = False
    ) -> Tensor:
        """The states of the last of these layers, or with `mean` the mean of what all of them give."""
        on_cpu = hidden.device.type == "cpu" and torch.is_autocast_enabled("cpu")
        dtype = torch.get_autocast_dtype("cpu") if on_cpu else hidden.dtype
        trains = torch.is_grad_enabled() and on_cpu and dtype == torch.bfloat16
        eager = self.attention == "eager" or (self.attention == "auto" and trains)
        mask = batch.attention_mask()
        if eager:
            mask = torch.zeros(mask.shape, dtype=dtype, device=mask.device).masked_fill_(~mask, -1e4)
        total: Tensor | None = None
        for index in layers:
            updates = {} if deltas is None else deltas(index)
            hidden = self.layers[index](hidden, mask, updates, eager, self.dropout)
            if mean:
                total = hidden if total is None else total + hidden
        return hidden if total is None else total * (1 / len(layers))


def _initialise(module: nn.Module) -> None:
    if isinstance(module, nn.Linear | nn.Embedding):
        nn.init.normal_(module.weight, std=0.02)
    if isinstance(module, nn.Linear):
        nn.init.zeros_(module.bias)


Features = npt.NDArray[np.float32]


@dataclass(frozen=True, slots=True)
class FeatureRequest:
    """A request: features of these units through these low-rank updates (or none)."""

    units: Sequence[UnitText]
    deltas: Deltas | None = None


MOST_STATES = 2**27
"""Numbers that `TrunkStates` may keep: half a gigabyte in float32."""


class TrunkStates:
    """What a frozen trunk makes of texts, computed once, so that training adapters above it runs branches alone."""

    def __init__(self, states: Sequence[Tensor]) -> None:
        self._states = states

    @classmethod
    @torch.no_grad()
    def of(cls, encoder: Encoder, units: Sequence[UnitText], *, bf16: bool, budget: int = 4096) -> TrunkStates | None:
        """The states at the fork of all texts, or none where that would be more than `MOST_STATES` numbers."""
        if sum(unit.size for unit in units) * encoder.config.hidden_size > MOST_STATES:
            return None
        states = [torch.empty(0)] * len(units)
        for chosen in by_budget(units, budget):
            batch = encoder.batch([units[i] for i in chosen])
            with torch.autocast(batch.input_ids.device.type, dtype=torch.bfloat16, enabled=bf16):
                parts = encoder.trunk(batch).flatten(0, 1)[_places(batch)].split([units[i].size for i in chosen])
            for index, part in zip(chosen, parts, strict=True):
                states[index] = part.clone()
        return cls(states)

    def rows(self, batch: TokenBatch, chosen: Sequence[int]) -> Tensor:
        """[rows, width, hidden] states of a batch packed from these texts in this order; zeros in its padding."""
        states = torch.cat([self._states[i] for i in chosen])
        flat = states.new_zeros(batch.input_ids.numel(), states.shape[-1])
        flat[_places(batch)] = states
        return flat.view(*batch.input_ids.shape, -1)


def _places(batch: TokenBatch) -> Tensor:
    """[tokens] flat indices of a batch's tokens, text by text."""
    segments = batch.segments.flatten()
    return segments.argsort(stable=True)[int((segments < 0).sum()) :]


@torch.inference_mode()
def branch_features(
    encoder: Encoder,
    branches: Sequence[FeatureRequest],
    *,
    budget: int = 4096,
    bf16: bool = False,
    states: TrunkStates | None = None,
    last: bool = False,
) -> list[list[Features]]:
    """The features of several branches over the same `Tokens`: for each a list with, for each text, [units, width].

    Unit definitions and adapters may differ. The encoder is used in evaluation mode, where its weights are, in batches
    of `budget` tokens, in bf16 by autocast if asked, from the trunk's `states` of the texts where they are known. With
    `last`, the last layer's states are pooled, which pre-finetuning trains, in place of the mean of the branch's layer
    outputs, which heads read.
    """
    kind, width = encoder.embeddings.word.weight.device.type, encoder.config.hidden_size
    texts = branches[0].units
    results: list[list[Features]] = [[np.zeros((0, width), np.float32)] * len(texts) for _ in branches]
    was_training = encoder.training
    encoder.eval()
    read = encoder.branch if last else encoder.read
    for chosen in by_budget(texts, budget):
        with torch.autocast(kind, dtype=torch.bfloat16, enabled=bf16):
            batches = [encoder.batch([branch.units[i] for i in chosen]) for branch in branches]
            hidden = encoder.trunk(batches[0]) if states is None else states.rows(batches[0], chosen)
            for branch, batch, result in zip(branches, batches, results, strict=True):
                pooled = batch.pool(read(hidden, batch, branch.deltas)).cpu().numpy()
                ends = np.cumsum([branch.units[i].n_units for i in chosen])
                for index, part in zip(chosen, np.split(pooled, ends[:-1]), strict=True):
                    result[index] = part
    encoder.train(was_training)
    return results


def embed_texts(
    encoder: Encoder, tokenizer: TextTokenizer, texts: Sequence[str], deltas: Deltas | None = None
) -> Features:
    """Mean-pooled, unnormalised embeddings of texts, [texts, width] float32."""
    units = [text_unit(tokens) for tokens in tokenizer.encode(texts)]
    parts = branch_features(encoder, [FeatureRequest(units, deltas)], last=True)[0]
    return np.stack([part[0] for part in parts]) if parts else np.zeros((0, encoder.config.hidden_size), np.float32)
