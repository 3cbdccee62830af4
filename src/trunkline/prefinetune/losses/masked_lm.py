"""Masked language modelling (Devlin et al. 2019, section 3.1): an anchor against forgetting, or training on plain text.

Encoders that were made for features come without an output layer, so the objective has a small one of its own.
"""

from __future__ import annotations

from collections.abc import Collection

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.checkpoint import checkpoint

from trunkline.errors import EncoderError
from trunkline.text.tokens import IntArray, TextTokenizer

IGNORED = -100
"""The target of a token that is not to be predicted."""

AT_ONCE = 1024
"""Positions whose logits are in memory at a time: 125 MB for a vocabulary of 30,522."""

_MASK_NAMES = ("[MASK]", "<mask>")


def mask_tokens(
    input_ids: Tensor,
    segments: Tensor,
    special_ids: Collection[int],
    vocab_size: int,
    mask_id: int,
    generator: np.random.Generator,
    share: float = 0.15,
) -> tuple[Tensor, Tensor]:
    """Chooses tokens to predict; 80 % of them become the mask, 10 % a random token, 10 % stay (Devlin et al. 2019).

    Args:
        input_ids: [rows, width] token ids.
        segments: [rows, width] segment numbers, -1 for padding.
        special_ids: Tokens that are neither chosen nor put in.
        vocab_size: Number of token ids.
        mask_id: The mask token.
        generator: What the choice depends on, beside the arguments.
        share: How many of the tokens that are neither padding nor special are chosen, rounded, at least one.

    Returns:
        [rows, width] ids to encode, and [rows, width] targets, `IGNORED` where nothing is to be predicted.
    """
    ids = input_ids.cpu().numpy().reshape(-1)
    real = np.flatnonzero(segments.cpu().numpy().reshape(-1) >= 0)
    part, places = mask_ids(ids[real], special_ids, vocab_size, mask_id, generator, share)
    masked, targets, chosen = ids.copy(), np.full_like(ids, IGNORED), real[places]
    masked[real] = part
    targets[chosen] = ids[chosen]
    return (
        torch.from_numpy(masked).reshape(input_ids.shape).to(input_ids.device),
        torch.from_numpy(targets).reshape(input_ids.shape).to(input_ids.device),
    )


def mask_ids(
    ids: IntArray,
    special_ids: Collection[int],
    vocab_size: int,
    mask_id: int,
    generator: np.random.Generator,
    share: float = 0.15,
) -> tuple[IntArray, IntArray]:
    """As `mask_tokens`, for ids without padding.

    Args:
        ids: [tokens] token ids, special ones among them.
        special_ids: See `mask_tokens`, as the rest.
        vocab_size: Number of token ids.
        mask_id: The mask token.
        generator: Makes the choice.
        share: Of the tokens that are not special.

    Returns:
        [tokens] ids to encode, and [chosen] indices of the chosen tokens, ascending.
    """
    special = np.asarray(sorted({*special_ids, mask_id}), dtype=np.int64)
    eligible = np.flatnonzero(~np.isin(ids, special))
    count = min(len(eligible), max(1, round(share * len(eligible))))
    chosen = np.sort(generator.choice(eligible, count, replace=False)) if count else eligible
    fate = generator.random(count)
    ordinary = np.setdiff1d(np.arange(vocab_size), special)
    drawn = ordinary[generator.integers(len(ordinary), size=count)]
    masked = np.array(ids)
    masked[chosen] = np.where(fate < 0.8, mask_id, np.where(fate < 0.9, drawn, ids[chosen]))
    return masked, chosen


def masked_lm_loss(
    hidden: Tensor, targets: Tensor, word_embeddings: Tensor, transform: nn.Module, bias: Tensor | None = None
) -> Tensor:
    """Cross-entropy of the chosen tokens; logits are computed at their positions only, `AT_ONCE` at a time.

    Where there are more, each part's logits are computed once more for the gradient, so that memory does not grow.

    Args:
        hidden: [..., hidden] states of the last layer for the masked ids.
        targets: [...] ids, `IGNORED` where nothing is to be predicted.
        word_embeddings: [vocabulary, embedding] the encoder's input embeddings, which are the output layer as well.
        transform: [positions, hidden] -> [positions, embedding].
        bias: [vocabulary] added to the logits.

    Returns:
        The mean loss in nats, a scalar; 0 where nothing is to be predicted.
    """
    states, wanted = _chosen(hidden, targets, word_embeddings)

    def part(states: Tensor, wanted: Tensor) -> Tensor:
        return F.cross_entropy(F.linear(transform(states), word_embeddings, bias), wanted, reduction="sum")

    if len(wanted) <= AT_ONCE:
        return part(states, wanted) / max(len(wanted), 1)
    parts = zip(states.split(AT_ONCE), wanted.split(AT_ONCE), strict=True)
    return torch.stack([checkpoint(part, *some, use_reentrant=False) for some in parts]).sum() / len(wanted)


