"""What the cards say, and what is in their files: plain data for tables, plots and JSON."""

from __future__ import annotations

import hashlib
import math
import re
from array import array
from collections import Counter
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np

from trunkline.errors import TrunklineError
from trunkline.problems import nearest
from trunkline.text.examples import Example, NerExample, PairExample, QaExample, TextExample
from trunkline_lab.data.cards import Card, list_cards, load_card

ROLES = ("task", "source")
FAMILIES = ("ner", "classification", "qa", "text")

# Han, kana, Thai, Lao, Burmese and Khmer are written without blanks between words.
_UNSPACED = re.compile(
    "[\u0e00-\u0eff\u1000-\u109f\u1780-\u17ff\u3040-\u30ff\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff\U00020000-\U0002fa1f]"
)
_QUANTILES = {"p5": 0.05, "p25": 0.25, "median": 0.5, "p75": 0.75, "p95": 0.95}


def list_cards_table(role: str | None = None, family: str | None = None) -> list[dict[str, Any]]:
    """The cards that come with the package, a row each, by name; only those of a role and a family of `FAMILIES`."""
    for given, known in ((role, ROLES), (family, FAMILIES)):
        if given is not None and given not in known:
            raise TrunklineError(
                f"no card is of {given!r}{nearest(given, known)}", expected=f"one of {', '.join(known)}"
            )
    cards = [load_card(name) for name in list_cards()]
    return [
        {
            "name": card.name,
            "role": card.role,
            "family": card.family,
            "kind": card.kind,
            "licence": card.licence,
            "labels": len(card.labels),
            "counts": dict(card.counts),
            "here": card.is_here(),
        }
        for card in cards
        if role in (None, card.role) and family in (None, card.family)
    ]


def show(name: str | Path) -> dict[str, Any]:
    """Everything that a card says, its labels as the concepts they are, and where its files are looked for.

    Returns:
        The card's keys; `files` has for each split a list of `path`, `member`, `options`, `file` (on this machine;
        None without a data folder), `here` and `bytes` (None for what is not here or is a folder).
    """
    card = load_card(name)
    content = card.model_dump(mode="json", by_alias=True)
    for refs in content["files"].values():
        for ref in refs:
            file = card.locate(ref["path"])
            ref["file"] = str(file) if file else None
            ref["here"] = bool(file and file.exists())
            ref["bytes"] = file.stat().st_size if file and file.is_file() else None
    content["labels"] = {label: card.concept(label) for label in card.labels}
    content["here"] = card.is_here()
    return content


def stats(name: str | Path, split: str | None = None) -> dict[str, Any]:
    """Counts what is in the splits of a card, each in one pass that keeps no text.

    Returns:
        `name`, `title`, `kind`, `family`, `licence` and `splits`: for each (or one) the result of `count`.
    """
    card = load_card(name)
    chosen = card.splits if split is None else (split,)
    return {
        "name": card.name,
        "title": card.title,
        "kind": card.kind,
        "family": card.family,
        "licence": card.licence,
        "splits": {part: count(card.stream(part), card) for part in chosen},
    }


def count(examples: Iterable[Example], card: Card | None = None) -> dict[str, Any]:
    """Statistics of examples of one kind, in one pass.

    Args:
        examples: What to count.
        card: Names the concepts of its labels.

    Returns:
        `examples`; `duplicates` (texts that repeat an earlier one but for case and blanks: `count`, `share`);
        `words`, the length of the texts; for pairs `left_words`, `right_words` and the number of `groups` instead; for
        questions `question_words`, `context_words` and `with_answer` (a share) instead; for texts `labels`; for NER
        also `entities`, `sentences_with_entities` (a share), `entities_per_sentence`, `entity_words` and `surfaces`
        (different ones, but for case). Lengths are `mean`, `min`, `p5`, `p25`, `median`,
        `p75`, `p95`, `max`; `labels` is a list of `label`, `concept`, `count` and `share`, most frequent first.
    """
    counter = _Counter()
    for example in examples:
        counter.add(example)
    return counter.result(card)


