"""What the command line accepts as data, the hub layout in a local folder, and the checks over splits."""

from __future__ import annotations

import gzip
import json
from pathlib import Path
from typing import Any

import pytest

from trunkline.data.hub import load_hub
from trunkline.data.load import check_labels, load_examples, stream_examples
from trunkline.errors import DataError, TrunklineError
from trunkline.text.examples import Example, NerExample, PairExample, PlainExample, Span, TextExample
from trunkline.text.words import split_words

NER = NerExample("Ann runs", ((0, 3), (4, 8)), (Span(0, 3, "per"),))
TEXT = TextExample("Ann runs", "x")
PAIR = PairExample("Ann", "runs")
PLAIN = PlainExample("Ann runs")


@pytest.mark.parametrize(
    ("name", "content", "family", "expected"),
    [
        ("a.conll", "Ann B-per\nruns O\n", "ner", NER),
        ("a.bio", "Ann\tB-per\nruns\tO\n", "ner", NER),
        ("a.txt", "Ann B-per\nruns O\n", "ner", NER),
        ("a.jsonl", '{"tokens": ["Ann", "runs"], "tags": ["B-per", "O"]}', "ner", NER),
        ("a.jsonl", '{"tokens": ["Ann", "runs"], "ner_tags": ["B-per", "O"]}', "ner", NER),
        ("a.jsonl", '{"text": "Ann runs", "entities": [[0, 3, "per"]]}', "ner", NER),
        ("a.jsonl", '{"text": "Ann runs", "spans": [[0, 3, "per"]]}', "ner", NER),
        ("a.jsonl", '{"text": "Ann runs", "label": "x"}', "classification", TEXT),
        ("a.csv", "text,label\nAnn runs,x\n", "classification", TEXT),
        ("a.TSV", "label\ttext\nx\tAnn runs\n", "classification", TEXT),
        ("a.jsonl", '{"left": "Ann", "right": "runs"}', "pairs", PAIR),
        ("a.csv", "left,right\nAnn,runs\n", "pairs", PAIR),
        ("a.txt", "Ann\nruns\n\n", "plain", PLAIN),
        ("a.md", "\nAnn  runs", "plain", PLAIN),
        ("a.jsonl", '{"text": "Ann runs", "label": "x"}', "plain", PLAIN),
    ],
)
def test_files(tmp_path: Path, name: str, content: str, family: str, expected: Example) -> None:
    path = tmp_path / name
    path.write_text(content)
    assert load_examples(path, family) == [expected]
    packed = tmp_path / f"{name}.gz"
    packed.write_bytes(gzip.compress(content.encode()))
    assert load_examples(str(packed), family) == [expected]


def test_plain_text_in_folders_and_cards(tmp_path: Path) -> None:
    (tmp_path / "a.md").write_text("Ann runs\n\nBob sits\n")
    (tmp_path / "b.csv").write_text("no")
    assert load_examples(tmp_path, "plain") == [PLAIN, PlainExample("Bob sits")]
    (tmp_path / "bad.txt").write_bytes(b"\xff")
    found = stream_examples(tmp_path, "plain")
    assert [next(found), next(found)] == [PLAIN, PlainExample("Bob sits")]
    with pytest.raises(DataError, match=r"bad\.txt:1: the byte 0xff"):
        next(found)
    card = tmp_path / "mine.yaml"
    card.write_text(
        "{name: mine, title: Mine, role: source, family: text, kind: plain, home: 'https://example.org', licence: CC0, "
        "files: {train: ./a.md}, reader: corpus}"
    )
    assert load_examples(f"card:{card}@train", "plain") == [PLAIN, PlainExample("Bob sits")]
    with pytest.raises(TrunklineError, match="holds PlainExamples"):
        load_examples(f"card:{card}@train", "ner")


@pytest.mark.parametrize(
    ("spec", "family", "message"),
    [
        ("hub:x@train", "plain", "asked for as plain text.*a folder"),
        ("a.csv", "plain", "no data for plain"),
        ("a.parquet", "ner", "no data for ner .*Expected a file"),
        ("a.csv", "ner", "no data for ner"),
        ("a.conll", "classification", "no data for classification"),
        ("folder", "ner", "card:NAME@SPLIT"),
        ("card:wnut17", "ner", "does not say which split.*card:NAME@SPLIT"),
        ("hub:x@", "ner", "hub:NAME@SPLIT"),
        ("card:wnut@test", "ner", "no card 'wnut'; did you mean 'wnut17'"),
        ("a.conll", "parsing", "the family 'parsing' is not known"),
        ("no.conll", "ner", "no such file"),
    ],
)
def test_unknown_specs(spec: str, family: str, message: str) -> None:
    with pytest.raises(TrunklineError, match=message):
        load_examples(spec, family)


def test_jsonl_with_other_keys(tmp_path: Path) -> None:
    path = tmp_path / "a.jsonl"
    path.write_text('{"body": "x", "label": "y"}\n')
    with pytest.raises(DataError, match=r"a\.jsonl:1: the keys are 'body', 'label'\. Expected text and label"):
        load_examples(path, "classification")
    with pytest.raises(DataError, match="Expected tokens and tags, or tokens and ner_tags, or text and entities"):
        load_examples(path, "ner")
    path.write_text("")
    with pytest.raises(DataError, match="the file is empty"):
        load_examples(path, "ner")


