"""A smaller vocabulary for the texts at hand: pieces that are dropped are split into pieces that stay.

As in Abdaoui, Pradel and Sigel 2020 (arXiv 2010.05609), the embedding loses the rows of pieces that a corpus hardly
uses. Every character that some piece had keeps a piece, at the beginning of words and inside them, so that no text gets
an unknown token that had none before; it only gets longer. Each kind of model of a `tokenizer.json` knows which of its
pieces must stay, and what a model of some of them is.
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
from trunkline.text.tokens import IntArray, TextTokenizer


@dataclass(frozen=True, slots=True)
class Vocabulary:
    """A tokenizer with fewer pieces.

    `rows` [pieces] has for each new id the row of the old embedding that it takes over, `added` the characters that
    have a piece only now, with the row of a piece that has them.
    """

    tokenizer: TextTokenizer
    rows: IntArray
    added: tuple[str, ...]


def prune_vocabulary(tokenizer: TextTokenizer, texts: Sequence[str], size: int, keep: Sequence[int] = ()) -> Vocabulary:
    """Chooses the pieces that a corpus uses most often, then the first of the others, and makes a tokenizer of them.

    Of WordPiece, Unigram or BPE, `size` pieces remain, special tokens and single characters included. Ids to `keep`
    stay in any case, such as that of padding, which not every tokenizer knows to be special. Raises TrunklineError for
    no texts, a tokenizer of another kind, or a size below what must stay or above what there is.
    """
    from tokenizers import Tokenizer

    if not any(text.strip() for text in texts):
        raise TrunklineError(f"{len(texts)} texts without a word to choose pieces by", expected="a corpus")
    raw = json.loads(tokenizer.tokenizer.to_str())
    kind = raw["model"].get("type")
    if kind not in KINDS:
        raise TrunklineError(f"a tokenizer of kind {kind}", expected="one of " + ", ".join(KINDS), todo="Keep it")
    pieces = KINDS[kind](raw["model"])
    special = {token["content"]: int(token["id"]) for token in raw["added_tokens"]}
    encoded = tokenizer.tokenizer.encode_batch(list(texts), add_special_tokens=False)
    counts = Counter(token for encoding in encoded for token in encoding.tokens)
    framing = {*keep, tokenizer.opening, tokenizer.closing}
    fixed = special.keys() | {piece for piece, number in pieces.ids.items() if number in framing}
    fixed |= {pieces.unknown} - {""}
    kept, added = _chosen(pieces, counts, fixed | pieces.needed(fixed), size)
    pruned, rows = _pruned(raw, pieces, kept, added, special)
    made = Tokenizer.from_str(json.dumps(pruned, ensure_ascii=False))
    result = TextTokenizer(made, tokenizer.max_length, tokenizer.overlap)
    return Vocabulary(result, np.asarray(rows, np.int64), tuple(added))


def prune_encoder(encoder: Encoder, vocabulary: Vocabulary) -> Encoder:
    """An encoder with the embedding of a smaller vocabulary, which was made of its own; all its adapters still fit."""
    pad_id = int(np.flatnonzero(vocabulary.rows == encoder.config.pad_id)[0])
    config = dataclasses.replace(encoder.config, vocab_size=len(vocabulary.rows), pad_id=pad_id)
    small = Encoder(config, encoder.fork)
    state = dict(encoder.state_dict())
    state["embeddings.word.weight"] = state["embeddings.word.weight"][torch.from_numpy(vocabulary.rows)]
    small.load_state_dict(state)
    return small.train(encoder.training).requires_grad_(False).to(next(encoder.parameters()).device)


def _chosen(
    pieces: VocabularyModel, counts: Mapping[str, int], needed: set[str], size: int
) -> tuple[set[str], list[str]]:
    """The pieces that stay and characters for which there is to be a new one."""
    kept = needed & pieces.ids.keys()
    added = sorted(needed - kept)
    if not len(needed) <= size <= len(pieces.ids):
        known = f"{len(needed)} (special tokens and single characters) to {len(pieces.ids)}, the number there is"
        raise TrunklineError(f"a vocabulary of {size} pieces", expected=known)
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


class VocabularyModel:
    """The pieces of a model: `ids` of each, and the token for what none covers, empty if there is none."""

    def __init__(self, content: Mapping[str, Any]) -> None:
        self.content = content
        self.ids: dict[str, int] = dict(content["vocab"])
        self.unknown = str(content.get("unk_token") or "")

    def needed(self, special: set[str]) -> set[str]:
        """What must stay beside special tokens so that nothing becomes unknown: bytes and characters of pieces."""
        found = {piece for piece in self.ids if len(piece) == 6 and piece.startswith("<0x")}
        return found | {character for piece in self.ids.keys() - special - found for character in piece}

    def parts(self, piece: str) -> set[str]:
        """The piece and all others that the model needs to make it."""
        return {piece}

    def unused(self, piece: str) -> bool:
        """Whether it is a place holder that no text can have."""
        return False

    def like(self, piece: str) -> int:
        """The id of an old piece whose meaning is close to that of a new one: the first that has its character."""
        return min(number for other, number in self.ids.items() if piece in other)

    def model(self, ordered: Sequence[str]) -> dict[str, Any]:
        """The model of these pieces, whose ids are their places."""
        return {**self.content, "vocab": {piece: number for number, piece in enumerate(ordered)}}


class WordPiece(VocabularyModel):
    """Words are split from the left into the longest pieces; those inside a word begin with a prefix, such as ##."""

    def needed(self, special: set[str]) -> set[str]:
        """Every character of a piece alone, at the beginning of a word and inside it."""
        words = (piece for piece in self.ids if piece not in special and not self.unused(piece))
        characters = {character for piece in words for character in piece.removeprefix(self._prefix)}
        return characters | {self._prefix + character for character in characters}

    def unused(self, piece: str) -> bool:
        """Whether it is like [unused12] or [PAD]: brackets are split off words, so that no word has it inside."""
        return len(piece) > 2 and piece[0] == "[" and piece[-1] == "]"

    def like(self, piece: str) -> int:
        """The character in its other place, or else the first piece that has it."""
        character = piece.removeprefix(self._prefix)
        other = character if piece.startswith(self._prefix) else self._prefix + character
        return self.ids[other] if other in self.ids else super().like(character)

    @property
    def _prefix(self) -> str:
        return str(self.content["continuing_subword_prefix"])


