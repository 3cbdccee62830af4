"""A smaller vocabulary for the texts at hand: pieces that are dropped are split into pieces that stay.

As in Abdaoui, Pradel and Sigel 2020 (arXiv 2010.05609), the embedding loses the rows of pieces that a corpus hardly
uses. Every character that some piece had keeps a piece, at the beginning of words and inside them, so that no text gets
an unknown token that had none before; it only gets longer.
"""

from __future__ import annotations

import dataclasses
import json
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from trunkline.encoder.encoder import Encoder
from trunkline.errors import TrunklineError
from trunkline.export.vocabulary_models import VocabularyModel, vocabulary_model
from trunkline.export.weights import BackboneWeights
from trunkline.text.tokens import IntArray, TextTokenizer


@dataclass(frozen=True, slots=True)
class Vocabulary:
    """A tokenizer with fewer pieces.

    Attributes:
        tokenizer: Reads texts as before, into other ids.
        rows: [pieces] for each new id the row of the old embedding that it takes over.
        added: Characters that have a piece of their own only now; they take over the row of a piece with them.
        longer: Tokens of the corpus after over tokens before.
    """

    tokenizer: TextTokenizer
    rows: IntArray
    added: tuple[str, ...]
    longer: float


def prune_vocabulary(tokenizer: TextTokenizer, texts: Sequence[str], size: int, keep: Sequence[int] = ()) -> Vocabulary:
    """Chooses the pieces that a corpus uses most often and makes a tokenizer of them.

    Places that the corpus does not fill go to the first of the remaining pieces, which are the more frequent ones in
    the usual vocabularies.

    Args:
        tokenizer: WordPiece, Unigram or BPE.
        texts: The corpus; of the kind and languages that will be read.
        size: Pieces that remain, special tokens and single characters included.
        keep: Ids that stay in any case, such as that of padding, which not every tokenizer knows to be special.

    Raises:
        TrunklineError: No texts, a tokenizer of another kind, or a size below what must stay or above what there is.
    """
    from tokenizers import Tokenizer

    if not any(text.strip() for text in texts):
        raise TrunklineError(f"{len(texts)} texts without a word to choose pieces by", expected="a corpus")
    raw = json.loads(tokenizer.tokenizer.to_str())
    pieces = vocabulary_model(raw["model"])
    special = {token["content"]: int(token["id"]) for token in raw["added_tokens"]}
    before = tokenizer.tokenizer.encode_batch(list(texts), add_special_tokens=False)
    counts = Counter(token for encoding in before for token in encoding.tokens)
    framing = {*keep, tokenizer.opening, tokenizer.closing}
    needed = pieces.needed(special.keys() | {piece for piece, number in pieces.ids.items() if number in framing})
    kept, added = _chosen(pieces, counts, needed, size)
    pruned, rows = _pruned(raw, pieces, kept, added, special)
    made = Tokenizer.from_str(json.dumps(pruned, ensure_ascii=False))
    after = made.encode_batch(list(texts), add_special_tokens=False)
    longer = sum(map(len, after)) / max(1, sum(map(len, before)))
    result = TextTokenizer(made, tokenizer.max_length, tokenizer.overlap)
    return Vocabulary(result, np.asarray(rows, np.int64), tuple(added), longer)


def prune_encoder(encoder: Encoder, vocabulary: Vocabulary) -> Encoder:
    """An encoder with the embedding of a smaller vocabulary; all its adapters still fit.

    Raises:
        TrunklineError: The vocabulary was made of another one.
    """
    place, rows = np.flatnonzero(vocabulary.rows == encoder.config.pad_id), encoder.config.vocab_size
    if int(vocabulary.rows.max()) >= rows or not len(place):
        raise TrunklineError(
            f"a vocabulary with rows up to {vocabulary.rows.max()}, {len(place)} of them padding",
            expected=f"rows below {rows}, and padding, id {encoder.config.pad_id}, among them",
        )
    small = Encoder(
        dataclasses.replace(encoder.config, vocab_size=len(vocabulary.rows), pad_id=int(place[0])), encoder.fork
    )
    state = dict(encoder.state_dict())
    state["embeddings.word.weight"] = state["embeddings.word.weight"][torch.from_numpy(vocabulary.rows)]
    small.load_state_dict(state)
    return small.train(encoder.training).requires_grad_(False).to(next(encoder.parameters()).device)