def test_card_spec(tmp_path: Path) -> None:
    (tmp_path / "t.csv").write_text("text,label\nAnn runs,x\n")
    card = {
        "name": "mine", "title": "t", "role": "task", "family": "classification", "kind": "text",
        "home": "https://x", "licence": "CC0", "files": {"train": "./t.csv"}, "reader": "table",
    }  # fmt: skip
    path = tmp_path / "mine.yaml"
    path.write_text(json.dumps(card))
    assert load_examples(f"card:{path}@train", "classification") == [TEXT]
    with pytest.raises(TrunklineError, match=r"holds TextExamples\. Expected NerExamples, for ner"):
        load_examples(f"card:{path}@train", "ner")


def ner(*labels: str) -> NerExample:
    text = " ".join(labels) or "nothing"
    words = split_words(text)
    return NerExample(text, words, tuple(Span(*word, label) for word, label in zip(words, labels, strict=False)))


def test_check_labels() -> None:
    train = [TextExample("t", "a"), TextExample("u", "b")]
    assert check_labels(train, train, train) == ["a", "b"]
    with pytest.raises(DataError, match="test split: the labels 'c' do not occur in train"):
        check_labels(train, train, [TextExample("v", "c")])
    assert check_labels(train, [], [TextExample("v", "c")], allow=["c"]) == ["a", "b"]
    with pytest.raises(DataError, match="only the label 'a'"):
        check_labels(train[:1])
    with pytest.raises(DataError, match="no label"):
        check_labels([])
    assert check_labels([ner("per")], [ner()]) == ["per"]
    with pytest.raises(DataError, match="dev split: the labels 'city', 'loc'"):
        check_labels([ner("per")], [ner("loc", "city")])
    with pytest.raises(DataError, match="no entity"):
        check_labels([ner()])


def write_hub(folder: Path, records: list[dict[str, Any]], split: str = "train") -> Path:
    (folder / "data").mkdir(parents=True, exist_ok=True)
    path = folder / "data" / f"{split}.jsonl"
    path.write_text("".join(json.dumps(record) + "\n" for record in records))
    return folder


@pytest.fixture
def offline(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    datasets = pytest.importorskip("datasets")
    monkeypatch.setattr(datasets.config, "HF_DATASETS_OFFLINE", True)
    monkeypatch.setattr(datasets.config, "HF_HUB_OFFLINE", True, raising=False)
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "cache")
    datasets.disable_progress_bars()
    return tmp_path / "hub"


def test_hub_text_and_pairs(offline: Path) -> None:
    folder = write_hub(offline / "text", [{"text": "Ann runs", "label": "x", "id": 1}])
    write_hub(folder, [{"text": "Go", "label": "y", "id": 2}], "test")
    assert load_examples(f"hub:{folder}@train", "classification") == [TEXT]
    assert load_examples(f"hub:{folder}@test", "classification") == [TextExample("Go", "y")]
    assert load_hub(str(folder), "train", family="pairs", columns=("text", "label")) == [PairExample("Ann runs", "x")]
    with pytest.raises(DataError, match="none of the columns tokens, words; there are text, label, id"):
        load_examples(f"hub:{folder}@train", "ner")
    with pytest.raises(DataError, match="no column 'body'; there are text, label, id"):
        load_hub(str(folder), "train", family="classification", columns=("body", "label"))
    with pytest.raises(TrunklineError, match="split 'dev', could not be loaded from the local folder"):
        load_hub(str(folder), "dev", family="classification")


def test_hub_tags_with_names(offline: Path) -> None:
    datasets = pytest.importorskip("datasets")
    names = datasets.ClassLabel(names=["O", "B-per"])
    features = datasets.Features({"tokens": datasets.List(datasets.Value("string")), "ner_tags": datasets.List(names)})
    table = datasets.Dataset.from_dict({"tokens": [["Ann", "runs"]], "ner_tags": [[1, 0]]}, features=features)
    (offline / "data").mkdir(parents=True)
    table.to_parquet(offline / "data" / "train-00000-of-00001.parquet")
    assert load_examples(f"hub:{offline}@train", "ner") == [NER]


def test_hub_rows_with_problems(offline: Path) -> None:
    texts = write_hub(offline / "a", [{"text": "a", "label": "x"}, {"text": " ", "label": "x"}])
    with pytest.raises(DataError, match=r"@train:2: the text is empty"):
        load_hub(str(texts), "train", family="classification")
    strings = write_hub(offline / "b", [{"tokens": ["Ann", "runs"], "ner_tags": ["B-per", "O"]}])
    assert load_hub(str(strings), "train", family="ner") == [NER]
    numbers = write_hub(offline / "c", [{"tokens": ["Ann"], "ner_tags": [1]}])
    with pytest.raises(DataError, match=r"@train:1: the tag is 1"):
        load_hub(str(numbers), "train", family="ner")
    uneven = write_hub(offline / "d", [{"tokens": ["Ann", "x"], "ner_tags": ["O"]}])
    with pytest.raises(DataError, match=r"@train:1: tokens and tags are not two lists of one length"):
        load_hub(str(uneven), "train", family="ner")


def test_hub_missing(offline: Path) -> None:
    with pytest.raises(
        TrunklineError, match=r"'nobody/no-such-set' \(c\), split 'train', could not be loaded from the hub"
    ):
        load_hub("nobody/no-such-set:c", "train", family="ner")
