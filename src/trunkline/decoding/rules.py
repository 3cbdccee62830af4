"""Decoding rules: how a text becomes units, and how what a head says of them becomes predictions."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from trunkline.data.batching import UnitText, text_unit, word_units
from trunkline.data.tokenize import Tokens
from trunkline.decoding.base import Labels, Scored
from trunkline.decoding.bio import decode_bio_tasks
from trunkline.decoding.questions import Words, question_units
from trunkline.decoding.ranked import decode_ranked
from trunkline.decoding.span import END, OUTSIDE, SINGLE, START, decode_spans
from trunkline.errors import MismatchError


@dataclass(frozen=True, slots=True)
class Rule:
    """What turns a text into the units of a task, and their probabilities into its prediction.

    Attributes:
        units: The units of a text, from its words and tokens.
        decode: The predictions of several tasks, for each one a text.
        own_windows: Whether `units` arranges the tokens anew, so that such texts cannot share a trunk with others.
    """

    units: Callable[[str, Words, Tokens], UnitText]
    decode: Callable[[Sequence[Scored]], list[list[Any]]]
    own_windows: bool = False


def _word_units(text: str, words: Words, tokens: Tokens) -> UnitText:
    return word_units(tokens, words)


def _text_unit(text: str, words: Words, tokens: Tokens) -> UnitText:
    return text_unit(tokens)


def _ranked_tasks(tasks: Sequence[Scored]) -> list[list[Any]]:
    return [decode_ranked(task.probabilities, task.texts, task.labels) for task in tasks]


def _span_tasks(tasks: Sequence[Scored]) -> list[list[Any]]:
    return [decode_spans(task.probabilities, task.texts, task.labels) for task in tasks]


RULES: dict[str, Rule] = {
    "bio": Rule(_word_units, decode_bio_tasks),
    "ranked": Rule(_text_unit, _ranked_tasks),
    "span": Rule(question_units, _span_tasks, own_windows=True),
}

FAMILY_RULES: dict[str, str] = {"ner": "bio", "classification": "ranked", "qa": "span"}
"""Family -> its rule."""


def check_labels(rule: str, labels: Labels, where: str) -> None:
    """Raises MismatchError unless a rule can decode these labels; `where` says whose they are."""
    needed = {"bio": (), "ranked": (), "span": (OUTSIDE, START, END, SINGLE)}[rule]
    missing = [label for label in needed if label not in labels]
    if not labels or missing:
        raise MismatchError(
            f"{where} has the labels {', '.join(labels)[:60] or 'none'}",
            expected=", ".join(needed) or "at least one label",
            todo="Adapt the task again",
        )
    wrong = [label for label in labels if label != "O" and not (label[:2] in ("B-", "I-") and label[2:])]
    if rule == "bio" and wrong:
        raise MismatchError(
            f"{where} has the label {wrong[0][:60]!r}",
            expected="O, or B- or I- and a type",
            todo="Adapt the task again",
        )
