"""The demo page says what Python says, learns from examples, refuses what is damaged, and asks nobody else."""

from __future__ import annotations

import base64
import json
import re
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
from chromium import missing, run_page, served

from trunkline.model import load

pytestmark = [pytest.mark.browser, pytest.mark.skipif(bool(missing()), reason=missing())]
TEXT = "Could you pencil in Eilif for Thursday at nine, same bench outside Havnekaia Hall?"


@pytest.fixture(scope="module")
def shown(bundles: Path) -> dict[str, Any]:
    """What the page shows to a visitor; see demo.mjs."""
    return run_page("tests/browser/demo.html", {"/work.json": json.dumps({"text": TEXT}).encode(), **served(bundles)})


def test_it_reads_a_message_as_python_does(shown: dict[str, Any], bundles: Path) -> None:
    model = load(bundles / "default")
    (found,) = model.predict([TEXT])
    assert shown["read"]["tasks"] == sorted(model.tasks)
    # In 8 bits a prediction that is not sure may differ, also between two batches of Python.
    entities = [entity for name in model.tasks if model.tasks[name] == "ner" for entity in found[name]]
    python = {(entity["text"], entity["label"]): entity["score"] for entity in entities}
    tags = [(text, tag.rpartition(" ")) for text, tag in shown["read"]["marks"]]
    page = {(text, label): int(score.rstrip("%")) / 100 for text, (label, _, score) in tags}
    assert len(python.keys() & page.keys()) >= 4
    for one, other in ((python, page), (page, python)):
        assert {entity for entity, score in one.items() if score > 0.8} <= other.keys()
    tops = {name: found[name]["label"] for name in model.tasks if model.tasks[name] == "classification"}
    bars = shown["read"]["bars"]
    assert [label for label, _ in bars[::6]] == [tops[name] for name in sorted(tops)]
    assert all(a >= b for row in (bars[:6], bars[6:]) for (_, a), (_, b) in pairwise(row))


def test_it_learns_from_examples_and_gives_the_task_away(shown: dict[str, Any], bundles: Path) -> None:
    said = re.match(r"intent: (\d+)% accuracy on held-out examples.*from 12 examples in (\d+) ms", shown["learnt"])
    assert said, shown["learnt"]
    assert int(said[1]) > 50
    assert "intent" in shown["taught"]["tasks"]
    assert shown["boxes"] == 5
    assert shown["towns"].startswith("towns:")
    model = load(bundles / "default")
    model.add("intent", base64.b64decode(shown["file"]))
    (found,) = model.predict([TEXT], ["intent"])
    (top, probability), *_ = shown["taught"]["bars"][12:]
    assert found["intent"]["label"] == top
    assert found["intent"]["score"] == pytest.approx(probability, abs=0.05)


def test_it_refuses_a_damaged_task_and_takes_a_whole_one(shown: dict[str, Any]) -> None:
    assert shown["refused"].startswith("task broken: ")
    assert shown["after"] == {"refused": "", "boxes": 7}


def test_it_is_fast(shown: dict[str, Any]) -> None:
    # The aims are 3 s, 60 ms and 1 s on two quiet cores; other work on the machine has taken four times as long.
    assert shown["ready"] < 4 * 3000
    assert shown["keystroke"] < 4 * 60
    assert int(re.search(r"12 examples in (\d+) ms", shown["learnt"])[1]) < 4 * 1000


def test_it_is_quiet_asks_nobody_else_and_fits_a_phone(shown: dict[str, Any]) -> None:
    assert shown["console"] == []
    assert all(re.match(r"(http://127\.0\.0\.1:\d+/(web|bundles)/|blob:)", name) for name in shown["resources"])
    assert shown["narrow"] <= 360
    assert shown["labels"] == [], "parts without a name for screen readers"
