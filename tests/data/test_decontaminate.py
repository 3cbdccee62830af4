"""Removing what touches a dev or test set: exactly that, and nothing else."""

from __future__ import annotations

import json
from dataclasses import asdict

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
    kept, report = decontaminate(examples, index)
    assert kept == [0, 7, 8, 9]
    assert (report.examined, report.removed) == (10, 6)
    assert report.by_kind == {"exact": 3, "normalised": 1, "near": 1, "contained": 1}
    assert report.by_owner == {"ferries@test": 4, "orders@dev": 2}
    assert [sample["kind"] for sample in report.samples] == [
        "exact",
        "normalised",
        "near",
        "exact",
        "exact",
        "contained",
    ]
    near = next(sample for sample in report.samples if sample["kind"] == "near")
    assert near["text"] == NEAR and near["held_out"] == HELD_OUT and 0.8 <= near["similarity"] < 1
    assert json.loads(json.dumps(asdict(report))) == asdict(report)


def test_short_texts_are_an_option(index: OverlapIndex) -> None:
    examples = [PlainExample("yes please"), PlainExample(SHORT)]
    assert decontaminate(examples, index)[0] == [0]
    assert decontaminate(examples, index, min_exact_words=1)[0] == []
    assert decontaminate(examples, index, min_exact_words=5)[0] == [0, 1]


def test_reads_any_iterable(index: OverlapIndex) -> None:
    lines = (PlainExample(HELD_OUT if n % 50 == 7 else f"a line about ship number {n}") for n in range(200))
    kept, report = decontaminate(lines, index)
    assert report.examined == 200 and report.removed == 4
    assert sorted(set(range(200)) - set(kept)) == [7, 57, 107, 157]


def test_nothing_to_remove(index: OverlapIndex) -> None:
    kept, report = decontaminate([], index)
    assert kept == [] and report.removed == 0
    kept, report = decontaminate([PlainExample("something else entirely here")], index)
    assert kept == [0] and report.by_kind == {} and report.samples == []
