"""Cards: every shipped one parses, problems are listed at once, splits are taken out the same way everywhere."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml

from trunkline.errors import DataError, RecipeError, TrunklineError
from trunkline.text.examples import NerExample, PairExample, TextExample
from trunkline_lab.data.cards import DATA_VARIABLE, Card, list_cards, load_card
from trunkline_lab.data.readers import READERS
from trunkline_lab.data.resplit import Resplit, divide

TYPES = {"ner": NerExample, "text": TextExample, "pair": PairExample}
BASE: dict[str, Any] = {
    "name": "mine",
    "title": "My data",
    "role": "task",
    "family": "classification",
    "kind": "text",
    "home": "https://example.org/data",
    "licence": "CC0",
    "files": {"train": "./train.csv"},
    "reader": "table",
    "labels": {"a": "first", "b_c": ""},
}
ROWS = "text,label\n" + "".join(f"text {number},{'a' if number % 2 else 'b_c'}\n" for number in range(40))


def write_card(folder: Path, **changes: Any) -> Path:
    content = {key: value for key, value in {**BASE, **changes}.items() if value is not None}
    path = folder / "mine.yaml"
    path.write_text(yaml.safe_dump(content))
    return path


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "train.csv").write_text(ROWS)
    return tmp_path


@pytest.mark.parametrize("name", list_cards())
def test_shipped_cards(name: str) -> None:
    card = load_card(name)
    assert card.name == name
    assert set(card.counts) == set(card.splits)
    assert "train" in card.splits
    assert card.home.startswith(("https://", "http://", "trunkline:"))
    assert card.licence
    is_sample = name.startswith("sample_")
    if card.role == "task":
        assert {"train", "dev", "test"} <= set(card.splits)
        assert len(card.labels) >= (1 if card.family == "ner" else 2)
        assert card.metric in (("entity_f1",) if card.family == "ner" else ("accuracy", "macro_f1")) or is_sample
    for words in card.labels.values():
        assert words == words.strip() and words and "_" not in words and words[0] == words[0].lower()


def test_the_promised_cards_are_there() -> None:
    tasks = {"wnut17", "mit_restaurant", "banking77", "trec", "crossner_ai", "crossner_science", "atis_slots"}
    tasks |= {"snips_intents", "sms_spam", "subj", "conll2003", "btc", "mit_movie_eng", "snips_slots", "bc5cdr"}
    tasks |= {"ncbi_disease", "finer_ord", "stackoverflow_ner", "crossner_literature", "crossner_music", "hwu64_slots"}
    tasks |= {"clinc150", "hwu64", "trec_fine", "sst2", "sst5", "20newsgroups", "financial_phrasebank", "ag_news", "cr"}
    tasks |= {f"tweeteval_{name}" for name in ("emotion", "offensive", "irony", "hate", "sentiment", "emoji")}
    tasks |= {f"tweeteval_stance_{name}" for name in ("abortion", "atheism", "climate", "feminist", "hillary")}
    tasks |= {"goemotions", "goemotions_ekman", "goemotions_group", "atis_intents"}
    sources = {"gmb", "sgd_slots", "wikiann_en", "wikineural_en", "wtq_links", "sgd_turns", "opentriviaqa"}
    sources |= {"svod_titles", "flickr8k_captions", "reuters21578", "medquad"}
    cards = [load_card(name) for name in list_cards()]
    assert tasks <= {card.name for card in cards if card.role == "task"}
    assert sources <= {card.name for card in cards if card.role == "source"}
    assert {card.reader for card in cards} <= set(READERS)


def test_load_and_concepts(folder: Path) -> None:
    card = load_card(write_card(folder, counts={"train": 40}))
    examples = card.load("train")
    assert examples[0] == TextExample("text 0", "b_c")
    assert (card.concept("a"), card.concept("b_c"), card.concept("New-Label")) == ("first", "b c", "new label")


def test_count_mismatch_names_both(folder: Path) -> None:
    with pytest.raises(DataError, match=r"train\.csv: 40 examples in train\. Expected 41"):
        load_card(write_card(folder, counts={"train": 41})).load("train")


def test_labels_outside_of_the_card(folder: Path) -> None:
    with pytest.raises(DataError, match="the labels 'b_c' are not in the card mine"):
        load_card(write_card(folder, labels={"a": "first"})).load("train")


def test_unknown_split_and_card(folder: Path) -> None:
    with pytest.raises(TrunklineError, match="no split 'trian'; did you mean 'train'"):
        load_card(write_card(folder)).load("trian")
    with pytest.raises(TrunklineError, match="no card 'banking7'; did you mean 'banking77'"):
        load_card("banking7")
    with pytest.raises(DataError, match="no such card file"):
        load_card(folder / "no.yaml")


def test_missing_data_says_where_to_get_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(DATA_VARIABLE, str(tmp_path / "nowhere"))
    with pytest.raises(DataError, match=r"the file of wnut17 .train. is not here.*trunkline-lab data where wnut17"):
        load_card("wnut17").load("train")
    monkeypatch.delenv(DATA_VARIABLE)
    with pytest.raises(TrunklineError, match=r"TRUNKLINE_DATA is not set.*trunkline-lab data where"):
        load_card("wnut17").load("train")
    assert not load_card("wnut17").is_here()


def test_where_paths_lead(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    card = load_card(write_card(tmp_path))
    monkeypatch.setenv(DATA_VARIABLE, "/data")
    assert card.resolve("x/y") == Path("/data/x/y")
    assert card.resolve("./x") == tmp_path.resolve() / "x"
    assert card.resolve("trunkline:samples/x").parts[-3:] == ("trunkline", "samples", "x")


def test_several_files_and_their_options(tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_text("text,label\nx,a\n")
    (tmp_path / "b.csv").write_text("kind;body\nb_c;y\n")
    other = {"delimiter": ";", "text_column": "body", "label_column": "kind"}
    card = load_card(write_card(tmp_path, files={"train": ["./a.csv", {"path": "./b.csv", "options": other}]}))
    assert card.load("train") == [TextExample("x", "a"), TextExample("y", "b_c")]


def test_all_problems_at_once(tmp_path: Path) -> None:
    path = write_card(
        tmp_path, licence=None, role="tsk", colour=1, reader="table", options={"headr": True}, counts={"dev": 1},
        resplit={"test": {"from": "dev", "fraction": 2}},
    )  # fmt: skip
    with pytest.raises(RecipeError) as caught:
        load_card(path)
    text = str(caught.value)
    for part in (
        "licence: is missing", "role:", "colour: unknown key", "headr: unknown key; did you mean 'header'",
        "counts: no split 'dev'", "resplit.test.fraction", "no files for the split 'dev'",
    ):  # fmt: skip
        assert part in text
    assert len(caught.value.problems) == 7


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"reader": "tabel"}, "no reader 'tabel'; did you mean 'table'"),
        ({"kind": "ner"}, "the reader table gives text, not ner"),
        ({"family": "ner"}, "kind: text does not belong to the family ner"),
        ({"labels": {0: "zero"}}, "labels"),
        ({"resplit": {"train": {"from": "train", "fraction": 0.1}}}, "the split has files of its own"),
        ({"files": {}}, "files"),
    ],
)
def test_card_problems(tmp_path: Path, changes: dict[str, Any], message: str) -> None:
    with pytest.raises(RecipeError, match=message):
        load_card(write_card(tmp_path, **changes))


@pytest.mark.parametrize(
    ("content", "message"), [("a: [1\nb: 2\n", r"bad\.yaml:2: not YAML"), ("- a\n", "the card is a list")]
)
def test_card_that_is_no_yaml(tmp_path: Path, content: str, message: str) -> None:
    path = tmp_path / "bad.yaml"
    path.write_text(content)
    with pytest.raises(DataError, match=message):
        load_card(path)


def test_yaml_cannot_run_code(tmp_path: Path) -> None:
    path = tmp_path / "bad.yaml"
    path.write_text("name: !!python/object/apply:os.getcwd []\n")
    with pytest.raises(DataError, match="not YAML"):
        load_card(path)


def test_resplit_is_disjoint_stable_and_keeps_duplicates_together(folder: Path) -> None:
    rules = {"test": {"from": "train", "fraction": 0.25, "seed": 1}, "dev": {"from": "train", "fraction": 0.1}}
    (folder / "train.csv").write_text(ROWS + "TEXT  3,a\n")
    card = load_card(write_card(folder, resplit=rules))
    parts = {split: card.load(split) for split in card.splits}
    keys = {split: {" ".join(e.text.lower().split()) for e in part} for split, part in parts.items()}
    assert {split: len(part) for split, part in keys.items()} == {"train": 26, "test": 10, "dev": 4}
    assert not (keys["train"] & keys["test"] or keys["train"] & keys["dev"] or keys["test"] & keys["dev"])
    assert sum(map(len, parts.values())) == 41
    assert sorted(e.text for e in parts["dev"]) == ["text 26", "text 27", "text 6", "text 8"]


def test_divide_hardly_changes_when_examples_are_added() -> None:
    rule = {"dev": Resplit(source="train", fraction=0.2)}
    few = [TextExample(f"t{number}", "a") for number in range(500)]
    before, after = divide(few, "train", rule)["dev"], divide([*few, TextExample("new", "a")], "train", rule)["dev"]
    assert len(set(before) & set(after)) >= 99


def test_a_fingerprint_is_that_of_a_split_its_files_and_how_they_are_read(folder: Path) -> None:
    def prints(**changes: Any) -> list[str]:
        card = load_card(write_card(folder, **{"resplit": {"dev": {"from": "train", "fraction": 0.2}}, **changes}))
        return [card.fingerprint(split, content=by) for by in (False, True) for split in ("train", "dev")]

    before = prints()
    assert len(set(before)) == 4
    assert prints(title="Another title") == before
    for changes in ({"resplit": {"dev": {"from": "train", "fraction": 0.3}}}, {"options": {"delimiter": ","}}):
        assert not set(prints(**changes)) & set(before), changes
    (folder / "train.csv").write_text(ROWS.replace("text 1,", "text z,"))
    assert not set(prints()) & set(before)


def test_cards_are_frozen(folder: Path) -> None:
    card = load_card(write_card(folder))
    with pytest.raises(ValueError, match="frozen"):
        card.name = "other"  # type: ignore[misc]
    assert isinstance(card, Card)


@pytest.mark.parametrize("name", ["wnut17", "mit_restaurant", "banking77", "trec", "sms_spam", "subj", "atis_slots"])
def test_real_tasks(name: str) -> None:
    card = _real(name)
    for split in card.splits:
        assert all(isinstance(example, TYPES[card.kind]) for example in card.load(split))


@pytest.mark.parametrize(
    "name", ["wikineural_en", "wtq_links", "opentriviaqa", "svod_titles", "flickr8k_captions", "medquad"]
)
def test_real_sources(name: str) -> None:
    card = _real(name)
    assert all(isinstance(example, TYPES[card.kind]) for example in card.load("train"))


def _real(name: str) -> Card:
    card = load_card(name)
    if not card.is_here():
        pytest.skip(f"the data of {name} is not here, see {DATA_VARIABLE}")
    return card
