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

from trunkline.encoder.bundle_files import Loaded
from trunkline.encoder.encoder import Encoder
from trunkline.errors import TrunklineError
from trunkline.export.pieces import Pieces, pieces_of
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
        same: The share of the corpus's texts that are split as before.
        unknown: Unknown tokens of the corpus before and after.
    """

    tokenizer: TextTokenizer
    rows: IntArray
    added: tuple[str, ...]
    longer: float
    same: float
    unknown: tuple[int, int]


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
    if not any(text.strip() for text in texts):
        raise TrunklineError(f"{len(texts)} texts without a word to choose pieces by", expected="a corpus")
    raw = json.loads(tokenizer.tokenizer.to_str())
    pieces = pieces_of(raw["model"])
    special = {token["content"]: int(token["id"]) for token in raw["added_tokens"]}
    read = _encode(tokenizer, texts)
    before = [encoding.tokens for encoding in read]
    counts = Counter(token for tokens in before for token in tokens)
    staying = {piece for piece, number in pieces.ids.items() if number in set(keep)}
    needed = pieces.needed(special.keys() | _framing(raw.get("post_processor")) | staying)
    kept, added = _chosen(pieces, counts, needed, size)
    pruned, rows = _pruned(raw, pieces, kept, added, special)
    result = TextTokenizer(_load(pruned), tokenizer.max_length, tokenizer.overlap)
    again = _encode(result, texts)
    after = [encoding.tokens for encoding in again]
    unknown = [
        sum(encoding.ids.count(own.tokenizer.token_to_id(pieces.unknown)) for encoding in part)
        for own, part in ((tokenizer, read), (result, again))
    ]
    return Vocabulary(
        result,
        np.asarray(rows, np.int64),
        tuple(added),
        sum(map(len, after)) / max(1, sum(map(len, before))),
        float(np.mean([x == y for x, y in zip(before, after, strict=True)])),
        (unknown[0], unknown[1]),
    )


def prune_weights(weights: BackboneWeights, vocabulary: Vocabulary) -> BackboneWeights:
    """A backbone with the embedding of a smaller vocabulary; its hash stays, as all adapters still fit.

    Raises:
        TrunklineError: The vocabulary was made of another one.
    """
    _check(len(weights.embeddings.word), vocabulary)
    config = dataclasses.replace(
        weights.config, vocab_size=len(vocabulary.rows), pad_id=_place(weights.config.pad_id, vocabulary)
    )
    word = np.ascontiguousarray(weights.embeddings.word[vocabulary.rows])
    embeddings = dataclasses.replace(weights.embeddings, word=word)
    return dataclasses.replace(weights, config=config, embeddings=embeddings)


def prune_bundle(start: Loaded, vocabulary: Vocabulary) -> Loaded:
    """A bundle with a smaller vocabulary, to adapt tasks on and to give to the gate; `start` is not changed.

    Its backbone keeps the hash, so that tasks adapted on one fit the other. It is not meant to be saved as a bundle.

    Raises:
        TrunklineError: The vocabulary was made of another one.
    """
    old = start.encoder
    _check(old.config.vocab_size, vocabulary)
    pad = _place(old.config.pad_id, vocabulary)
    config = dataclasses.replace(old.config, vocab_size=len(vocabulary.rows), pad_id=pad)
    encoder = Encoder(config, old.fork)
    state = dict(old.state_dict())
    state["embeddings.word.weight"] = state["embeddings.word.weight"][torch.from_numpy(vocabulary.rows)]
    encoder.load_state_dict(state)
    encoder.attention, encoder.dropout = old.attention, old.dropout
    encoder.train(old.training).requires_grad_(next(old.parameters()).requires_grad)
    raw = {**start.config, "vocab_size": len(vocabulary.rows), "pad_token_id": pad}
    return dataclasses.replace(
        start, encoder=encoder.to(next(old.parameters()).device), tokenizer=vocabulary.tokenizer, config=raw
    )


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


def _encode(tokenizer: TextTokenizer, texts: Sequence[str]) -> list[Any]:
    return list(tokenizer.tokenizer.encode_batch(list(texts), add_special_tokens=False))


def _chosen(pieces: Pieces, counts: Mapping[str, int], needed: set[str], size: int) -> tuple[set[str], list[str]]:
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
    raw: dict[str, Any], pieces: Pieces, kept: set[str], added: list[str], special: Mapping[str, int]
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


def _framing(part: Any) -> set[str]:
    """The tokens that a post-processor puts around texts: `[token, id]` pairs, and `tokens` beside `ids`."""
    if isinstance(part, list):
        return {part[0]} if _is_pair(part) else set().union(*map(_framing, part))
    if not isinstance(part, dict):
        return set()
    own = set(part["tokens"]) if isinstance(part.get("tokens"), list) else set()
    return own.union(*map(_framing, part.values()))


def _renumbered(part: Any, numbers: Mapping[str, int]) -> Any:
    """A post-processor with new ids."""
    if isinstance(part, list):
        return [part[0], numbers[part[0]]] if _is_pair(part) else [_renumbered(item, numbers) for item in part]
    if not isinstance(part, dict):
        return part
    changed = {key: _renumbered(value, numbers) for key, value in part.items()}
    if isinstance(part.get("ids"), list) and isinstance(part.get("tokens"), list):
        changed["ids"] = [numbers[token] for token in part["tokens"]]
    return changed


def _is_pair(part: list[Any]) -> bool:
    return len(part) == 2 and isinstance(part[0], str) and isinstance(part[1], int)


def _load(raw: Mapping[str, Any]) -> Any:
    from tokenizers import Tokenizer

    return Tokenizer.from_str(json.dumps(raw, ensure_ascii=False))


def _check(rows: int, vocabulary: Vocabulary) -> None:
    if int(vocabulary.rows.max()) >= rows:
        raise TrunklineError(
            f"a vocabulary with pieces up to {vocabulary.rows.max()} for an embedding of {rows} rows",
            expected="a vocabulary made of this encoder's",
        )


def _place(old: int, vocabulary: Vocabulary) -> int:
    found = np.flatnonzero(vocabulary.rows == old)
    if not len(found):
        raise TrunklineError(
            f"padding, id {old}, is no special token of the tokenizer", expected="one, so that it stays"
        )
    return int(found[0])
