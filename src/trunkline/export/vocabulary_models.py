"""Vocabularies of tokenizer models: which pieces must stay in a smaller one, and what a model of some of them is.

Each kind of model answers the same questions, from the `model` part of a `tokenizer.json`.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from typing import Any

from trunkline.errors import TrunklineError


class VocabularyModel:
    """The pieces of a model.

    Attributes:
        ids: The id of each piece.
        unknown: The token for what no piece covers; empty if there is none.
    """

    def __init__(self, model: Mapping[str, Any]) -> None:
        self.content = model
        self.ids = {piece: int(number) for piece, number in model["vocab"].items()}
        self.unknown = str(model.get("unk_token") or "")

    def needed(self, special: Collection[str]) -> set[str]:
        """What must stay so that nothing becomes unknown: special tokens and characters, also such as have no piece."""
        raise NotImplementedError

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

    def _fixed(self, special: Collection[str]) -> set[str]:
        return {token for token in (self.unknown, *special) if token}


class WordPiece(VocabularyModel):
    """Words are split from the left into the longest pieces; those inside a word begin with a prefix, such as ##."""

    def __init__(self, model: Mapping[str, Any]) -> None:
        super().__init__(model)
        self._prefix = str(model["continuing_subword_prefix"])

    def needed(self, special: Collection[str]) -> set[str]:
        """Every character of a piece alone, at the beginning of a word and inside it."""
        fixed = self._fixed(special)
        words = (piece for piece in self.ids if piece not in fixed and not self.unused(piece))
        characters = {character for piece in words for character in piece.removeprefix(self._prefix)}
        return fixed | characters | {self._prefix + character for character in characters}

    def unused(self, piece: str) -> bool:
        """Whether it is like [unused12] or [PAD]: brackets are split off words, so that no word has it inside."""
        return len(piece) > 2 and piece[0] == "[" and piece[-1] == "]"

    def like(self, piece: str) -> int:
        """The character in its other place, or else the first piece that has it."""
        character = piece.removeprefix(self._prefix)
        other = character if piece.startswith(self._prefix) else self._prefix + character
        return self.ids[other] if other in self.ids else super().like(character)


class Unigram(VocabularyModel):
    """Text is split so that the pieces' scores have the highest sum."""

    def __init__(self, model: Mapping[str, Any]) -> None:
        self.content = model
        self._scores = {str(piece): float(score) for piece, score in model["vocab"]}
        self.ids = {str(piece): number for number, (piece, _) in enumerate(model["vocab"])}
        self.unknown = str(model["vocab"][model["unk_id"]][0]) if model.get("unk_id") is not None else ""

    def needed(self, special: Collection[str]) -> set[str]:
        """Special tokens, bytes and every character of a piece."""
        fixed = self._fixed(special)
        fixed |= {piece for piece in self.ids if len(piece) == 6 and piece.startswith("<0x")}
        return fixed | {character for piece in self.ids if piece not in fixed for character in piece}

    def model(self, ordered: Sequence[str]) -> dict[str, Any]:
        """New pieces are worth as little as the least of the old ones."""
        least = min(self._scores.values())
        vocabulary = [[piece, self._scores.get(piece, least)] for piece in ordered]
        unknown = ordered.index(self.unknown) if self.unknown else None
        return {**self.content, "vocab": vocabulary, "unk_id": unknown}


class Bpe(VocabularyModel):
    """Neighbours are merged by a list of pairs, from single symbols on."""

    def __init__(self, model: Mapping[str, Any]) -> None:
        if model.get("continuing_subword_prefix") or model.get("ignore_merges"):
            raise TrunklineError("a BPE tokenizer with prefixes or without its merges", todo="Keep it as it is")
        super().__init__(model)
        pairs = (item.split(" ") if isinstance(item, str) else item for item in model["merges"])
        self._merges = [(str(left), str(right)) for left, right in pairs]
        self._made: dict[str, tuple[str, str]] = {}
        for left, right in self._merges:
            self._made.setdefault(left + right, (left, right))

    def needed(self, special: Collection[str]) -> set[str]:
        """Special tokens and every symbol that no merge makes."""
        return self._fixed(special) | (self.ids.keys() - self._made.keys())

    def parts(self, piece: str) -> set[str]:
        """The piece, what it is merged from, and so on down to symbols."""
        found, waiting = set(), [piece]
        while waiting:
            part = waiting.pop()
            if part not in found:
                found.add(part)
                waiting.extend(self._made.get(part, ()))
        return found

    def model(self, ordered: Sequence[str]) -> dict[str, Any]:
        """With the merges whose parts and result stay."""
        kept = set(ordered)
        merges = [[left, right] for left, right in self._merges if {left, right, left + right} <= kept]
        return {**super().model(ordered), "merges": merges}


KINDS: dict[str, type[VocabularyModel]] = {"WordPiece": WordPiece, "Unigram": Unigram, "BPE": Bpe}


def vocabulary_model(model: Mapping[str, Any]) -> VocabularyModel:
    """The pieces of a model; raises TrunklineError for one of a kind that is not supported."""
    kind = KINDS.get(str(model.get("type")))
    if kind is None:
        raise TrunklineError(
            f"a tokenizer of kind {model.get('type')}", expected="one of " + ", ".join(KINDS), todo="Keep it as it is"
        )
    return kind(model)
