"""Removing what touches a dev or test set: exactly that, and nothing else."""

from __future__ import annotations

import pytest

from trunkline.data.overlap import OverlapIndex, decontaminate
from trunkline.text.examples import Example, NerExample, PairExample, PlainExample, TextExample
from trunkline.text.words import split_words

HELD_OUT = "The old ferry to the northern island leaves the harbour every morning at half past seven"
NEAR = HELD_OUT.replace("every", "each")
SHORT = "Book a table tonight"


def ner(text: str) -> NerExample:
    return NerExample(text, split_words(text), ())


@pytest.fixture
def index() -> OverlapIndex:
    return OverlapIndex([("ferries@test", HELD_OUT), ("orders@dev", SHORT), ("orders@dev", "yes please")])


def test_removes_what_touches(index: OverlapIndex) -> None:
    examples: list[Example] = [
        TextExample("A text of its own about boats", "x"),
        TextExample(HELD_OUT, "x"),
        ner(HELD_OUT.upper()),
        PlainExample(NEAR),
        PairExample("What shall we do?", SHORT),
        PairExample(SHORT, "Which one?"),
        PlainExample(f"Travel news. {HELD_OUT}. Bring a coat."),
        ner("Yes please"),
        PlainExample("Do you want tea? Yes please. Book a table tonight. Thanks."),
        PairExample("Which ferry goes to the island?", "It leaves at seven."),
    ]
    kept, kinds, owners = decontaminate(examples, index)
    assert kept == [0, 7, 8, 9]
    assert kinds == {"exact": 3, "normalised": 1, "near": 1, "contained": 1}
    assert owners == {"ferries@test": 4, "orders@dev": 2}


def test_reads_any_iterable(index: OverlapIndex) -> None:
    lines = (PlainExample(HELD_OUT if n % 50 == 7 else f"a line about ship number {n}") for n in range(200))
    kept, kinds, _ = decontaminate(lines, index)
    assert kinds.total() == 4
    assert sorted(set(range(200)) - set(kept)) == [7, 57, 107, 157]


def test_nothing_to_remove(index: OverlapIndex) -> None:
    assert decontaminate([], index) == ([], {}, {})
    assert decontaminate([PlainExample("something else entirely here")], index) == ([0], {}, {})
    assert decontaminate([PlainExample("yes please"), PlainExample(SHORT)], index)[0] == [0]
