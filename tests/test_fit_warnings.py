"""Warnings of a fit or an evaluation that only some texts bring about."""

from __future__ import annotations

from pathlib import Path

import pytest

import trunkline
from trunkline.encoder.bundle_files import Loaded, save_bundle
from trunkline.model import Model

KNOWN = ["ann lives in berlin", "bob works in rome"] * 10


@pytest.fixture
def model(tiny: Loaded, tmp_path: Path) -> Model:
    save_bundle(tiny, tmp_path / "bundle")
    return trunkline.load(tmp_path / "bundle")


@pytest.mark.parametrize(("others", "count"), [([], 0), (["мы идем в парк", "они поют"], 1)])
def test_a_language_that_the_encoder_does_not_know_is_said(others: list[str], count: int, model: Model) -> None:
    texts = [*KNOWN, *others]
    warnings = model.fit("a", texts, ["x", "y"] * (len(texts) // 2)).warnings
    assert sum("the encoder does not know" in warning for warning in warnings) == count


@pytest.mark.parametrize(("end", "count"), [(3, 0), (2, 1)])
def test_a_span_that_ends_inside_a_word_is_named(end: int, count: int, model: Model) -> None:
    spans = [[(0, 3, "name")]] * (len(KNOWN) - 1) + [[(0, end, "name")]]
    said = [w for w in model.fit("a", KNOWN, spans).warnings if w.startswith("1 labelled spans do not begin and end")]
    assert len(said) == count
    assert all("'bo' in 'bob works in rome'" in warning for warning in said)


def test_an_evaluation_warns_of_labels_alone_that_the_task_does_not_know(model: Model) -> None:
    model.fit("a", KNOWN, ["x", "y"] * 10)
    assert list(model.evaluate("a", KNOWN, ["x", "y"] * 10).warnings) == []
    (warning,) = model.evaluate("a", ["ann lives", "bob works"], ["x", "zebra"]).warnings
    assert "zebra" in warning
