"""What is said about cards, on files written here."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import yaml

from trunkline.errors import TrunklineError
from trunkline_lab.data.cards import list_cards
from trunkline_lab.data.describe import list_cards_table, show

CARD: dict[str, Any] = {
    "name": "mine",
    "title": "My data",
    "role": "task",
    "family": "classification",
    "kind": "text",
    "home": "https://example.org/data",
    "licence": "CC0",
    "files": {"train": "./train.csv", "test": {"path": "./no.csv", "options": {"delimiter": ";"}}},
    "reader": "table",
    "labels": {"a": "first", "b_c": ""},
}


def write_card(folder: Path, **changes: Any) -> Path:
    path = folder / "mine.yaml"
    path.write_text(yaml.safe_dump({**CARD, **changes}))
    (folder / "train.csv").write_text("text,label\none two,a\nThree,b_c\nthree,a\n")
    return path


def test_list(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name, changes in (
        ("a", {}),
        ("b", {"role": "source"}),
        ("c", {"family": "ner", "kind": "ner", "reader": "conll", "files": {"train": "./train.csv"}}),
    ):
        write_card(tmp_path, name=name, **changes).rename(tmp_path / f"{name}.yaml")
    monkeypatch.setattr("trunkline_lab.data.cards.CARDS", tmp_path)
    assert [row["name"] for row in list_cards_table()] == ["a", "b", "c"]
    assert [row["name"] for row in list_cards_table("task")] == ["a", "c"]
    assert [row["name"] for row in list_cards_table(family="ner")] == ["c"]
    assert [row["name"] for row in list_cards_table("task", "classification")] == ["a"]
    assert [row["here"] for row in list_cards_table()] == [False, False, True]


def test_list_of_what_there_is_not() -> None:
    with pytest.raises(TrunklineError, match=r"'taks'; did you mean 'task'.*one of task, source"):
        list_cards_table("taks")
    with pytest.raises(TrunklineError, match="one of ner, classification, qa, text"):
        list_cards_table(family="pairs")


def test_list_of_the_shipped_cards() -> None:
    rows = {row["name"]: row for row in list_cards_table()}
    assert list(rows) == list_cards()
    sample = rows["sample_intents"]
    assert (sample["role"], sample["kind"], sample["labels"], sample["here"]) == ("task", "text", 12, True)
    assert sample["counts"]["train"] == 240


def test_show(tmp_path: Path) -> None:
    card = show(write_card(tmp_path))
    train, test = card["files"]["train"][0], card["files"]["test"][0]
    assert (train["here"], train["bytes"]) == (True, (tmp_path / "train.csv").stat().st_size)
    assert (test["here"], test["bytes"], test["options"]) == (False, None, {"delimiter": ";"})
    assert card["labels"] == {"a": "first", "b_c": "b c"}
    assert card["here"] is False
    assert json.loads(json.dumps(card)) == card
