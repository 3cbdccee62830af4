"""What terminal and page show alike: texts with their entities, without what a text could do to a reader's screen."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

SURROUNDINGS, LONGEST, MOST = 160, 600, 60
"""Characters kept between entities, and of a text without; entities shown of a text."""

_HIDDEN = dict.fromkeys((*range(32), *range(127, 160), *range(8234, 8239), *range(8294, 8298)), "�")
_HIDDEN |= {ord("\t"): " ", ord("\r"): " "}

Piece = tuple[str, str, bool]
"""A part of a text, the label of an entity or "", and whether the other side has the entity as well."""


def visible(text: object) -> str:
    """Control characters, and those that turn the direction of writing, as U+FFFD; line feeds stay."""
    return str(text).translate({**_HIDDEN, 10: "\n"})


def shortened(text: str, most: int = LONGEST, *, head: bool = True, tail: bool = True) -> str:
    """A text of at most about `most` characters: its head, its tail or both, with an ellipsis for the rest."""
    if len(text) <= most:
        return text
    half = most // (head + tail)
    return text[: half * head] + " … " + text[len(text) - half * tail :]


def pieces(text: str, entities: Sequence[Sequence[Any]], other: Sequence[Sequence[Any]]) -> list[Piece]:
    """A text in parts, those of its entities with their labels; entities that overlap others stand behind the text."""
    found, behind, at = list[Piece](), list[Piece](), 0
    for start, end, words, label in entities[:MOST]:
        right = [start, end, words, label] in [list(one) for one in other]
        if start < at:
            behind.append((words, label, right))
            continue
        found += [(shortened(text[at:start], SURROUNDINGS, head=at > 0), "", True), (words, label, right)]
        at = end
    found.append((shortened(text[at:], SURROUNDINGS, tail=False), "", True))
    if more := len(entities) - MOST:
        behind += [(f" … and {more} more entities", "", True)] if more > 0 else []
    return [piece for piece in (*found, *behind) if piece[0]]


def taken_for(confusion: Mapping[str, Mapping[str, int]]) -> list[tuple[int, str]]:
    """How often which label is taken for which other, the most frequent first."""
    found = []
    for gold, row in confusion.items():
        for guess, count in row.items():
            said = f"{gold!r} taken for {guess!r}" if guess else f"{gold!r} missed"
            found += [(count, said if gold else f"{guess!r} where there is none")] if gold != guess else []
    return sorted(found, key=lambda item: -item[0])


def verdict(comparison: Mapping[str, Any]) -> str:
    """What a comparison says of the main score, in a sentence."""
    measure, row = next(iter(comparison["measures"].items()))
    names = [f"{comparison[side]['task']} of {comparison[side]['bundle']}" for side in ("first", "second")]
    low, high = (100 * bound for bound in row["interval"])
    gain = f"{100 * row['difference']:+.2f} points of {measure}, 95 % interval {low:+.2f} to {high:+.2f}"
    gain += f", p {row['p']:.4f}"
    if row["p"] > 0.05 or low <= 0 <= high:
        return f"no difference between {names[0]} and {names[1]} is shown: {gain}"
    return f"{names[0]} is {'better' if row['difference'] > 0 else 'worse'} than {names[1]}: {gain}"
