"""Texts with any number of labels, as people have them; what could be meant otherwise is asked for."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from trunkline.data.checks import check
from trunkline.data.inputs import check_learnable, examples_from
from trunkline.data.load import read_examples
from trunkline.errors import DataError, TrunklineError
from trunkline.text.examples import MultiLabelExample, TextExample

BOTH, ONE, NONE = ("food", "price"), ("food",), ()
EXPECTED = [MultiLabelExample("a b", BOTH), MultiLabelExample("c d", ONE), MultiLabelExample("e f", NONE)]
TEXTS, LABELS = ["a b", "c d", "e f"], [list(BOTH), list(ONE), []]


def write(folder: Path, name: str, *records: Any) -> Path:
    path = folder / name
    path.write_text("".join(json.dumps(r) + "\n" for r in records) if records else "")
    return path


def rows(**more: Any) -> list[dict[str, Any]]:
    return [{"text": text, "label": own, **more} for text, own in zip(TEXTS, LABELS, strict=True)]


def studio(text: str, choices: list[str]) -> dict[str, Any]:
    result = [{"type": "choices", "value": {"choices": choices}}] if choices else []
    return {"data": {"text": text}, "annotations": [{"result": result}]}


PRODIGY = [{"text": t, "options": [{"id": "food"}, {"id": "price"}], "accept": own, "answer": "accept"}
           for t, own in zip(TEXTS, LABELS, strict=True)]  # fmt: skip
CATS = [{"text": t, "cats": {name: float(name in own) for name in BOTH}} for t, own in zip(TEXTS, LABELS, strict=True)]


@pytest.mark.parametrize(
    ("records", "tool"),
    [
        (rows(), ""),
        ([{"text": row["text"], "labels": row["label"]} for row in rows()], ""),
        (rows(id=3, meta={}), ""),
        (PRODIGY, "Prodigy"),
        (CATS, "spaCy"),
        ([studio(text, own) for text, own in zip(TEXTS, LABELS, strict=True)], "Label Studio"),
    ],
    ids=["label", "labels", "doccano", "prodigy", "spacy", "label-studio"],
)
def test_lists_of_labels_are_several(records: list[Any], tool: str, tmp_path: Path) -> None:
    found = read_examples(write(tmp_path, "a.jsonl", *records))
    assert (found.family, found.examples) == ("multilabel", EXPECTED)
    assert "any number of labels, 1 of them with none" in found.kind
    assert tool in found.kind


@pytest.mark.parametrize(
    ("content", "columns"),
    [
        ("text,label\na b,food|price\nc d,food\ne f,\n", {"label_separator": "|"}),
        ("text,label\na b,food | price\nc d, food\ne f, \n", {"label_separator": "|"}),
        ('text,tags\na b,"food, price"\nc d,food\ne f,\n', {"label_separator": ",", "label_column": "tags"}),
        ("text,one,two\na b,food,price\nc d,,food\ne f,,\n", {"label_column": "one+two"}),
        ("text,food,price\na b,1,1\nc d,1,0\ne f,0,0\n", {"label_column": "food+price"}),
        ("text,food,price\na b,Yes,yes\nc d,yes,\ne f,no,no\n", {"label_column": "food+price"}),
        ("a b,food,price\nc d,,food\ne f,,\n", {"text_column": "0", "label_column": "1+2"}),
    ],
)
def test_tables_say_on_request(content: str, columns: dict[str, str], tmp_path: Path) -> None:
    path = tmp_path / "a.csv"
    path.write_text(content)
    found = read_examples(path, **columns)
    assert (found.family, found.examples) == ("multilabel", EXPECTED)


def test_columns_of_json_and_the_rows_of_a_shared_case(tmp_path: Path) -> None:
    records = [
        {"text": t, "food": int("food" in own), "price": "price" in own} for t, own in zip(TEXTS, LABELS, strict=True)
    ]
    path = write(tmp_path, "a.jsonl", *records)
    assert read_examples(path, label_column="food+price").examples == EXPECTED
    bars = tmp_path / "bar.csv"
    bars.write_text("text,label\ngood food at a fair price,food|price\ntasty soup,food\ntoo dear,price\n")
    with pytest.raises(DataError, match=r"bar\.csv:2: .*seems to be 2 labels.*Say --label-separator '\|'"):
        read_examples(bars)
    assert read_examples(bars, label_separator="|").examples[0].labels == BOTH  # type: ignore[union-attr]


def test_one_label_in_each_list_is_classification_unless_said_otherwise(tmp_path: Path) -> None:
    single = write(tmp_path, "a.jsonl", {"text": "a b", "label": ["x"]}, {"text": "c d", "label": ["y"]})
    assert read_examples(single).examples == [TextExample("a b", "x"), TextExample("c d", "y")]
    asked = read_examples(single, "multilabel").examples
    assert asked == [MultiLabelExample("a b", ("x",)), MultiLabelExample("c d", ("y",))]
    none = write(tmp_path, "b.jsonl", {"text": "a b", "label": ["x"]}, {"text": "c d", "label": []})
    with pytest.raises(DataError, match=r"b\.jsonl:2: the text has no label.*Say --family multilabel"):
        read_examples(none)
    assert read_examples(none, "multilabel").examples[1] == MultiLabelExample("c d", ())


@pytest.mark.parametrize(
    ("records", "columns", "message"),
    [
        ([{"text": "a", "label": ["x", "y"]}, {"text": "b", "label": "x"}], {}, r":2: the label is 'x'.*a list"),
        ([{"text": "a", "label": ["x", "y"]}, {"text": "b", "label": None}], {}, r":2: the label is null.*empty"),
        ([{"text": "a", "label": ["x", "y"]}, {"text": "b"}], {}, r":2: no key 'label'"),
        ([{"text": "a", "label": ["x", "y", "x"]}], {}, r":1: the label 'x' stands there twice"),
        ([{"text": "a", "label": ["x", "x "]}], {}, r":1: the label 'x' stands there twice"),
        ([{"text": "a", "label": ["x", ""]}], {}, r":1: the label is empty"),
        ([{"text": "a", "label": ["x", 1.5]}], {}, r":1: the label is 1\.5"),
        ([{"text": " ", "label": ["x", "y"]}], {}, r":1: the text is empty"),
        ([{"text": "a", "label": "x||y"}], {"label_separator": "|"}, r":1: the label is empty"),
        ([{"text": "a", "label": "x"}], {"family": "multilabel"}, r":1: the label is 'x'.*--label-separator"),
        ([{"text": "a", "x": 1, "y": 0}], {"label_column": "x+z"}, r":1: no column 'z'.*--label-column"),
        ([{"text": "a", "x": 1, "y": 0}], {"label_column": "x+"}, r":1: no column ''"),
        ([{"text": "a", "x": "l", "y": "l"}], {"label_column": "x+y"}, r":1: the label 'l' stands there twice"),
        ([{"text": "a", "b": "c d e f", "label": ["x", "y"]}] * 2, {"text_column": "c"}, r"no column 'c'"),
    ],
)  # fmt: skip
def test_what_is_no_list_of_labels_is_refused(
    records: list[Any], columns: dict[str, Any], message: str, tmp_path: Path
) -> None:
    with pytest.raises(DataError, match=rf"a\.jsonl{message}|{message}"):
        read_examples(write(tmp_path, "a.jsonl", *records), **columns)


def test_lists_in_python() -> None:
    assert examples_from(TEXTS, LABELS) == ("multilabel", EXPECTED)
    assert examples_from(TEXTS, [("food", "price"), {"food"}, ()]) == ("multilabel", EXPECTED)
    assert examples_from(["a"], [[]], "multilabel") == ("multilabel", [MultiLabelExample("a", ())])
    assert examples_from(EXPECTED) == ("multilabel", EXPECTED)
    assert examples_from(["a b"], [["O", "B-per"]], "multilabel")[1] == [MultiLabelExample("a b", ("O", "B-per"))]
    with pytest.raises(TrunklineError, match=r"labels\[0\] is 'x', of the type str\. Expected a list.*into a list"):
        examples_from(["a"], ["x"], "multilabel")
    with pytest.raises(TrunklineError, match="all 2 texts have the labels 'x', 'y'"):
        check_learnable("multilabel", [MultiLabelExample("a", ("x", "y")), MultiLabelExample("b", ("y", "x"))])


def test_lists_of_class_labels_of_datasets_are_names() -> None:
    datasets = pytest.importorskip("datasets")
    names = datasets.ClassLabel(names=["food", "price"])
    for feature in (datasets.Sequence(names), [names]):
        features = datasets.Features({"text": datasets.Value("string"), "labels": feature})
        data = datasets.Dataset.from_dict({"text": TEXTS, "labels": [[0, 1], [0], []]}, features=features)
        assert examples_from(data["text"], data["labels"]) == ("multilabel", EXPECTED)


def test_check_counts_labels_and_finds_conflicts(tmp_path: Path) -> None:
    train = write(tmp_path, "a.jsonl", *rows(), {"text": "a b", "label": []})
    report = check({"train": str(train)})
    assert report["family"] == "multilabel"
    found = {finding["check"]: finding for finding in report["findings"]}
    assert found["label_balance"]["details"]["counts"] == {"food": 2, "price": 1}
    assert any("food + price / no label" in sample for sample in found["conflicting_labels"]["samples"])