def _chosen(hidden: Tensor, targets: Tensor, word_embeddings: Tensor) -> tuple[Tensor, Tensor]:
    chosen = targets != IGNORED
    # Under autocast states may be in bf16 while the weights are not.
    return hidden[chosen].to(word_embeddings.dtype), targets[chosen]


def mask_token(tokenizer: TextTokenizer) -> int:
    """The id of the tokenizer's mask token.

    Raises:
        EncoderError: It has none.
    """
    for name in _MASK_NAMES:
        number = tokenizer.tokenizer.token_to_id(name)
        if number is not None:
            return int(number)
    raise EncoderError(
        "the tokenizer has no mask token",
        expected=" or ".join(_MASK_NAMES),
        todo="Leave out `anchor` and the family text, or choose an encoder that was trained as a masked language model",
    )


class MaskedLMObjective(nn.Module):
    """Predicts masked tokens from an encoder's states, with the encoder's own word embeddings as output layer.

    The transform is BERT's (dense, GELU, layer norm, output bias). It starts at random and is trained along; it is
    thrown away afterwards.

    Args:
        hidden_size: Width of the encoder's states.
        embedding_size: Width of its word embeddings.
        vocab_size: Number of its word embeddings.
        mask_id: The mask token, see `mask_token`.
        special_ids: Other tokens that are never predicted: opening, closing, padding.
        seed: Chooses the tokens, with the step.
        share: Tokens to predict, of those that are not special.
    """

    def __init__(
        self,
        hidden_size: int,
        embedding_size: int,
        vocab_size: int,
        mask_id: int,
        special_ids: Collection[int],
        seed: int,
        share: float = 0.15,
    ) -> None:
        super().__init__()
        self.vocab_size, self.mask_id, self.special_ids = vocab_size, mask_id, frozenset(special_ids)
        self.seed, self.share = seed, share
        self.transform = nn.Sequential(
            nn.Linear(hidden_size, embedding_size), nn.GELU(), nn.LayerNorm(embedding_size, eps=1e-12)
        )
        self.bias = nn.Parameter(torch.zeros(vocab_size))

    def mask(self, input_ids: Tensor, segments: Tensor, step: int, part: int = 0) -> tuple[Tensor, Tensor]:
        """See `mask_tokens`; the choice depends on the seed, the step and the part of the step's batch alone."""
        generator = np.random.default_rng([self.seed, step, part])
        return mask_tokens(input_ids, segments, self.special_ids, self.vocab_size, self.mask_id, generator, self.share)

    def mask_ids(self, ids: IntArray, step: int) -> tuple[IntArray, IntArray]:
        """See the function `mask_ids`; the choice depends on the seed and the step alone."""
        generator = np.random.default_rng([self.seed, step])
        return mask_ids(ids, self.special_ids, self.vocab_size, self.mask_id, generator, self.share)

    def forward(self, hidden: Tensor, targets: Tensor, word_embeddings: Tensor) -> Tensor:
        """The loss of [..., hidden] states of masked ids; see `masked_lm_loss`."""
        return masked_lm_loss(hidden, targets, word_embeddings, self.transform, self.bias)

    def measure(self, hidden: Tensor, targets: Tensor, word_embeddings: Tensor) -> tuple[str, Tensor]:
        """Whether the most probable token of each chosen position is the right one."""
        states, wanted = _chosen(hidden, targets, word_embeddings)
        best = [F.linear(self.transform(part), word_embeddings, self.bias).argmax(-1) for part in states.split(AT_ONCE)]
        return "masked_accuracy", (torch.cat(best) == wanted).float()