def shorten_positions(weights: BackboneWeights, max_length: int) -> BackboneWeights:
    """A backbone without the positions behind a window of `max_length` tokens, which nothing ever reads.

    Raises:
        TrunklineError: The encoder has fewer.
    """
    if not 2 < max_length <= weights.config.max_length:
        raise TrunklineError(f"windows of {max_length} tokens", expected=f"3 to {weights.config.max_length}")
    end = max_length + weights.config.position_offset
    config = dataclasses.replace(weights.config, max_positions=end)
    position = np.ascontiguousarray(weights.embeddings.position[:end])
    embeddings = dataclasses.replace(weights.embeddings, position=position)
    return dataclasses.replace(weights, config=config, embeddings=embeddings)


def _chosen(
    pieces: VocabularyModel, counts: Mapping[str, int], needed: set[str], size: int
) -> tuple[set[str], list[str]]:
    """The pieces that stay and characters for which there is to be a new one."""
    kept = needed & pieces.ids.keys()
    added = sorted(needed - kept)
    least, most = len(needed), len(pieces.ids)
    if not least <= size <= most:
        raise TrunklineError(
            f"a vocabulary of {size} pieces",
            expected=f"{least} (special tokens and single characters) to {most}, the number there is",
        )
    ordered = sorted(pieces.ids, key=lambda piece: (-counts.get(piece, 0), pieces.ids[piece]))
    for piece in ordered:
        parts = pieces.parts(piece)
        if piece not in kept and not pieces.unused(piece) and len(kept | parts) + len(added) <= size:
            kept |= parts
        if len(kept) + len(added) == size:
            break
    return kept, added


def _pruned(
    raw: dict[str, Any], pieces: VocabularyModel, kept: set[str], added: list[str], special: Mapping[str, int]
) -> tuple[dict[str, Any], list[int]]:
    """The tokenizer's content with these pieces, and the old row of each new id."""
    ordered = [*sorted(kept, key=lambda piece: pieces.ids[piece]), *added]
    rows = [pieces.ids[piece] if piece in pieces.ids else pieces.like(piece) for piece in ordered]
    # Tokens that the model does not know follow behind its pieces, in their old order.
    outside = sorted(special.keys() - pieces.ids.keys(), key=lambda token: special[token])
    numbers = {token: number for number, token in enumerate([*ordered, *outside])}
    tokens = [{**token, "id": numbers[token["content"]]} for token in raw["added_tokens"]]
    tokens.sort(key=lambda token: token["id"])
    changed = {
        **raw,
        "added_tokens": tokens,
        "model": pieces.model(ordered),
        "post_processor": _renumbered(raw.get("post_processor"), numbers),
        "truncation": None,
        "padding": None,
    }
    return changed, rows + [special[token] for token in outside]


def _renumbered(part: Any, numbers: Mapping[str, int]) -> Any:
    """A post-processor with new ids: in `[token, id]` pairs, and in `ids` beside `tokens`."""
    if isinstance(part, list):
        pair = len(part) == 2 and isinstance(part[0], str) and isinstance(part[1], int)
        return [part[0], numbers[part[0]]] if pair else [_renumbered(item, numbers) for item in part]
    if not isinstance(part, dict):
        return part
    changed = {key: _renumbered(value, numbers) for key, value in part.items()}
    if isinstance(part.get("ids"), list) and isinstance(part.get("tokens"), list):
        changed["ids"] = [numbers[token] for token in part["tokens"]]
    return changed
