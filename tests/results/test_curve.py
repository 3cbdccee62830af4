"""The learning curve judges heads on what they have not learnt from."""

from __future__ import annotations

from itertools import pairwise
from pathlib import Path

import pytest

import trunkline
from deployed import deploy
from test_model import entities, labelled
from trunkline import curve
from trunkline.curve import learning_curve
from trunkline.encoder.bundle_files import Loaded
from trunkline.errors import TrunklineError


@pytest.fixture
def model(tiny: Loaded, tmp_path: Path) -> trunkline.Model:
    return trunkline.load(deploy(tiny, tmp_path / "bundle"))


@pytest.mark.parametrize("family", ["classification", "ner", "multilabel"])
def test_more_labels_are_better(family: str, model: trunkline.Model) -> None:
    texts, labels = entities(60, 1) if family == "ner" else labelled(60, 1)
    if family == "multilabel":
        labels = [[label] for label in labels]
    found = learning_curve(model, texts, labels, folds=3)
    sizes = [point["examples"] for point in found.points]
    assert (sizes[0], len(sizes)) == (8, 6)
    assert sizes[-1] in (39, 40)
    assert found.held_out.examples == 60
    assert found.held_out.scores[found.measure] == found.points[-1]["score"]
    assert found.measure == {"classification": "accuracy", "ner": "f1", "multilabel": "micro_f1"}[family]
    assert found.points[-1]["score"] > found.points[0]["score"]
    assert all(point["spread"] >= 0 for point in found.points)
    assert learning_curve(model, texts, labels, folds=3) == found


def test_no_head_learns_from_what_judges_it(model: trunkline.Model, monkeypatch: pytest.MonkeyPatch) -> None:
    texts, labels = labelled(40, 1)
    seen: list[tuple[set[int], set[int]]] = []

    def look(kind, data, train, held, settings):
        seen.append((set(train), set(held)))
        return [{"label": "name", "score": 1.0, "probabilities": {"name": 1.0}} for _ in held]

    monkeypatch.setattr(curve, "_predictions", look)
    learning_curve(model, texts, labels, folds=4)
    assert all(not train & held for train, held in seen)
    for sizes in zip(*(seen[n : n + 4] for n in range(0, len(seen), 4)), strict=True):
        assert all(a[0] < b[0] for a, b in pairwise(sizes)), "parts grow within each other"
    assert set().union(*(held for _, held in seen)) == set(range(40))
    # The beginnings have the labels in proportion.
    for train, _ in seen[:4]:
        assert {labels[n] for n in train} == set(labels)


def test_few_and_rare_labels_have_a_curve_and_two_examples_have_none(model: trunkline.Model) -> None:
    few = learning_curve(model, ["a b", "c d", "e f", "g h", "i j", "k l"], ["x", "y"] * 3, folds=3)
    assert [point["examples"] for point in few.points] == [4]
    texts = [f"{text} {number}" for number, text in enumerate(labelled(30, 1)[0])]
    rare = learning_curve(model, texts, ["x"] * 28 + ["y"] * 2, folds=3)
    assert rare.points[0]["examples"] == 8
    spans = learning_curve(model, texts, [[]] * 28 + [[(0, text.index(" "), "z")] for text in texts[28:]], folds=3)
    assert spans.measure == "f1"
    with pytest.raises(TrunklineError, match=r"a learning curve of 2 examples.*at least two"):
        learning_curve(model, ["a b", "c d"], ["x", "y"])
