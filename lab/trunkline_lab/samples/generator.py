"""Seeded generator of sentences with labelled concepts and of text pairs, for pre-finetuning an encoder.

Run as a module, it writes the sample that ships with the package:
`python -m trunkline_lab.samples.generator [folder]`.
"""

import json
import os
import random
import re
import sys
from collections.abc import Iterable, Iterator
from itertools import cycle, permutations
from pathlib import Path
from typing import Any

from trunkline.samples import folder
from trunkline_lab.samples.shapes import (
    BUILT_IN,
    CHOICE,
    PLACEHOLDER,
    RANGE,
    SLOT,
    Concept,
    Shape,
    Situation,
    load_grammar,
)

CHAT = "chat"
LOWER_SHARE = 0.07
# Chat messages are lower-cased more often, so that about one sentence in ten is lower-cased over all registers.
LOWER_SHARE_CHAT = 0.3
DROP_SHARE = 0.1
ATTEMPTS = 60
# Capitals at the start of a sentence would change what these name.
KEEP_CASE = frozenset({"e-mail address", "website", "file name", "user handle"})

_DETERMINER = re.compile(r"(?:^|(?<=[\s\"']))(?:the|a|my|our|your|this|every|any|each|some|no|more)\s$", re.IGNORECASE)
_ARTICLE = re.compile(r"^(?:the|an|a)\s")
_INDEFINITE = re.compile(r"(?:^|(?<=[\s\"'(]))([Aa])(\s)$")
_VOWEL_SOUND = re.compile(r"^(?:[aeiouéAEIOÉU]|hour|honest|8|11\b|18\b|[FHLMNRSX](?:[-A-Z0-9]))")
_CONSONANT_SOUND = re.compile(r"^(?:uni|use|uku|eu|one\b|once|US|U\d|UK|Uni|Eu|One\b)")

# The look-behind spares abbreviations such as "v." and "max.", which do not end a sentence.
_SENTENCE_START = re.compile(r"^[\"']?$|(?<! v)(?<!max)[.!?] $")

Entity = dict[str, Any]


def concepts() -> dict[str, str]:
    """Return the name and the one-sentence description of every concept type, in the order of the files."""
    return {name: concept.description for name, concept in load_grammar().concepts.items()}


def generate_sentences(seed: int, n: int) -> Iterator[dict[str, Any]]:
    """Generate labelled sentences, each shape about equally often and no text twice.

    Args:
        seed: Seed of the random choices; the same seed gives the same sentences.
        n: Number of sentences.

    Yields:
        `{"text": str, "entities": [{"start": int, "end": int, "label": str}]}` with character offsets.

    Raises:
        ValueError: If the grammar names an unknown concept or cannot give `n` different sentences.
    """
    grammar = load_grammar()
    rng = random.Random(seed)
    seen: set[str] = set()
    order = list(grammar.sentences)
    while len(seen) < n:
        before = len(seen)
        rng.shuffle(order)
        for shape in order[: n - before]:
            made = _new_sentence(rng, shape, grammar.concepts, seen)
            if made is not None:
                yield made
        if len(seen) == before:
            raise ValueError(f"the grammar gives only {before} different sentences, not {n}")


def generate_pairs(seed: int, n: int) -> Iterator[dict[str, str]]:
    """Generate text pairs, each situation about equally often and no left or right text twice.

    A situation gives in turn a left text with the right one that answers it (shared slots have the same value),
    two left texts, and two right texts (slots have values of their own). With answers alone, an encoder would learn
    to match names and numbers, not what a text is about.

    Args:
        seed: Seed of the random choices; the same seed gives the same pairs.
        n: Number of pairs.

    Yields:
        `{"left": str, "right": str, "group": str}`, where `group` is the name of the situation.

    Raises:
        ValueError: If the grammar names an unknown concept or cannot give `n` different pairs.
    """
    grammar = load_grammar()
    rng = random.Random(seed)
    decks = [(item.name, _turns(rng, item)) for item in grammar.situations]
    seen: tuple[set[str], set[str]] = (set(), set())
    made = 0
    while made < n:
        before = made
        rng.shuffle(decks)
        for name, deck in decks[: n - before]:
            pair = _new_pair(rng, next(deck), grammar.concepts, seen)
            if pair is not None:
                made += 1
                yield {"left": pair[0], "right": pair[1], "group": name}
        if made == before:
            raise ValueError(f"the grammar gives only {before} different pairs, not {n}")


def write_sample(target: Path, seed: int = 20261122, n_sentences: int = 6000, n_pairs: int = 6000) -> None:
    """Write `sentences.jsonl`, `pairs.jsonl` and `concepts.json` into a folder, each of them atomically.

    Args:
        target: Folder to write to; it is made if it is missing.
        seed: Seed of the random choices.
        n_sentences: Number of sentences.
        n_pairs: Number of pairs.
    """
    target.mkdir(parents=True, exist_ok=True)
    _write_atomically(target / "sentences.jsonl", map(_json_line, generate_sentences(seed, n_sentences)))
    _write_atomically(target / "pairs.jsonl", map(_json_line, generate_pairs(seed, n_pairs)))
    _write_atomically(target / "concepts.json", [json.dumps(concepts(), ensure_ascii=False, indent=1) + "\n"])


def _json_line(item: dict[str, Any]) -> str:
    return json.dumps(item, ensure_ascii=False, separators=(",", ":")) + "\n"


def _write_atomically(path: Path, lines: Iterable[str]) -> None:
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        with temporary.open("w", encoding="utf-8", newline="\n") as file:
            file.writelines(lines)
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)


