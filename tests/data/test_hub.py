"""Data sets in hub layout from a local folder: labels are text, names of classes are read."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import pytest

from trunkline.data.load import load_examples
from trunkline.data.records import hub_records
from trunkline.data.stream import load_texts
from trunkline.errors import DataError, TrunklineError
from trunkline.text.examples import NerExample, Span, TextExample

NER = NerExample("Ann runs", ((0, 3), (4, 8)), (Span(0, 3, "per"),))


def write(folder: Path, records: list[dict[str, Any]], split: str = "train") -> Path:
    (folder / "data").mkdir(parents=True, exist_ok=True)
    lines = "".join(json.dumps(record) + "\n" for record in records)
    (folder / "data" / f"{split}.jsonl").write_text(lines)
    return folder


@pytest.fixture
def offline(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    datasets = pytest.importorskip("datasets")
    monkeypatch.setattr(datasets.config, "HF_DATASETS_OFFLINE", True)
    monkeypatch.setattr(datasets.config, "HF_HUB_OFFLINE", True, raising=False)
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "cache")
    datasets.disable_progress_bars()
    return tmp_path / "hub"


def test_labels_of_csv_files_are_text(offline: Path) -> None:
    (offline / "data").mkdir(parents=True)
    rows = ["leaking tap,001", "burst pipe,001", "NA,010", "broken fan,NA"]
    (offline / "data" / "train.csv").write_text("text,label\n" + "".join(f"{row}\n" for row in rows))
    family, examples = load_examples(f"hub:{offline}@train")
    assert family == "classification"
    assert examples == [TextExample(*row.rsplit(",", 1)) for row in rows]
    assert list(load_texts(f"hub:{offline}@train[:1]")) == [("leaking tap", {"label": "001"})]


def test_splits_and_columns(offline: Path) -> None:
    folder = write(offline / "text", [{"text": "Ann runs", "label": "x", "id": 1}])
    write(folder, [{"text": "Go", "label": "y", "id": 2}], "test")
    assert load_examples(f"hub:{folder}@train") == ("classification", [TextExample("Ann runs", "x")])
    assert load_examples(f"hub:{folder}@test", "classification")[1] == [TextExample("Go", "y")]
    assert load_examples(f"hub:{folder}@test", text_column="label", label_column="id")[1] == [TextExample("y", "2")]
    with pytest.raises(DataError, match=r"hub:.*@train:1: there are 'text', 'label', 'id'.*Expected tokens and tags"):
        load_examples(f"hub:{folder}@train", "ner")
    with pytest.raises(TrunklineError, match="split 'dev', could not be loaded from the local folder"):
        load_examples(f"hub:{folder}@dev")


def test_names_of_classes(offline: Path) -> None:
    datasets = pytest.importorskip("datasets")
    tags = datasets.List(datasets.ClassLabel(names=["O", "B-per"]))
    features = datasets.Features({"tokens": datasets.List(datasets.Value("string")), "ner_tags": tags})
    table = datasets.Dataset.from_dict({"tokens": [["Ann", "runs"]], "ner_tags": [[1, 0]]}, features=features)
    for name in ("tags", "labels"):
        (offline / name / "data").mkdir(parents=True)
    table.to_parquet(offline / "tags" / "data" / "train-00000-of-00001.parquet")
    assert load_examples(f"hub:{offline / 'tags'}@train") == ("ner", [NER])
    features = datasets.Features({"text": datasets.Value("string"), "label": datasets.ClassLabel(names=["no", "yes"])})
    table = datasets.Dataset.from_dict({"text": ["a", "b"], "label": [1, -1]}, features=features)
    table.to_parquet(offline / "labels" / "data" / "test-00000-of-00001.parquet")
    assert [record["label"] for _, record in hub_records(f"hub:{offline / 'labels'}@test")] == ["yes", None]


def test_rows_with_problems(offline: Path) -> None:
    texts = write(offline / "a", [{"text": "a", "label": "x"}, {"text": " ", "label": "x"}])
    with pytest.raises(DataError, match=r"@train:2: the text is empty"):
        load_examples(f"hub:{texts}@train")
    numbers = write(offline / "c", [{"tokens": ["Ann"], "ner_tags": [1]}])
    with pytest.raises(DataError, match=r"@train:1: the tag is 1"):
        load_examples(f"hub:{numbers}@train")


def test_what_cannot_be_loaded(offline: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(
        TrunklineError, match=r"'nobody/no-such-set' \(c\), split 'train', could not be loaded from the hub"
    ):
        load_examples("hub:nobody/no-such-set:c@train")
    for spec in ("hub:x", "hub:x@", "hub:@train"):
        with pytest.raises(TrunklineError, match="does not say which split"):
            load_examples(spec)
    monkeypatch.setitem(sys.modules, "datasets", None)
    with pytest.raises(TrunklineError, match=r"datasets, which is not installed.*trunkline\[train\]"):
        load_examples("hub:x@train")
