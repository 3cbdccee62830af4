"""Plain text: masked-language-model training (Devlin et al. 2019, section 3.1), to bring an encoder to a domain.

Encoders that were made for features come without an output layer, so the objective has a small one of its own.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from trunkline.encoder.encoder import Encoder
from trunkline.errors import EncoderError
from trunkline.prefinetune.model import Objective
from trunkline.text.examples import PlainExample
from trunkline.text.tokens import IntArray, TextTokenizer, Tokens, UnitText

AT_ONCE = 1024
"""Positions whose logits are computed at a time: 125 MB for a vocabulary of 30,522."""

SHARE = 0.15
"""Tokens to predict, of those that are not special."""

MASK_NAMES = ("[MASK]", "<mask>")
_NONE = np.zeros(0, dtype=np.int64)


class MaskedTextObjective(Objective):
    """Masked-LM loss of a batch of plain texts; each token that is to be predicted is a unit.

    So only the states at these tokens leave the encoder, and packing, chunks, several processes and adapters are those
    of every family. The output layer is the encoder's word embeddings behind BERT's transform (dense, GELU, layer norm,
    output bias), which starts at random, is trained along and thrown away afterwards. Raises EncoderError where the
    tokenizer has no mask token.
    """

    kind = PlainExample

    def __init__(self, encoder: Encoder, tokenizer: TextTokenizer, seed: int) -> None:
        super().__init__()
        config = encoder.config
        found = [number for name in MASK_NAMES if (number := tokenizer.tokenizer.token_to_id(name)) is not None]
        if not found:
            todo = "Leave out the family text, or choose an encoder that was trained as a masked language model"
            raise EncoderError("the tokenizer has no mask token", expected=" or ".join(MASK_NAMES), todo=todo)
        self.mask_id, self.seed = int(found[0]), seed
        self.special = np.asarray(sorted({tokenizer.opening, tokenizer.closing, config.pad_id, self.mask_id}))
        self.ordinary = np.setdiff1d(np.arange(config.vocab_size), self.special)
        width = config.embedding_size
        norm = nn.LayerNorm(width, eps=1e-12)
        self.transform = nn.Sequential(nn.Linear(config.hidden_size, width), nn.GELU(), norm)
        self.bias = nn.Parameter(torch.zeros(config.vocab_size))
        # In a tuple, as the encoder's parameter is not to be registered here a second time.
        self._words = (encoder.embeddings.word.weight,)

    @staticmethod
    def unit_texts(examples: Sequence[PlainExample], tokenizer: TextTokenizer) -> list[UnitText]:
        """The texts in windows, without units: what is to be predicted is chosen anew at every step."""
        return [even_windows(tokens) for tokens in tokenizer.encode([example.text for example in examples])]

    def mask(self, ids: IntArray, step: int) -> tuple[IntArray, IntArray]:
        """Chooses `SHARE` of [tokens] ids that are not special, at least one, by the seed and the step alone.

        80 % of them become the mask, 10 % a random token, 10 % stay. Returns the ids to encode, and the ascending
        indices of the chosen tokens.
        """
        generator = np.random.default_rng([self.seed, step])
        eligible = np.flatnonzero(~np.isin(ids, self.special))
        count = min(len(eligible), max(1, round(SHARE * len(eligible))))
        chosen = np.sort(generator.choice(eligible, count, replace=False)) if count else eligible
        fate = generator.random(count)
        drawn = self.ordinary[generator.integers(len(self.ordinary), size=count)]
        masked = np.array(ids)
        masked[chosen] = np.where(fate < 0.8, self.mask_id, np.where(fate < 0.9, drawn, ids[chosen]))
        return masked, chosen

    def prepare(self, texts: list[UnitText], drawn: Sequence[tuple[int, Any]], step: int) -> tuple[list[UnitText], Any]:
        """The texts with tokens masked, and what the tokens were, [units]."""
        ids = np.concatenate([_NONE, *(text.ids for text in texts)])
        masked, chosen = self.mask(ids, step)
        ends = np.cumsum([text.size for text in texts])
        parts = np.split(chosen, np.searchsorted(chosen, ends[:-1]))
        result = []
        for text, end, part in zip(texts, ends, parts, strict=True):
            begin, units = end - text.size, np.arange(len(part))
            result.append(replace(text, ids=masked[begin:end], token=part - begin, unit=units, n_units=len(part)))
        return result, torch.from_numpy(ids[chosen])

    def forward(self, features: Tensor, targets: Tensor) -> Tensor:
        """Mean cross-entropy in nats of [units, width] features against [units] ids; 0 where there are none."""
        parts = zip(features.split(AT_ONCE), targets.split(AT_ONCE), strict=True)
        losses = [F.cross_entropy(self._logits(states), wanted, reduction="sum") for states, wanted in parts]
        return torch.stack(losses).sum() / max(len(targets), 1)

    def measure(self, features: Tensor, targets: Tensor) -> tuple[str, Tensor]:
        """Whether the most probable token is the right one."""
        best = [self._logits(part).argmax(-1) for part in features.split(AT_ONCE)]
        return "masked_accuracy", (torch.cat(best) == targets).float()

    def _logits(self, states: Tensor) -> Tensor:
        return F.linear(self.transform(states), self._words[0], self.bias)


def even_windows(tokens: Tokens) -> UnitText:
    """The tokens of a text in as few windows as they fit, of even lengths; overlap would only repeat tokens here."""
    inner, opening, closing = tokens.ids[tokens.place], tokens.ids[:1], tokens.ids[-1:]
    room = max(tokens.sizes) - 2
    parts = np.array_split(inner, max(1, -(-len(inner) // max(room, 1))))
    ids = np.concatenate([run for part in parts for run in (opening, part, closing)])
    return UnitText(ids, tuple(len(part) + 2 for part in parts), _NONE, _NONE, 0)
