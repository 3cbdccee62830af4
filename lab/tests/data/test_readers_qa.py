"""Questions: SQuAD files, question lines, and questions made of labelled sentences."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
import yaml

from trunkline.bundle.files import write_atomic
from trunkline.errors import DataError, RecipeError
from trunkline.text.examples import QaExample
from trunkline_lab.data.cards import list_cards, load_card
from trunkline_lab.data.readers import READERS
from trunkline_lab.data.readers.ner_questions import TEMPLATES, concept_name

SENTENCES = [
    {"text": "Ann met Bob in Oslo", "entities": [[0, 3, "person"], [8, 11, "person"], [15, 19, "big_city"]]},
    {"text": "Rome is far", "entities": [[0, 4, "big_city"]]},
    {"text": "nothing here", "entities": []},
]


def read(name: str, path: Path) -> list[Any]:
    return list(READERS[name].read(path))


def answers(example: Any) -> list[str]:
    return [example.context[start:end] for start, end in example.answers]


def sentences(folder: Path, rows: Any = SENTENCES, **options: Any) -> list[Any]:
    write_atomic(folder / "s.jsonl", "".join(json.dumps(row) + "\n" for row in rows))
    return list(READERS["ner_questions"].read(folder / "s.jsonl", options))


def test_questions_ask_for_all_entities_of_a_concept(tmp_path: Path) -> None:
    concepts = {"person": "a person", "big_city": "the city: where people live"}
    found = sentences(tmp_path, concepts=concepts, absent=0, per_text=2)
    first = {("city" in item.question.lower()): answers(item) for item in found if item.context == SENTENCES[0]["text"]}
    assert first == {True: ["Oslo"], False: ["Ann", "Bob"]}
    assert [answers(item) for item in found if item.context == "Rome is far"] == [["Rome"]]
    assert len(found) == 3, "nothing is asked about a sentence without an entity"
    assert all(item.question[0].isupper() and "{" not in item.question for item in found)


def test_questions_are_the_same_whatever_stands_before(tmp_path: Path) -> None:
    options: dict[str, Any] = {"concepts": {"person": "person", "big_city": "city"}, "absent": 0.5}
    whole = sentences(tmp_path, **options)
    assert sentences(tmp_path, SENTENCES[::-1], **options) == whole[::-1]
    rows = [{"text": f"Ann {number}", "entities": [[0, 3, "person"]]} for number in range(400)]
    found = sentences(tmp_path, rows, **options)
    assert 0.4 < sum(not item.answers for item in found) / len(found) < 0.6
    assert all(("city" in item.question.lower()) == (not item.answers) for item in found)
    wordings = Counter(item.question.lower().replace("city", "person") for item in found)
    assert len(wordings) == len(TEMPLATES)
    assert sentences(tmp_path, rows, seed=1, **options) != found


def test_without_given_concepts_those_of_earlier_sentences_are_asked_for(tmp_path: Path) -> None:
    rows = [SENTENCES[1], *({"text": f"Ann {n}", "entities": [[0, 3, "person"]]} for n in range(50))]
    found = [item for item in sentences(tmp_path, rows, absent=0.9) if not item.answers]
    assert found and all("big city" in item.question.lower() for item in found)


def test_words_of_concepts() -> None:
    names = ["area: city where it is", "the balance", "An hour", "a", ": x"]
    assert [concept_name(name) for name in names] == ["area", "balance", "hour", "a", ": x"]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"of": "table"}, "of: 'table' is no reader of labelled sentences"),
        ({"of": "spans", "options": {"text_kee": "t"}}, "reader spans: text_kee: unknown key"),
        ({"absent": 1}, "absent"),
        ({"card": "gmb"}, "card: unknown key"),
    ],
)
def test_wrong_options_of_questions(tmp_path: Path, options: dict[str, Any], message: str) -> None:
    with pytest.raises(RecipeError, match=message):
        sentences(tmp_path, **options)


def test_errors_of_the_sentences_come_through(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"s\.jsonl:1: the entity 'x' has the offsets"):
        sentences(tmp_path, [{"text": "a", "entities": [[0, 9, "x"]]}])
    with pytest.raises(DataError, match=r"s\.jsonl: the file has no example"):
        sentences(tmp_path, SENTENCES[2:])


def card(folder: Path, name: str = "questions", **changes: Any) -> Path:
    base = {"name": "sentences", "role": "source", "home": "https://example.org", "licence": "CC0", "title": "t"}
    ner = {"family": "ner", "kind": "ner", "reader": "spans", "files": {"train": "./s.jsonl"}}
    ner |= {"labels": {"person": "person", "big_city": "city"}}
    (folder / "sentences.yaml").write_text(yaml.safe_dump({**base, **ner}))
    qa = {"name": name, "family": "qa", "kind": "qa", "reader": "ner_questions"}
    own = {**base, **qa, "options": {"card": "sentences.yaml"}, **changes}
    (folder / f"{name}.yaml").write_text(yaml.safe_dump(own))
    return folder / f"{name}.yaml"


def test_a_card_over_another_card(tmp_path: Path) -> None:
    (tmp_path / "deep").mkdir()
    expected = sentences(tmp_path, concepts={"person": "person", "big_city": "city"})
    made = load_card(card(tmp_path))
    assert made.load("train") == expected
    assert made.is_here()
    before = made.fingerprint("train")
    write_atomic(tmp_path / "s.jsonl", json.dumps(SENTENCES[0]))
    assert load_card(card(tmp_path)).fingerprint("train") != before
    far = {"options": {"card": "../sentences.yaml", "absent": 0}}
    card(tmp_path)
    (tmp_path / "deep" / "far.yaml").write_text(yaml.safe_dump({**yaml.safe_load(card(tmp_path).read_text()), **far}))
    assert [answers(item) for item in load_card(tmp_path / "deep" / "far.yaml").load("train")] in (
        [["Ann", "Bob"]],
        [["Oslo"]],
    )


def test_cards_over_what_is_no_card_of_sentences_are_refused(tmp_path: Path) -> None:
    with pytest.raises(RecipeError, match=r"options\.card: no card 'gmbb'; did you mean 'gmb'"):
        load_card(card(tmp_path, options={"card": "gmbb"}))
    with pytest.raises(RecipeError, match=r"options\.card: sample_pairs is of kind pair.*a card of kind ner"):
        load_card(card(tmp_path, options={"card": "sample_pairs"}))
    with pytest.raises(RecipeError, match=r"options\.card: questions is made of another card itself"):
        load_card(card(tmp_path, options={"card": "questions.yaml"}))
    with pytest.raises(RecipeError, match=r"options\.card: .* takes dev out of another split"):
        load_card(card(tmp_path, options={"card": "hwu64_slots"}))


def test_the_shipped_questions() -> None:
    assert {"sample_questions", "gmb_questions", "sgd_questions"} <= set(list_cards())
    made = load_card("sample_questions")
    parts = {split: made.load(split) for split in ("train", "dev")}
    train: list[Any] = parts["train"]
    assert 0.75 < sum(bool(item.answers) for item in train) / len(train) < 0.85
    assert sum(len(item.question.split()) for item in train) / len(train) > 3
    contexts = {split: {item.context for item in part if isinstance(item, QaExample)} for split, part in parts.items()}
    assert not contexts["train"] & contexts["dev"]
