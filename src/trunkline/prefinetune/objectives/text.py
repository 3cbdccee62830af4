"""Plain text: masked-language-model training, to bring an encoder to a domain before any family. It has no tasks."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import torch
from torch import Tensor, nn

from trunkline.config import FamilySection
from trunkline.encoder.encoder import Encoder
from trunkline.prefinetune.losses.masked_lm import MaskedLMObjective, mask_token
from trunkline.prefinetune.mixture import Source
from trunkline.prefinetune.objectives.base import TextEmbedder
from trunkline.text.examples import PlainExample
from trunkline.text.packing import UnitText
from trunkline.text.tokens import IntArray, TextTokenizer, Tokens

_NONE = np.zeros(0, dtype=np.int64)


class MaskedTextObjective(nn.Module):
    """Masked-LM loss of a batch of plain texts; each token that is to be predicted is a unit.

    So only the states at these tokens leave the encoder, and packing, chunks, several processes and adapters are those
    of every family.

    Attributes:
        from_units: What is drawn are tokenised texts.

    Args:
        masked_lm: Chooses the tokens and predicts them.
        word_embeddings: [vocabulary, embedding] of the encoder, which are the output layer, too.
    """

    from_units = True

    def __init__(self, masked_lm: MaskedLMObjective, word_embeddings: Tensor) -> None:
        super().__init__()
        self.masked_lm = masked_lm
        # In a tuple, as the encoder's parameter is not to be registered here a second time.
        self._words = (word_embeddings,)

    def masked(self, texts: Sequence[UnitText], step: int) -> tuple[list[UnitText], Tensor]:
        """The texts with tokens masked, and what the tokens were, [units].

        Which tokens of a batch are chosen, and what becomes of them, depends on the seed and the step alone.
        """
        ids = np.concatenate([_NONE, *(text.ids for text in texts)])
        masked, chosen = self.masked_lm.mask_ids(ids, step)
        ends = np.cumsum([text.size for text in texts])
        parts = np.split(chosen, np.searchsorted(chosen, ends[:-1]))
        result = []
        for text, end, part in zip(texts, ends, parts, strict=True):
            begin = end - text.size
            units = np.arange(len(part))
            result.append(replace(text, ids=masked[begin:end], token=part - begin, unit=units, n_units=len(part)))
        return result, torch.from_numpy(ids[chosen])

    def forward(self, features: Tensor, targets: Tensor) -> Tensor:
        """The mean loss in nats of [units, width] features."""
        loss: Tensor = self.masked_lm(features, targets, self._words[0])
        return loss

    def measure(self, features: Tensor, targets: Tensor) -> tuple[str, Tensor]:
        """Whether the most probable token is the right one."""
        return self.masked_lm.measure(features, targets, self._words[0])


class TextFamily:
    """See `trunkline.prefinetune.objectives.base.PrefinetuneFamily`."""

    name = "text"

    def unit_texts(self, examples: Sequence[PlainExample], tokenizer: TextTokenizer) -> list[UnitText]:
        """The texts in windows, without units: what is to be predicted is chosen anew at every step."""
        return [even_windows(tokens) for tokens in tokenizer.encode([example.text for example in examples])]

    def objective(self, recipe: FamilySection, sources: Sequence[Source], embed: TextEmbedder, seed: int) -> nn.Module:
        """Masked-LM training with the encoder's word embeddings as output layer."""
        masked_lm = masked_lm_of(embed.encoder, embed.tokenizer, seed)
        return MaskedTextObjective(masked_lm, embed.encoder.embeddings.word.weight)


def masked_lm_of(encoder: Encoder, tokenizer: TextTokenizer, seed: int) -> MaskedLMObjective:
    """The masked-LM objective that fits an encoder, with an output transform that is not trained yet.

    Raises:
        EncoderError: The tokenizer has no mask token.
    """
    config = encoder.config
    special = (tokenizer.opening, tokenizer.closing, config.pad_id)
    sizes = (config.hidden_size, config.embedding_size, config.vocab_size)
    return MaskedLMObjective(*sizes, mask_token(tokenizer), special, seed)


def even_windows(tokens: Tokens) -> UnitText:
    """The tokens of a text in as few windows as they fit, of even lengths and without overlap.

    Nothing is read off the windows' ends, so what overlap gives other families, context on both sides, would only
    repeat tokens here.
    """
    if len(tokens.windows) == 1:
        ids = tokens.windows[0].ids
        return UnitText(ids, (len(ids),), _NONE, _NONE, 0)
    inner: IntArray = np.zeros(len(tokens.offsets), dtype=np.int64)
    for window in tokens.windows:
        inner[window.first : window.first + len(window.ids) - 2] = window.ids[1:-1]
    opening, closing = tokens.windows[0].ids[:1], tokens.windows[0].ids[-1:]
    room = max(len(window.ids) for window in tokens.windows) - 2
    parts = np.array_split(inner, -(-len(inner) // room))
    ids = np.concatenate([piece for part in parts for piece in (opening, part, closing)])
    return UnitText(ids, tuple(len(part) + 2 for part in parts), _NONE, _NONE, 0)