def _new_sentence(rng: random.Random, shape: Shape, known: dict[str, Concept], seen: set[str]) -> dict[str, Any] | None:
    for _ in range(ATTEMPTS):
        text, entities = _fill(rng, shape, known, {})
        text = _noisy(rng, text, entities, shape.register)
        if _key(text) not in seen:
            seen.add(_key(text))
            return {"text": text, "entities": entities}
    return None


def _turns(rng: random.Random, item: Situation) -> Iterator[tuple[tuple[Shape, Shape], bool]]:
    """Deal couples of shapes and whether their slots are shared: an answer, two left shapes, two right shapes, ..."""
    decks = (
        (_deal(rng, item.couples), True),
        (_deal(rng, tuple(permutations(item.left, 2))), False),
        (_deal(rng, tuple(permutations(item.right, 2))), False),
    )
    for deck, shared in cycle(decks):
        yield next(deck), shared


def _new_pair(
    rng: random.Random,
    turn: tuple[tuple[Shape, Shape], bool],
    known: dict[str, Concept],
    seen: tuple[set[str], set[str]],
) -> tuple[str, str] | None:
    shapes, shared = turn
    for _ in range(ATTEMPTS):
        bound: dict[str, str] = {}
        sides: list[str] = []
        for shape in shapes:
            bound = bound if shared else {}
            text, entities = _fill(rng, shape, known, bound)
            sides.append(_noisy(rng, text, entities, shape.register))
        # A text that occurs twice on one side would be a false negative in contrastive training.
        if not any(_key(text) in texts for text, texts in zip(sides, seen, strict=True)):
            for text, texts in zip(sides, seen, strict=True):
                texts.add(_key(text))
            return sides[0], sides[1]
    return None


def _key(text: str) -> str:
    return text.lower().rstrip(".!?")


def _deal(rng: random.Random, items: tuple[tuple[Shape, Shape], ...]) -> Iterator[tuple[Shape, Shape]]:
    """Deal the couples of a situation for ever, each of them once before any comes again."""
    deck = list(items)
    while True:
        rng.shuffle(deck)
        yield from deck


def _fill(
    rng: random.Random, shape: Shape, known: dict[str, Concept], bound: dict[str, str]
) -> tuple[str, list[Entity]]:
    """Fill the slots of a shape; slots in `bound` keep their value and new values are added to it."""
    line = CHOICE.sub(lambda match: rng.choice(match.group(1).split("|")), shape.text)
    line = re.sub(r" {2,}", " ", line).strip()
    relaxed = shape.register == CHAT or line[:1].islower()
    text = ""
    entities: list[Entity] = []
    position = 0
    for match in SLOT.finditer(line):
        text += line[position : match.start()]
        position = match.end()
        label = match.group(1)
        text, value = _joined(text, _bind(rng, match, known[label], bound))
        if not relaxed and label not in KEEP_CASE and _SENTENCE_START.search(text):
            value = value[:1].upper() + value[1:]
        entities.append({"start": len(text), "end": len(text) + len(value), "label": label})
        text += value
        # A value such as "5 p.m." already ends with the full stop of the sentence.
        if value.endswith(".") and line[position : position + 1] == ".":
            position += 1
    return text + line[position:], entities


def _bind(rng: random.Random, match: re.Match[str], concept: Concept, bound: dict[str, str]) -> str:
    slot = match.group(0)
    if slot not in bound:
        taken = {value.lower() for other, value in bound.items() if _concept_of(other) == concept.name}
        choices = concept.groups[match.group(2)] if match.group(2) else concept.values + concept.patterns
        value = _surface(rng, concept, choices)
        for _ in range(ATTEMPTS):
            if value.lower() not in taken:
                break
            value = _surface(rng, concept, choices)
        bound[slot] = value
    return bound[slot]


def _concept_of(slot: str) -> str:
    return re.split("[:/]", slot.strip("{}"))[0]


def _surface(rng: random.Random, concept: Concept, choices: tuple[str, ...]) -> str:
    def expand(match: re.Match[str]) -> str:
        name = match.group(1)
        span = RANGE.match(name)
        if name not in concept.parts and span:
            return str(rng.randint(int(span.group(1)), int(span.group(2))))
        return rng.choice(concept.parts.get(name) or BUILT_IN[name])

    return PLACEHOLDER.sub(expand, rng.choice(choices))


def _joined(before: str, value: str) -> tuple[str, str]:
    """Make the article before a slot fit the value: `a` or `an`, and never two articles."""
    article = _ARTICLE.match(value)
    if article and _DETERMINER.search(before):
        value = value[article.end() :]
    if _VOWEL_SOUND.match(value) and not _CONSONANT_SOUND.match(value):
        before = _INDEFINITE.sub(r"\1n\2", before)
    return before, value


def _noisy(rng: random.Random, text: str, entities: list[Entity], register: str) -> str:
    share = LOWER_SHARE_CHAT if register == CHAT else LOWER_SHARE
    # Both draws are always made, so that one kind of noise does not shift the other.
    lower, drop = rng.random() < share, rng.random() < DROP_SHARE
    if lower and len(text.lower()) == len(text):
        text = text.lower()
    inside = bool(entities) and entities[-1]["end"] == len(text)
    if drop and text.endswith((".", "!", "?")) and not text.endswith("..") and not inside:
        text = text[:-1]
    return text


if __name__ == "__main__":
    write_sample(Path(sys.argv[1]) if len(sys.argv) > 1 else folder() / "prefinetune")