class _Counter:
    """What is remembered of the examples: histograms, and eight bytes of each text and entity."""

    def __init__(self) -> None:
        self.total = 0
        self.with_entities = self.with_answer = 0
        self.kind: type[Example] | None = None
        self.lengths: dict[str, Counter[int]] = {}
        self.labels: Counter[str] = Counter()
        self.texts, self.surfaces, self.groups = array("Q"), array("Q"), array("Q")

    def add(self, example: Example) -> None:
        self.total += 1
        self.kind = type(example)
        if isinstance(example, PairExample):
            self.texts.append(_digest(_plain(example.left), _plain(example.right)))
            self._measure("left_words", _count_words(example.left))
            self._measure("right_words", _count_words(example.right))
            if example.group:
                self.groups.append(_digest(example.group))
            return
        self.texts.append(_digest(_plain(example.text)))
        if isinstance(example, QaExample):
            self._measure("question_words", _count_words(example.question))
            self._measure("context_words", _count_words(example.context))
            self.with_answer += bool(example.answers)
            return
        if isinstance(example, NerExample):
            self._measure("words", len(example.words))
            self._add_entities(example)
        else:
            self._measure("words", _count_words(example.text))
        if isinstance(example, TextExample):
            self.labels[example.label] += 1

    def result(self, card: Card | None) -> dict[str, Any]:
        repeated = self.total - _distinct(self.texts)
        found: dict[str, Any] = {
            "examples": self.total,
            "duplicates": {"count": repeated, "share": _share(repeated, self.total)},
            **{name: _summary(lengths) for name, lengths in self.lengths.items()},
        }
        if self.kind is PairExample:
            found["groups"] = _distinct(self.groups)
        if self.kind is QaExample:
            found["with_answer"] = _share(self.with_answer, self.total)
        if self.kind is NerExample:
            found["entities"] = self.labels.total()
            found["sentences_with_entities"] = _share(self.with_entities, self.total)
            found["surfaces"] = _distinct(self.surfaces)
        if self.kind in (NerExample, TextExample):
            found["labels"] = [
                {
                    "label": label,
                    "concept": card.concept(label) if card else label,
                    "count": number,
                    "share": _share(number, self.labels.total()),
                }
                for label, number in sorted(self.labels.items(), key=lambda item: (-item[1], item[0]))
            ]
        return found

    def _add_entities(self, example: NerExample) -> None:
        self.with_entities += bool(example.spans)
        self._measure("entities_per_sentence", len(example.spans))
        for span in example.spans:
            self.labels[span.label] += 1
            self.surfaces.append(_digest(_plain(example.text[span.start : span.end])))
            self._measure(
                "entity_words", sum(1 for start, end in example.words if start < span.end and end > span.start)
            )

    def _measure(self, name: str, value: int) -> None:
        self.lengths.setdefault(name, Counter())[value] += 1


def _count_words(text: str) -> int:
    """Words between blanks; each character of a script without blanks counts as one."""
    return len((text if text.isascii() else _UNSPACED.sub(" x ", text)).split())


def _digest(*texts: str) -> int:
    """Eight bytes that tell texts apart (blake2b)."""
    packed = "\0".join(texts).encode("utf-8", "surrogatepass")
    return int.from_bytes(hashlib.blake2b(packed, digest_size=8).digest(), "big")


def _plain(text: str) -> str:
    return " ".join(text.lower().split())


def _distinct(hashes: array[int]) -> int:
    return len(np.unique(np.frombuffer(hashes, np.uint64))) if hashes else 0


def _share(part: int, whole: int) -> float:
    return round(part / whole, 6) if whole else 0.0


def _summary(histogram: Counter[int]) -> dict[str, float]:
    """Mean, extremes and quantiles (the smallest value that the share of all does not exceed) of a histogram."""
    values = sorted(histogram)
    below = np.cumsum([histogram[value] for value in values])
    total = int(below[-1])
    mean = sum(value * number for value, number in histogram.items()) / total
    places = {name: int(np.searchsorted(below, math.ceil(share * total))) for name, share in _QUANTILES.items()}
    return {
        "mean": round(mean, 3),
        "min": values[0],
        **{name: values[place] for name, place in places.items()},
        "max": values[-1],
    }
