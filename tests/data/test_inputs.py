"""What the Python door takes, and how it refuses the rest."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from trunkline.data.inputs import examples_from, texts_from
from trunkline.errors import TrunklineError
from trunkline.text.examples import NerExample, Span, TextExample
from trunkline.text.words import split_words

TEXTS = ["Where is my parcel", "I want my money back"]
LABELS = ["delivery", "refund"]
EXAMPLES = [TextExample(text, label) for text, label in zip(TEXTS, LABELS, strict=True)]


def series(values: list[Any], dtype: str | None = None) -> Any:
    return pytest.importorskip("pandas").Series(values, dtype=dtype)


def column(values: list[Any], feature: Any = None) -> Any:
    datasets = pytest.importorskip("datasets")
    features = datasets.Features({"x": feature or datasets.Value("string")})
    return datasets.Dataset.from_dict({"x": values}, features=features)["x"]


def arrow(values: list[Any]) -> Any:
    return pytest.importorskip("pyarrow").array(values)


CONTAINERS: list[Callable[[list[Any]], Any]] = [
    list, tuple, iter, np.array, lambda values: np.array(values, dtype=object), series,
    lambda values: series(values, "category"), lambda values: series(values, "string"), column, arrow,
    lambda values: (value for value in values), lambda values: dict.fromkeys(values).keys(),
]  # fmt: skip


@pytest.mark.parametrize("container", CONTAINERS)
def test_containers(container: Callable[[list[Any]], Any]) -> None:
    assert examples_from(container(TEXTS), container(LABELS)) == ("classification", EXAMPLES)
    texts = list(texts_from(container(TEXTS)))
    assert texts == TEXTS
    assert all(type(text) is str for text in texts)


def test_class_labels_become_names() -> None:
    datasets = pytest.importorskip("datasets")
    labels = column([1, 0], datasets.ClassLabel(names=["refund", "delivery"]))
    assert examples_from(TEXTS, labels) == ("classification", EXAMPLES)
    with pytest.raises(TrunklineError, match=r"labels\[0\] is -1"):
        examples_from(["a"], column([-1], datasets.ClassLabel(names=["refund"])))


def test_a_whole_data_set() -> None:
    datasets = pytest.importorskip("datasets")
    data = datasets.Dataset.from_dict({"text": TEXTS, "n": [1.5, 2.5]}).add_column(
        "label", [1, 0], feature=datasets.ClassLabel(names=["refund", "delivery"])
    )
    assert examples_from(data) == ("classification", EXAMPLES)
    assert examples_from(data.to_iterable_dataset()) == ("classification", EXAMPLES)
    words = datasets.Dataset.from_list([{"tokens": ["Ann", "runs"], "tags": ["B-x", "O"]}])
    [example] = examples_from(words)[1]
    assert (example.text, example.spans[0].label) == ("Ann runs", "x")
    with pytest.raises(TrunklineError, match=r"dev: the Dataset:1: there are 'body'.*data\['text'\]"):
        examples_from(data.rename_column("text", "body").remove_columns("label").select_columns(["body"]), part="dev")


def test_one_dict_of_examples_by_label() -> None:
    found = examples_from({"delivery": TEXTS[:1], "refund": iter(TEXTS[1:])})
    assert found == ("classification", EXAMPLES)
    with pytest.raises(TrunklineError, match=r"texts\['delivery'\]\[1\] is None"):
        examples_from({"delivery": ["a", None]})
    with pytest.raises(TrunklineError, match=r"texts\['delivery'\] is one string"):
        examples_from({"delivery": "a"})
    with pytest.raises(TrunklineError, match="the key 1 is 1"):
        examples_from({1: ["a"]})
    with pytest.raises(TrunklineError, match="a dict of texts and labels besides"):
        examples_from({"a": ["b"]}, ["a"])
    with pytest.raises(TrunklineError, match="a dict of texts for ner"):
        examples_from({"a": ["b"]}, family="ner")


@pytest.mark.parametrize(
    "entities",
    [
        [(5, 8, "person")],
        ((5, 8, "person"),),
        [[5, 8, "person"]],
        [{"start": 5, "end": 8, "label": "person"}],
        [{"start": np.int64(5), "end": 8, "label": "person", "text": "Ana", "score": 0.5}],
        np.array([(5, 8, "person")], dtype=object),
    ],
)
def test_entities(entities: Any) -> None:
    text = "Call Ana now"
    example = NerExample(text, split_words(text), (Span(5, 8, "person"),))
    assert examples_from([text, "Go"], [entities, []]) == ("ner", [example, NerExample("Go", ((0, 2),), ())])


def test_examples_pass() -> None:
    assert examples_from(EXAMPLES) == ("classification", EXAMPLES)
    assert examples_from(iter(EXAMPLES), family="classification") == ("classification", EXAMPLES)
    assert examples_from([], family="ner") == ("ner", [])
    with pytest.raises(TrunklineError, match=r"examples of classification\. Expected examples of ner"):
        examples_from(EXAMPLES, family="ner")
    with pytest.raises(TrunklineError, match="no labels were given"):
        examples_from([*EXAMPLES, "a"])


def test_the_family_is_asked_for_where_labels_do_not_tell() -> None:
    with pytest.raises(TrunklineError, match=r"all labels are empty.*Pass family="):
        examples_from(["a", "b"], [[], []])
    assert examples_from(["a"], [[]], "ner") == ("ner", [NerExample("a", ((0, 1),), ())])
    with pytest.raises(TrunklineError, match=r"labels\[0\] is \[\] and labels\[1\] is 'x'\. Expected for all texts"):
        examples_from(["a", "b"], [[], "x"])
    with pytest.raises(TrunklineError, match=r"labels\[1\] is 'x', of the type str\. Expected a list"):
        examples_from(["a", "b"], [[], "x"], "ner")
    with pytest.raises(TrunklineError, match="there are no texts"):
        examples_from([], [])
    with pytest.raises(TrunklineError, match="the family 'intent'"):
        examples_from(["a"], ["b"], "intent")


@pytest.mark.parametrize(
    ("texts", "labels", "message"),
    [
        ("one text", ["a"], r"texts is one string: 'one text'.*into a list: \[text\]"),
        (b"bytes", ["a"], "texts is a bytes: b'bytes'"),
        ({"a", "b"}, ["a", "b"], "texts is a set"),
        (None, ["a"], "texts is None"),
        (5, ["a"], "texts is of the type int"),
        (np.array([["a"], ["b"]]), ["a", "b"], r"texts is a ndarray of shape \(2, 1\)"),
        (["a", None], ["x", "y"], r"texts\[1\] is None, a missing value\. Expected a string"),
        (["a", float("nan")], ["x", "y"], r"texts\[1\] is nan, a missing value"),
        (["a", 3], ["x", "y"], r"texts\[1\] is 3, of the type int"),
        ([b"a"], ["x"], r"texts\[0\] is b'a', of the type bytes"),
        (["a", "\ud800 b"], ["x", "y"], r"texts\[1\] has half of a surrogate pair at 0"),
        (["a", " \n"], ["x", "y"], r"texts\[1\] is blank"),
        (["a", "b"], ["x"], "2 texts and 1 labels"),
        (["a"], "x", "labels is one string"),
        (["a"], {"x": 1}, "labels is a dict"),
        (["a", "b"], ["x", None], r"labels\[1\] is None, a missing value"),
        (["a", "b"], ["x", ""], r"labels\[1\] is '', of the type str"),
        (["a", "b"], [0, 1], r"labels\[0\] is 0, of the type int.*names\[label\]"),
        (["a"], [True], r"labels\[0\] is True, of the type bool.*Map numbers"),
        (["a"], np.array([1.5]), r"labels\[0\] is .*1\.5.*Map numbers"),
        (["a", "b"], [["x", "y"], "x"], r"labels\[0\] is \['x', 'y'\] and labels\[1\] is 'x'\. Expected for all texts"),
        (["a", "b"], [["x", 3], ["x"]], r"labels\[0\]\[1\] is 3, of the type int.*Map numbers"),
        (["a", "b"], [["x", " "], ["x"]], r"labels\[0\]\[1\] is ' ', of the type str\. Expected a label"),
        (["a", "b"], [["x", "y", "x "], []], r"labels\[0\] has a label twice: \['x', 'y', 'x '\]"),
        (["a", "b"], [["x"], [(0, 1, "x")]], r"labels\[0\] is \['x'\] and labels\[1\] is \[\(0, 1, 'x'\)\]"),
        (["a b"], [["O", "B-per"]], r"labels\[0\] has tags of tokens: .*Expected spans \(start, end, label\)"),
        (["ab"], [[(0, 5, "x")]], "0..5"),
        (["ab"], [[(0, 1)]], r"labels\[0\]: the entity is \(0, 1\)"),
        (["ab"], [[(0, 1.0, "x")]], r"labels\[0\]: the entity is \(0, 1\.0, 'x'\)"),
        (["ab"], [[(0, 2, "")]], r"labels\[0\]: the label is empty"),
        (["ab"], [[(0, 2, "x"), (1, 2, "y")]], r"labels\[0\]: the entities .* overlap"),
        (["a b"], [[{"start": 0, "end": 1, "label": "x", "text": "b"}]], r"labels\[0\]: the entity 'b' is not what"),
    ],
)
def test_refusals(texts: Any, labels: Any, message: str) -> None:
    with pytest.raises(TrunklineError, match=message):
        examples_from(texts, labels)


def test_missing_values_and_frames_of_pandas() -> None:
    pandas = pytest.importorskip("pandas")
    for missing in (None, float("nan"), pandas.NA, pandas.NaT):
        with pytest.raises(TrunklineError, match=r"labels\[1\] is .*, a missing value"):
            examples_from(TEXTS, series(["x", missing], "object"))
        with pytest.raises(TrunklineError, match=r"texts\[1\] is .*, a missing value"):
            list(texts_from(series(["x", missing], "object")))
    with pytest.raises(TrunklineError, match=r"texts is a DataFrame of shape \(2, 1\)"):
        examples_from(pandas.DataFrame({"text": TEXTS}), LABELS)
    with pytest.raises(TrunklineError, match="texts is a Dataset"):
        texts_from(pytest.importorskip("datasets").Dataset.from_dict({"text": TEXTS}))


def test_texts_are_taken_lazily_and_refused_at_once() -> None:
    taken: list[int] = []

    def endless() -> Any:
        while True:
            taken.append(1)
            yield "text"

    found = texts_from(endless())
    assert [next(found) for _ in range(3)] == ["text"] * 3
    assert len(taken) == 3
    for wrong in ("text", {"text": 1}, None, 7):
        with pytest.raises(TrunklineError, match="Expected a list, tuple, generator"):
            texts_from(wrong)
    found = texts_from(["a", "", None])
    assert [next(found), next(found)] == ["a", ""]
    with pytest.raises(TrunklineError, match=r"texts\[2\] is None"):
        next(found)


def test_offsets_in_other_units_are_named() -> None:
    text = "Grüße an Jürgen und später an Ana"
    spans = [(len(text[:start].encode()), len(text[:end].encode()), "x") for start, end in ((9, 15), (30, 33))]
    with pytest.raises(TrunklineError, match=r"labels: 2 of 2 entities.*UTF-8 bytes"):
        examples_from([text], [spans])


def test_no_library_of_containers_is_imported() -> None:
    code = (
        "import sys, trunkline.data.inputs, trunkline.data.load\n"
        "print([name for name in ('pandas', 'polars', 'datasets', 'pyarrow', 'torch') if name in sys.modules])"
    )
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert found.stdout.strip() == "[]"
