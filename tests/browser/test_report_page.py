"""The page of an evaluation in a browser: quiet, by itself, readable in both themes, on a phone and by keyboard."""

from __future__ import annotations

import json
from typing import Any

import pytest
from chromium import browser, run_page

from trunkline.results import Evaluation
from trunkline.results.page import page
from trunkline.tasks import FAMILIES
from trunkline.text.examples import NerExample, Span, TextExample

pytestmark = [pytest.mark.browser, pytest.mark.skipif(browser() is None, reason="no Chromium is installed")]
ATTACK = '<img src="http://127.0.0.1:9/x" onerror="window.attacked=1"><script>window.attacked=1</script>'
LABELS = ["delivery", "refund", "a label of quite some length that goes on", ATTACK, *(f"kind {n}" for n in range(40))]


def classification() -> Evaluation:
    gold = [TextExample(f"text {n} {'and more words ' * (n % 30)}", LABELS[n * n % 44]) for n in range(3000)]
    said = [LABELS[(n * n + (n % 3 == 0)) % 44] for n in range(3000)]
    found = [{"label": label, "score": n % 100 / 100, "probabilities": {label: 0.9}} for n, label in enumerate(said)]
    return Evaluation.of("intent", FAMILIES["classification"], gold, found, LABELS, "bot")


def ner() -> Evaluation:
    text = f"Call Ana in Oslo {ATTACK} or \u062a\u0635\u0644 " + "x" * 300
    gold = [NerExample(text, (), (Span(5, 8, "person"), Span(12, 16, ATTACK))) for _ in range(20)]
    entity = {"start": 5, "end": 16, "text": text[5:16], "label": "person", "score": 0.7}
    return Evaluation.of("names", FAMILIES["ner"], gold, [[entity]] * 20, ["person"], "bot")


@pytest.fixture(scope="module")
def seen() -> dict[str, Any]:
    """What is seen of the pages; see report.mjs."""
    texts, names = classification(), ner()
    curve = {
        "measure": "accuracy",
        "folds": 5,
        "points": [{"examples": n, "score": n / 99, "spread": 0.05} for n in (8, 90)],
    }
    pages = {
        "/texts.html": page(texts.to_dict(), texts.against(texts).to_dict(), curve),
        "/names.html": names.to_html(),
    }
    work = {"/work.json": json.dumps({"names": [name[1:] for name in pages]}).encode()}
    return run_page("tests/browser/report.html", work | {name: content.encode() for name, content in pages.items()})


def test_it_is_quiet_and_asks_nobody(seen: dict[str, Any]) -> None:
    assert len(seen["found"]) == 8
    assert seen["console"] == []
    assert [row["requests"] for row in seen["found"]] == [[]] * 8
    assert [row["active"] for row in seen["found"]] == [None] * 8


def test_it_is_readable_in_light_and_dark(seen: dict[str, Any]) -> None:
    for row in seen["found"]:
        assert row["dark"] == (row["theme"] == "dark")
        assert row["contrast"][0] >= 4.5, row["contrast"]
    assert len({row["background"] for row in seen["found"]}) == 2


def test_it_fits_a_phone_and_the_keyboard_reaches_all(seen: dict[str, Any]) -> None:
    for row in seen["found"]:
        assert row["wide"] <= row["width"]
        assert (row["unnamed"], row["unreached"], row["unscrolled"], row["lost"]) == (0, 0, 0, 0)


def test_thousands_of_wrong_examples_are_bounded(seen: dict[str, Any]) -> None:
    assert {row["name"]: row["shown"] for row in seen["found"]} == {"texts.html": 500, "names.html": 20}
