"""The report of a mixture: cleaned, counted, shares of the draws."""

from __future__ import annotations

from pathlib import Path

import pytest

import tiny_models
from trunkline.config import parse_recipe
from trunkline.data.source_card import SourceCard, write_source_card
from trunkline_lab.data.finder import MixtureRecipe, describe_mixture


def test_a_mixture_is_cleaned_and_counted(tmp_path: Path) -> None:
    rows = tiny_models.ner_rows(40)
    first = tiny_models.write_jsonl(tmp_path / "first.jsonl", rows)
    write_source_card(SourceCard(name="first", family="ner", licence="CC0-1.0"), tmp_path / "first.yaml")
    second = tiny_models.write_jsonl(tmp_path / "second.jsonl", tiny_models.ner_rows(30, 1))
    pairs = tiny_models.write_jsonl(tmp_path / "pairs.jsonl", tiny_models.pair_rows(30))
    leak = next(row["text"] for row in rows if len(row["text"].split()) > 4)
    task = tiny_models.write_jsonl(tmp_path / "task.jsonl", [{"text": leak, "label": "a"}])
    raw = {
        "name": "mine",
        "families": {
            "ner": {"sources": {str(first): {}, str(second): {"weight": 2}}},
            "classification": {"sources": {str(pairs): {"cap": 10}}},
        },
    }
    clean = describe_mixture(parse_recipe(raw, MixtureRecipe, "m"))
    assert clean["totals"]["ner"] == {"sources": 2, "examples": 70, "labelled": 70, "concepts": 3}
    assert "decontaminated" not in clean
    report = describe_mixture(parse_recipe({**raw, "decontaminate": {"against": str(task)}}, MixtureRecipe, "m"))
    found = {row["source"]: row for row in report["sources"]}
    assert found["first"]["removed"] >= 1 and found["first"]["why"]["by_owner"] == {
        "task.jsonl": found["first"]["removed"]
    }
    assert found["first"]["left"] == 40 - found["first"]["removed"]
    assert (found["first"]["licence"], found["first"]["coverage"]) == ("CC0-1.0", "open")
    assert found["first"]["share"] == pytest.approx(1 / 3) and found["pairs"]["share"] == 1
    assert found["pairs"]["left"] == 10
    assert report["decontaminated"] == {"against": [str(task)], "threshold": 0.8}
