"""The page of an evaluation: everything is in it, nothing is run or fetched, and it stays small."""

from __future__ import annotations

import re
from html.parser import HTMLParser
from typing import Any

import pytest
from test_evaluation import classified, evaluated, tagged

from trunkline.results import Evaluation
from trunkline.results.page import page
from trunkline.results.show import LONGEST, MOST, pieces, shortened, taken_for, visible
from trunkline.text.examples import NerExample, Span, TextExample

HOSTILE = [
    "<script>alert(1)</script>",
    '"><img src=x onerror=alert(1)>',
    "<svg onload=alert(1)>",
    "</style></main>",
    "&lt;b&gt;",
    "$title ${body}",
    "a\u202eb\u2066c",
    "\x1b[31mred\x00",
    "line\nfeed",
    "'single' & \"double\"",
    "[red]bold[/]",
    "x" * 300,
]
VOID = {"meta", "link"}


class Reader(HTMLParser):
    """Reads a page: tags that are not closed in order are an error; collects attributes and text."""

    def __init__(self, content: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.tags: list[str] = []
        self.attributes: list[tuple[str, str, str | None]] = []
        self.words = ""
        self.feed(content)
        self.close()
        assert self.open == []

    def handle_starttag(self, tag: str, attrs: Any) -> None:
        self.tags.append(tag)
        self.attributes += [(tag, name, value) for name, value in attrs]
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: Any) -> None:
        self.tags.append(tag)
        self.attributes += [(tag, name, value) for name, value in attrs]

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.words += "" if "style" in self.open else data


def hostile() -> list[Evaluation]:
    """Evaluations whose labels and texts attack the page, of both families."""
    gold = [TextExample(text, label) for text in HOSTILE for label in HOSTILE]
    said = [{"label": HOSTILE[n % len(HOSTILE)], "score": 0.5, "probabilities": {}} for n in range(7, 7 + len(gold))]
    texts = evaluated("classification", gold, said, HOSTILE)
    rows, found = [], []
    for label in HOSTILE:
        text = f"{label} {label}"
        rows.append(NerExample(text, (), (Span(0, len(label), label),)))
        where = {"start": len(label) + 1, "end": len(text), "text": label}
        found.append([{**where, "label": label, "score": 0.5}])
    return [texts, evaluated("ner", rows, found, HOSTILE)]


@pytest.mark.parametrize("number", [0, 1], ids=["classification", "ner"])
def test_hostile_labels_and_texts_are_only_shown(number: int) -> None:
    result = hostile()[number]
    shown = Reader(result.to_html(result.against(result)))
    assert not {"script", "img", "iframe", "form", "input", "object"} & set(shown.tags)
    assert not [one for one in shown.attributes if one[1].startswith("on")]
    assert {value for _, name, value in shown.attributes if name in ("src", "href") and value[:1] != "#"} == {"data:,"}
    for text in HOSTILE:
        assert visible(text) in shown.words
    assert not re.search(r"[\x00-\x08\x0b-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069]", result.to_html())
    policy = dict(one[1:] for one in shown.attributes if one[0] == "meta" and one[1] == "content")["content"]
    assert policy.startswith("default-src 'none'")


@pytest.mark.parametrize("family", ["classification", "ner"])
def test_it_has_what_the_evaluation_has(family: str) -> None:
    gold, found = classified(200) if family == "classification" else tagged(50)
    result = evaluated(family, gold, found)
    curve = {"measure": "f1", "folds": 5, "points": [{"examples": n, "score": n / 50, "spread": 0.1} for n in (8, 40)]}
    shown = Reader(page(result.to_dict(), result.against(result).to_dict(), curve))
    for value in (*result.scores.values(), *(row["recall"] for row in result.labels.values())):
        assert f"{value:.2%}" in shown.words
    for count, said in taken_for(result.confusion)[:15]:
        assert f"{said}{count}" in shown.words
    assert shown.tags.count("svg") == 4 + len(result.labels)
    assert "no difference between task of bundle and task of bundle is shown" in shown.words
    assert f"held-out folds of 5, {len(gold)} examples" in shown.words
    pictures = [one[2] for one in shown.attributes if one[0] == "svg" and one[1] == "aria-label"]
    assert len(pictures) == 4, "all but bars, which have their number beside them"
    if family == "classification":
        for row in result.wrong:
            assert row["text"] in shown.words
    else:
        assert f"missed {result.errors['missed']}" in shown.words
        assert shown.words.count(", missed") >= result.errors["missed"]


def test_thousands_of_wrong_examples_make_a_bounded_page() -> None:
    long = [TextExample(f"{n} " + "word " * 5000, f"label {n % 700}") for n in range(3000)]
    said = [{"label": f"label {(n + 1) % 700}", "score": 0.5, "probabilities": {}} for n in range(3000)]
    result = evaluated("classification", long, said)
    assert result.n_wrong == 3000
    content = result.to_html()
    assert len(content) < 800_000
    assert "500 of 3,000." in content
    assert "The first 300 of 700." in content
    assert "Of 700 labels the 20 that are confused most." in content
    dense = NerExample("ab " * 3000, (), tuple(Span(3 * n, 3 * n + 2, "x") for n in range(3000)))
    assert len(evaluated("ner", [dense] * 50, [[]] * 50).to_html()) < 400_000


def test_a_text_is_cut_into_its_entities() -> None:
    text = "ann met bob in oslo"
    ann, bob, both = [0, 3, "ann", "x"], [8, 11, "bob", "y"], [0, 11, "ann met bob", "z"]
    assert pieces(text, [ann, bob], [bob]) == [
        ("ann", "x", False), (" met ", "", True), ("bob", "y", True), (" in oslo", "", True),
    ]  # fmt: skip
    assert pieces(text, [ann, both, bob], []) == [
        ("ann", "x", False), (" met ", "", True), ("bob", "y", False), (" in oslo", "", True),
        ("ann met bob", "z", False),
    ]  # fmt: skip
    many = [[n, n + 1, "a", "x"] for n in range(100)]
    found = pieces("a" * 100, many, [])
    assert sum(bool(label) for _, label, _ in found) == MOST
    assert found[-1][0] == " … and 40 more entities"
    far = pieces("b" * 1000 + "ann" + "c" * 1000, [[1000, 1003, "ann", "x"]], [])
    assert [len(piece[0]) for piece in far] == [163, 3, 163]
    assert far[0][0].endswith("bbb")
    assert shortened("a" * LONGEST + "bc") == "a" * 300 + " … " + "a" * 298 + "bc"