class Unigram(VocabularyModel):
    """Text is split so that the pieces' scores have the highest sum."""

    def __init__(self, content: Mapping[str, Any]) -> None:
        self._scores: dict[str, float] = dict(content["vocab"])
        unknown = content["vocab"][content["unk_id"]][0] if content.get("unk_id") is not None else ""
        super().__init__({**content, "vocab": {piece: n for n, piece in enumerate(self._scores)}, "unk_token": unknown})

    def model(self, ordered: Sequence[str]) -> dict[str, Any]:
        """New pieces are worth as little as the least of the old ones."""
        least = min(self._scores.values())
        vocabulary = [[piece, self._scores.get(piece, least)] for piece in ordered]
        unknown = ordered.index(self.unknown) if self.unknown else None
        content = {key: value for key, value in self.content.items() if key != "unk_token"}
        return {**content, "vocab": vocabulary, "unk_id": unknown}


class Bpe(VocabularyModel):
    """Neighbours are merged by a list of pairs, from single symbols on."""

    def __init__(self, content: Mapping[str, Any]) -> None:
        if content.get("continuing_subword_prefix") or content.get("ignore_merges"):
            raise TrunklineError("a BPE tokenizer with prefixes or without its merges", todo="Keep it as it is")
        super().__init__(content)
        pairs = (item.split(" ") if isinstance(item, str) else item for item in content["merges"])
        self._merges = [(left, right) for left, right in pairs]
        # The first merge that makes a piece counts.
        self._made = {left + right: (left, right) for left, right in reversed(self._merges)}

    def needed(self, special: set[str]) -> set[str]:
        """Every symbol that no merge makes."""
        return self.ids.keys() - self._made.keys()

    def parts(self, piece: str) -> set[str]:
        """The piece, what it is merged from, and so on down to symbols."""
        return {piece}.union(*(self.parts(part) for part in self._made.get(piece, ())))

    def model(self, ordered: Sequence[str]) -> dict[str, Any]:
        """With the merges whose parts and result stay."""
        kept = set(ordered)
        merges = [[left, right] for left, right in self._merges if {left, right, left + right} <= kept]
        return {**super().model(ordered), "merges": merges}


KINDS: dict[str, type[VocabularyModel]] = {"WordPiece": WordPiece, "Unigram": Unigram, "BPE": Bpe}
