"""Where data sets come from: what cards say of their files, and what is verified."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

import pytest
import yaml
from typer.testing import CliRunner

from trunkline_lab.cli import app
from trunkline_lab.data.cards import DATA_VARIABLE, list_cards, load_card
from trunkline_lab.data.where import record, where


def call(*arguments: str) -> Any:
    return CliRunner().invoke(app, ["data", "where", *arguments], env={"COLUMNS": "300"})


@pytest.fixture
def card(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """A card of two files, one of them named by an option, and the data folder with them."""
    folder = tmp_path / "data" / "set"
    folder.mkdir(parents=True)
    (folder / "seq.in").write_text("a b\n")
    (folder / "seq.out").write_text("O B-x\n")
    monkeypatch.setenv(DATA_VARIABLE, str(tmp_path / "data"))
    content = {
        "name": "mine", "title": "Mine", "role": "task", "family": "ner", "kind": "ner", "reader": "parallel",
        "home": "https://example.org/mine", "licence": "CC0", "files": {"train": "set/seq.in"},
        "options": {"tags": "seq.out"},
    }  # fmt: skip
    path = tmp_path / "mine.yaml"
    path.write_text(yaml.safe_dump(content))
    content["published"] = record(load_card(path))
    path.write_text(yaml.safe_dump(content))
    return str(path)


def test_every_file_that_a_card_reads_is_recorded(card: str) -> None:
    found = load_card(card).published
    assert list(found) == ["set/seq.in", "set/seq.out"]
    assert found["set/seq.in"].sha256 == hashlib.sha256(b"a b\n").hexdigest() and found["set/seq.in"].bytes == 4


def test_a_fingerprint_is_that_of_every_file_that_a_card_reads(card: str, tmp_path: Path) -> None:
    before = load_card(card).fingerprint("train", content=True)
    (tmp_path / "data/set/seq.out").write_text("O B-y\n")  # as long as it was
    assert load_card(card).fingerprint("train", content=True) != before


def test_states_of_files(card: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def states() -> list[str]:
        return [file["state"] for file in where([card])[0]["files"]]

    assert states() == ["verified", "verified"]
    (tmp_path / "data/set/seq.in").write_text("a c\n")  # as long as it was
    (tmp_path / "data/set/seq.out").unlink()
    assert states() == ["differs", "missing"]
    monkeypatch.delenv(DATA_VARIABLE)
    assert states() == ["missing", "missing"]


def test_the_command_says_what_to_get_and_fails_on_another_file(
    card: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shown = call(card)
    assert shown.exit_code == 0
    for part in ("https://example.org/mine", "$TRUNKLINE_DATA/set/seq.in", "4 bytes", "2 verified"):
        assert part in shown.output
    (tmp_path / "data/set/seq.in").write_text("other\n")
    assert call(card).exit_code == 1
    monkeypatch.delenv(DATA_VARIABLE)
    shown = call(card, "--json")
    assert shown.exit_code == 0 and [file["state"] for file in json.loads(shown.stdout)[0]["files"]] == ["missing"] * 2
    assert "TRUNKLINE_DATA is not set" in call(card).output


def test_every_public_data_set_says_which_files_its_numbers_came_from() -> None:
    for name in list_cards():
        card = load_card(name)
        if card.home.startswith("http"):
            assert card.published, name
            named = {ref.path for refs in card.files.values() for ref in refs}
            lost = {"downstream/tc/tweeteval/sentiment/train_text.txt"}
            assert named <= card.published.keys() | lost, name
