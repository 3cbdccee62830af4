"""What is said about cards and their data, on files written here."""

from __future__ import annotations

import json
import statistics
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from trunkline.errors import TrunklineError
from trunkline.text.examples import NerExample, PairExample, Span, TextExample, join_tokens
from trunkline_lab.data.cards import list_cards
from trunkline_lab.data.describe import count, list_cards_table, show, stats

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

SETTINGS = settings(derandomize=True, deadline=None, max_examples=40, suppress_health_check=[HealthCheck.too_slow])


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


def test_stats_of_texts(tmp_path: Path) -> None:
    path = write_card(tmp_path)
    found = stats(path, "train")
    assert (found["name"], found["kind"], list(found["splits"])) == ("mine", "text", ["train"])
    train = found["splits"]["train"]
    assert train["examples"] == 3
    assert train["duplicates"] == {"count": 1, "share": round(1 / 3, 6)}
    assert [(row["label"], row["concept"], row["count"]) for row in train["labels"]] == [
        ("a", "first", 2),
        ("b_c", "b c", 1),
    ]
    assert (train["words"]["mean"], train["words"]["min"], train["words"]["max"]) == (1.333, 1, 2)
    assert json.loads(json.dumps(found)) == found
    resplit = {"dev": {"from": "train", "fraction": 0.5}}
    both = stats(write_card(tmp_path, files={"train": "./train.csv"}, resplit=resplit))
    assert sorted(part["examples"] for part in both["splits"].values()) == [1, 2]


def test_stats_of_what_is_not_there(tmp_path: Path) -> None:
    path = write_card(tmp_path)
    with pytest.raises(TrunklineError, match="no split 'trian'; did you mean 'train'"):
        stats(path, "trian")
    with pytest.raises(TrunklineError, match=r"no\.csv.*is not here"):
        stats(path)
    with pytest.raises(TrunklineError, match="no card 'sample_intent'; did you mean 'sample_intents'"):
        stats("sample_intent")


def test_entities() -> None:
    text, words = join_tokens(["Ann", "saw", "New", "York", "and", "new", "york", "."])
    spans = (Span(0, 3, "per"), Span(8, 16, "loc"), Span(21, 29, "loc"))
    found = count([NerExample(text, words, spans), NerExample("No one", ((0, 2), (3, 6)), ())])
    assert (found["entities"], found["surfaces"], found["sentences_with_entities"]) == (3, 2, 0.5)
    assert [(row["label"], row["count"], row["share"]) for row in found["labels"]] == [
        ("loc", 2, 0.666667),
        ("per", 1, 0.333333),
    ]
    assert (found["entity_words"]["min"], found["entity_words"]["max"]) == (1, 2)
    assert (found["entities_per_sentence"]["mean"], found["words"]["max"]) == (1.5, 8)


def test_pairs() -> None:
    pairs = [PairExample("a b", "c", "x"), PairExample("A  b", "C", "x"), PairExample("a", "b c", "y")]
    found = count([*pairs, PairExample("a", "b", "")])
    assert found["duplicates"]["count"] == 1
    assert found["groups"] == 2
    assert found["left_words"]["mean"] == 1.5
    assert "labels" not in found and "words" not in found


@SETTINGS
@given(st.lists(st.integers(1, 40), min_size=1, max_size=60))
def test_quantiles(lengths: list[int]) -> None:
    words = count(TextExample(" ".join(["w"] * n), "x") for n in lengths)["words"]
    assert words["mean"] == pytest.approx(statistics.fmean(lengths), abs=1e-3)
    assert (words["min"], words["max"]) == (min(lengths), max(lengths))
    assert words["median"] == statistics.median_low(lengths)
    for name, share in (("p5", 0.05), ("p25", 0.25), ("p75", 0.75), ("p95", 0.95)):
        assert sum(n <= words[name] for n in lengths) >= share * len(lengths) - 1e-9
        assert sum(n < words[name] for n in lengths) < share * len(lengths) + 1e-9


@SETTINGS
@given(st.lists(st.sampled_from("abc"), min_size=1))
def test_shares_and_duplicates(labels: list[str]) -> None:
    found = count(TextExample(f"text {label}", label) for label in labels)
    assert sum(row["count"] for row in found["labels"]) == found["examples"] == len(labels)
    assert sum(row["share"] for row in found["labels"]) == pytest.approx(1, abs=1e-5)
    assert found["duplicates"]["count"] == len(labels) - len(set(labels))
    counts = [row["count"] for row in found["labels"]]
    assert counts == sorted(counts, reverse=True)


def test_one_pass() -> None:
    given_out = 0

    def examples() -> Iterator[TextExample]:
        nonlocal given_out
        for number in range(1000):
            given_out += 1
            yield TextExample(f"text {number}", "x")

    assert count(examples())["examples"] == given_out == 1000


def test_nothing() -> None:
    assert count([]) == {"examples": 0, "duplicates": {"count": 0, "share": 0.0}}
