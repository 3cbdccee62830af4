"""Files as users have them: the form found by content, nothing left out without a word."""

from __future__ import annotations

import gzip
import json
import logging
from pathlib import Path
from typing import Any

import pytest

from trunkline.data.load import load_examples, read_examples
from trunkline.data.stream import load_texts, stream_examples
from trunkline.errors import DataError, TrunklineError
from trunkline.text.examples import Example, NerExample, PairExample, PlainExample, QaExample, Span, TextExample

NER = NerExample("Ann runs", ((0, 3), (4, 8)), (Span(0, 3, "per"),))
TEXT = TextExample("Ann runs", "x")
PAIR = PairExample("Ann", "runs")
PLAIN = PlainExample("Ann runs")
QA = QaExample("Who?", "Ann runs", ((0, 3),))
CSV = "text,label\nAnn runs,x\n"
QUESTION = {"question": "Who?", "context": "Ann runs", "answers": [{"text": "Ann", "answer_start": 0}]}


def lines(*records: Any) -> str:
    return "".join(json.dumps(record) + "\n" for record in records)


def write(folder: Path, name: str, content: str | bytes) -> Path:
    path = folder / name
    path.write_bytes(content.encode() if isinstance(content, str) else content)
    return path


ENTITY = {"start": 0, "end": 3, "label": "per"}
STUDIO = {"start": 0, "end": 3, "text": "Ann", "labels": ["per"]}
FORMS = [
    ("a.csv", CSV, TEXT),
    ("a.csv", b"\xef\xbb\xbf" + CSV.encode(), TEXT),
    ("a.csv", CSV.encode("utf-16"), TEXT),
    ("a.csv", "Label;ID;Text\r\nx;1;Ann runs\r\n", TEXT),
    ("a.TSV", "label\ttext\nx\tAnn runs\n", TEXT),
    ("a.csv", "label\ttext\nx\tAnn runs\n", TEXT),
    ("a.csv", '"sentence"|"intent"\n"Ann runs"|"x"\n', TEXT),
    ("a.data", CSV, TEXT),
    ("a.jsonl", lines({"text": "Ann runs", "label": "x"}), TEXT),
    ("a.csv", lines({"text": "Ann runs", "label": "x"}), TEXT),
    ("a.json", json.dumps([{"text": "Ann runs", "label": "x"}], indent=1), TEXT),
    ("a.json", json.dumps([{"text": "Ann runs", "label": "x"}]), TEXT),
    ("a.json", json.dumps({"version": 1, "data": [{"text": "Ann runs", "label": "x"}]}), TEXT),
    ("a.json", lines({"text": "Ann runs", "label": ["x"]}), TEXT),
    ("a.ndjson", lines({"utterance": "Ann runs", "category": "x"}), TEXT),
    ("a.jsonl", lines({"text": "Ann runs", "label": 0, "label_text": "x"}), TEXT),
    ("a.conll", "Ann B-per\nruns O\n", NER),
    ("a.bio", "-DOCSTART- -X- O\n\nAnn NNP B-per\nruns VB O\n", NER),
    ("a.txt", "Ann\tI-per\nruns\tO\n\n", NER),
    ("a.conllu", "# text = Ann runs\n1\tAnn\t_\tB-per\t_\n2\truns\t_\tO\t_\n", NER),
    ("a.jsonl", lines({"tokens": ["Ann", "runs"], "tags": ["B-per", "O"]}), NER),
    ("a.jsonl", lines({"tokens": ["Ann", "runs"], "ner_tags": ["U-per", "O"]}), NER),
    ("a.jsonl", lines({"text": "Ann runs", "entities": [[0, 3, "per"]]}), NER),
    ("a.jsonl", lines({"text": " Ann runs", "spans": [{"start": 1, "end": 5, "label": "per"}]}), NER),
    ("a.json", json.dumps([["Ann runs", {"entities": [[0, 3, "per"]]}]]), NER),  # spaCy 2
    ("a.jsonl", lines({"text": "Ann runs", "cats": {"x": 1.0, "y": 0.0}}), TEXT),  # spaCy
    ("a.jsonl", lines({"text": "Ann runs", "label": [[0, 3, "per"]]}), NER),  # doccano
    ("a.jsonl", lines({"id": 1, "text": "Ann runs", "labels": [[0, 3, "per"]], "Comments": []}), NER),
    ("a.jsonl", lines({"text": "Ann runs", "entities": [{"id": 1, "label": "per", "start_offset": 0, "end_offset": 3}],
                       "relations": []}), NER),  # doccano with relations
    ("a.json", json.dumps([{"tokenized_text": ["Ann", "runs"], "ner": [[0, 0, "per"]]}]), NER),  # GLiNER
    ("a.json", json.dumps([{"id": 1, "data": {"text": "Ann runs"}, "annotations": [
        {"result": [{"type": "labels", "value": STUDIO}]}]}]), NER),  # Label Studio
    ("a.json", json.dumps([{"data": {"message": "Ann runs", "by": "me"}, "annotations": [
        {"was_cancelled": True, "result": []}, {"result": [{"value": {"choices": ["x"]}}]}]}]), TEXT),
    ("a.json", json.dumps([{"id": 1, "text": "Ann runs", "label": [STUDIO], "annotator": 1}]), NER),  # JSON_MIN
    ("a.json", json.dumps([{"id": 1, "text": "Ann runs", "sentiment": "x", "annotator": 1}]), TEXT),
    ("a.jsonl", lines({"text": "Ann runs", "label": "x", "answer": "accept", "_input_hash": 1}), TEXT),  # Prodigy
    ("a.jsonl", lines({"text": "Ann runs", "spans": [ENTITY], "tokens": [{"text": "Ann", "id": 0}],
                       "answer": "accept"}), NER),
    ("a.jsonl", lines({"text": "Ann runs", "options": [{"id": "x"}, {"id": "y"}], "accept": ["x"],
                       "answer": "accept"}), TEXT),
    ("a.json", json.dumps({"rasa_nlu_data": {"common_examples": [{"text": "Ann runs", "intent": "x", "entities": []}]}},
                          indent=2), TEXT),
    ("a.json", json.dumps({"rasa_nlu_data": {"common_examples": [{"text": "Ann runs", "entities": [
        {"start": 0, "end": 3, "value": "Anna", "entity": "per"}]}]}}), NER),
    ("a.jsonl", lines(QUESTION), QA),
    ("a.json", json.dumps({"data": [{"paragraphs": [{"context": "Ann runs", "qas": [QUESTION]}]}]}), QA),
]  # fmt: skip


@pytest.mark.parametrize(("name", "content", "expected"), FORMS)
def test_forms(tmp_path: Path, name: str, content: str | bytes, expected: Example) -> None:
    family = {TextExample: "classification", NerExample: "ner", QaExample: "qa"}[type(expected)]  # type: ignore[index]
    path = write(tmp_path, name, content)
    assert load_examples(path) == (family, [expected])
    packed = tmp_path / f"{name}.gz"
    packed.write_bytes(gzip.compress(path.read_bytes()))
    assert load_examples(str(packed), family) == (family, [expected])
    with pytest.raises(DataError, match="Expected"):
        load_examples(path, "qa" if family != "qa" else "ner")
    if family != "qa" and "annotations" not in str(content):
        assert [text.strip() for text, _ in load_texts(path)] == ["Ann runs"]


def test_labels_are_text(tmp_path: Path) -> None:
    path = write(tmp_path, "a.csv", "text,label\na,001\nb,010\nc,NA\nd,1e3\n")
    assert [example.label for example in load_examples(path)[1]] == ["001", "010", "NA", "1e3"]  # type: ignore[union-attr]
    path = write(tmp_path, "a.jsonl", lines({"text": "a", "label": 7}, {"text": "b", "label": "007"}))
    assert [example.label for example in load_examples(path)[1]] == ["7", "007"]  # type: ignore[union-attr]
    for wrong in (None, 1.5, True, " ", {}):
        path = write(tmp_path, "a.jsonl", lines({"text": "a", "label": "x"}, {"text": "b", "label": wrong}))
        with pytest.raises(DataError, match=r"a\.jsonl:2: the label is .*taken for JSON lines"):
            load_examples(path)


def test_an_error_names_all_keys(tmp_path: Path) -> None:
    path = write(tmp_path, "a.jsonl", lines({"text": "Ann runs", "label": [[0, 3, "per"]]}))
    with pytest.raises(DataError, match=r"a\.jsonl:1: there are 'text', 'label' .*Expected a text and a label"):
        load_examples(path, "classification")


def test_columns_by_option(tmp_path: Path) -> None:
    path = write(tmp_path, "a.csv", "Betreff,Kunde,Art\nAnn runs,7,x\n")
    with pytest.raises(DataError, match=r"there are 'Betreff', 'Kunde', 'Art' .*--label-column"):
        load_examples(path)
    assert load_examples(path, text_column="Betreff", label_column="Art") == ("classification", [TEXT])
    with pytest.raises(DataError, match=r"no column 'Titel'; there are 'Betreff', 'Kunde'.*--text-column"):
        load_examples(path, text_column="Titel", label_column="Art")
    with pytest.raises(DataError, match=r"no column 'Typ'.*--label-column"):
        load_examples(path, text_column="Betreff", label_column="Typ")
    bare = write(tmp_path, "b.csv", "x;Ann runs\ny;Bob sits\n")
    assert load_examples(bare, text_column="1", label_column="0")[1] == [TEXT, TextExample("Bob sits", "y")]
    odd = write(tmp_path, "c.csv", "text~label\nAnn, Bob; runs~x\n")
    assert load_examples(odd, delimiter="~")[1] == [TextExample("Ann, Bob; runs", "x")]
    tabs = write(tmp_path, "d.csv", "text\tlabel\nAnn runs\tx\n")
    for name in ("tab", "\\t", "\t"):
        assert load_examples(tabs, delimiter=name)[1] == [TEXT]
    with pytest.raises(DataError, match="the delimiter 'ab'"):
        load_examples(tabs, delimiter="ab")


def test_a_second_text_is_refused_or_joined(tmp_path: Path) -> None:
    path = write(tmp_path, "a.csv", "text,title,label\nAnn runs,In town,x\n")
    with pytest.raises(DataError, match=r"the column 'title' has texts, too.*--text-column 'text\+title'"):
        load_examples(path)
    assert load_examples(path, text_column="text")[1] == [TEXT]
    assert load_examples(path, text_column="title+text")[1] == [TextExample("In town Ann runs", "x")]
    pairs = {"text": "Ann runs", "label": "x"}
    rows = [{**pairs, "anmerkung": f"that was number {number}"} for number in range(4)]
    with pytest.raises(DataError, match="the column 'anmerkung' has texts, too"):
        load_examples(write(tmp_path, "a.jsonl", lines(*rows)))
    harmless = [{**pairs, "id": str(number), "by": "Ann", "when": "2026-01-01 10:00 UTC"} for number in range(4)]
    assert load_examples(write(tmp_path, "a.jsonl", lines(*harmless)))[1] == [TEXT] * 4
    empty = write(tmp_path, "b.csv", "text,title,label\nAnn runs,,x\n")
    assert load_examples(empty)[1] == [TEXT]


@pytest.mark.parametrize(
    "table",
    [
        "text,comment,label\nnot here,arrived broken,a\nall fine,,b\n",
        "message,review,label\nAnn runs,good,a\nBob sits,bad,b\n",
        "text,Body_2,label\nAnn runs,谢谢,a\nBob sits,好,b\n",
    ],
)
def test_a_second_text_by_its_name_may_be_short(tmp_path: Path, table: str) -> None:
    path = write(tmp_path, "a.csv", table)
    first, second = table.split(",")[:2]
    with pytest.raises(DataError, match=rf"the column '{second}' has texts, too.*--text-column '{first}\+{second}'"):
        load_examples(path)
    assert len(load_examples(path, text_column=first)[1]) == 2


def test_ids_numbers_and_dates_are_no_second_text(tmp_path: Path) -> None:
    header = "text,message_id,review,comment,by,date,label\n"
    rows = "Ann runs,m-17,5,2026-01-01,ann,1 May 2026,a\nBob sits,m-18,4.5,,bob,2 May 2026,b\n"
    assert len(load_examples(write(tmp_path, "a.csv", header + rows))[1]) == 2


def test_two_columns_of_labels_are_asked_about(tmp_path: Path) -> None:
    for names in ("intent,sentiment", "label,category"):
        path = write(tmp_path, "a.csv", f"text,{names}\nAnn runs,x,y\n")
        first, second = names.split(",")
        with pytest.raises(DataError, match=rf"several labels: '{first}', '{second}'.*--label-column {first}"):
            load_examples(path)
        assert load_examples(path, label_column=first)[1] == [TEXT]
    path = write(tmp_path, "a.jsonl", lines({"text": "Ann runs", "label": "x", "topic": "y"}))
    with pytest.raises(DataError, match="several labels: 'label', 'topic'"):
        load_examples(path)
    path = write(tmp_path, "b.csv", "topic,label\nAnn runs,x\n")
    assert load_examples(path, text_column="topic")[1] == [TEXT]


def test_measurements_are_no_labels(tmp_path: Path) -> None:
    path = write(tmp_path, "a.csv", "text,label\na,0.0\nb,0.14\nc,-1.5\nd,0.14\n")
    with pytest.raises(DataError, match=r"a\.csv:2: all labels are numbers with decimals, such as '0\.0'.*regression"):
        load_examples(path)
    grades = write(tmp_path, "b.csv", "text,label\na,0.0\nb,1.0\nc,1.0\nd,0.0\n")
    assert len(load_examples(grades)[1]) == 4


def test_data_of_another_family_is_named(tmp_path: Path) -> None:
    table = write(tmp_path, "shop.csv", "text,label\nAnn runs,x\n")
    with pytest.raises(
        DataError, match=r"'label' with labels of texts, but the task, or --family, is ner.*Take other"
    ) as caught:
        load_examples(table, "ner")
    assert "column" not in caught.value.todo
    entities = write(tmp_path, "ner.jsonl", lines({"text": "Ann runs", "entities": [[0, 3, "per"]]}))
    with pytest.raises(DataError, match=r"with entities, but the task, or --family, is classification"):
        load_examples(entities, "classification")
    tokens = write(tmp_path, "tokens.jsonl", lines({"tokens": ["Ann", "runs"], "tags": ["B-per", "O"]}))
    with pytest.raises(DataError, match=r"with tags of tokens, but the task, or --family, is classification"):
        load_examples(tokens, "classification")
    with pytest.raises(DataError, match=r"with questions, but the task, or --family, is ner"):
        load_examples(write(tmp_path, "qa.jsonl", lines(QUESTION)), "ner")


def test_labels_that_recur_in_combinations_are_refused(tmp_path: Path) -> None:
    for separator in ("|", ", ", ";"):
        labels = [
            separator.join(pair) for pair in (("pay", "fast"), ("pay", "slow"), ("send", "fast"), ("send", "slow"))
        ]
        path = write(tmp_path, "a.csv", "text,label\n" + "".join(f't{n},"{label}"\n' for n, label in enumerate(labels)))
        with pytest.raises(DataError, match=r"a\.csv:2: .* 2 labels, which also occur in other combinations"):
            load_examples(path)
    topics = write(tmp_path, "b.csv", "text,label\na,food/drink\nb,food/meal\nc,home/garden\nd,home/kitchen\n")
    assert len(load_examples(topics)[1]) == 4


def test_several_labels_are_refused(tmp_path: Path) -> None:
    joined = write(tmp_path, "a.csv", "text,label\nboth,food|price\nsoup,food\ndear,price\n")
    with pytest.raises(DataError, match=r"a\.csv:2: the label 'food\|price' seems to be 2 .*--label-separator '\|'"):
        load_examples(joined)
    alone = write(tmp_path, "b.csv", "text,label\na,food/drink\nb,price\n")
    assert len(load_examples(alone)[1]) == 2
    none = write(tmp_path, "a.jsonl", lines({"text": "a", "label": ["x"]}, {"text": "b", "label": []}))
    with pytest.raises(DataError, match=r"a\.jsonl:2: the text has no label.*--family multilabel"):
        load_examples(none)


def test_prodigy_answers(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    def record(text: str, answer: str, **more: Any) -> dict[str, Any]:
        return {"text": text, "answer": answer, **more}

    several = [record("a", "accept", label="X"), record("b", "reject", label="X"), record("c", "ignore", label="X"),
               record("d", "accept", label="Y")]  # fmt: skip
    path = write(tmp_path, "a.jsonl", lines(*several))
    with caplog.at_level(logging.WARNING, logger="trunkline.data"):
        assert load_examples(path)[1] == [TextExample("a", "X"), TextExample("d", "Y")]
    assert "left out: 1 rejected by the annotator" in caplog.text
    assert "left out: 1 ignored by the annotator" in caplog.text
    loaded = read_examples(write(tmp_path, "b.jsonl", lines(*several[:3])))
    assert loaded.examples == [TextExample("a", "X"), TextExample("b", "not X")]
    assert any("1 texts for which 'X' was rejected" in note for note in loaded.notes)
    spans = [record("Ann", "accept", spans=[ENTITY]), record("Bob", "reject", spans=[ENTITY]),
             record("Eva", "accept", spans=[])]  # fmt: skip
    loaded = read_examples(write(tmp_path, "c.jsonl", lines(*spans)))
    assert [example.text for example in loaded.examples] == ["Ann", "Eva"]  # type: ignore[union-attr]
    assert loaded.notes == ["left out: 1 rejected by the annotator"]
    with pytest.raises(DataError, match=r"there is no example \(1 ignored by the annotator\)"):
        load_examples(write(tmp_path, "d.jsonl", lines(several[2])))


def test_entities_or_labels_is_asked(tmp_path: Path) -> None:
    record = {"text": "Ann runs", "intent": "x", "entities": [{"start": 0, "end": 3, "entity": "per"}]}
    path = write(tmp_path, "a.json", json.dumps({"rasa_nlu_data": {"common_examples": [record]}}))
    with pytest.raises(DataError, match=r"entities \('entities'\) and labels \('intent'\).*--family ner"):
        load_examples(path)
    assert load_examples(path, "ner") == ("ner", [NER])
    assert load_examples(path, "classification") == ("classification", [TEXT])
    assert load_examples(path, label_column="intent") == ("classification", [TEXT])


def test_entities_that_miss_words(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    texts = ["Grüße an Jürgen", "Fünf Bücher für Ana", "Köln grüßt Bonn"]
    wanted = ["Jürgen", "Ana", "Bonn"]
    in_bytes, in_words = [], []
    for text, name in zip(texts, wanted, strict=True):
        start, end = text.index(name), text.index(name) + len(name)
        in_bytes.append({"text": text, "entities": [[len(text[:start].encode()), len(text[:end].encode()), "x"]]})
        word = text.split().index(name)
        in_words.append({"text": text, "entities": [[word, word + 1, "x"]]})
    good = [{"text": "Ana is here", "entities": [[0, 3, "x"]]}] * 9
    with pytest.raises(DataError, match=r"a\.jsonl:10: 3 of 12 entities.* in line 10,.*seem to count UTF-8 bytes"):
        load_examples(write(tmp_path, "a.jsonl", lines(*good, *in_bytes)))
    with pytest.raises(DataError, match=r"b\.jsonl:1: 3 of 3 entities.*seem to count words"):
        load_examples(write(tmp_path, "b.jsonl", lines(*in_words)))
    inclusive = [
        {"text": f"In Rome with {name}", "entities": [[3, 6, "x"], [13, 12 + len(name), "y"]]} for name in wanted
    ]
    with pytest.raises(DataError, match=r"e\.jsonl:1: 6 of 6 entities.*ends seem to be inclusive: add 1"):
        load_examples(write(tmp_path, "e.jsonl", lines(*inclusive)))
    assert len(load_examples(write(tmp_path, "f.jsonl", lines(*good, *inclusive[:2])))[1]) == 11
    part = {"text": "In Romtown", "entities": [[3, 6, "x"]]}
    with caplog.at_level(logging.WARNING, logger="trunkline.data"):
        family, examples = load_examples(write(tmp_path, "c.jsonl", lines(*good, part)))
    assert (family, len(examples)) == ("ner", 10)
    assert "1 of 10 entities do not begin and end where words do: 'Rom' at 3..6 (x) in line 10" in caplog.text
    with pytest.raises(DataError, match=r"d\.jsonl:10: the entity 'x' has the offsets 3..60"):
        load_examples(write(tmp_path, "d.jsonl", lines(*good, {"text": "In Rome", "entities": [[3, 60, "x"]]})))


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("a.parquet", "PAR1", "was taken for Parquet and cannot be read"),
        ("a.txt", "just a text\n", "no form of labelled data"),
        ("a.csv", "", r"a\.csv: the file is empty"),
        ("a.csv", "text,label\n", "there is no example"),
        ("a.csv", "text,label\na,x\n,y\n", r"a\.csv:3: the text is empty"),
        ("a.csv", "text,label\na,\n", r"a\.csv:2: the label is empty"),
        ("a.csv", "text,label,label\na,x,y\n", "each column named once"),
        ("a.jsonl", '{"text": "a", "label": "x"}\n{"text": \n', r"a\.jsonl:2: the line is not JSON"),
        ("a.jsonl", '{"text": "a", "label": "x"}\n[1]\n', r"a\.jsonl:2: the line holds list"),
        ("a.json", '[{"text": "a", "label": "x"},\n {"text": "b"}]', r"a\.json:2: no key 'label'"),
        ("a.json", '[{"text": "a", "label": "x"},\n {"text": null, "label": "x"}]', r"a\.json:2: the text is null"),
        ("a.json", "[1, 2]", r"a\.json:1: the item is 1"),
        ("a.json", '{"text": "a",\n "label": "x"', r"a\.json:2: the file is not JSON"),
        ("a.jsonl", lines({"text": "a", "entities": "x"}), "Expected a text and a label"),
        ("a.jsonl", lines({"text": "a", "entities": []}, {"text": "a", "entities": 5}), r"a\.jsonl:2: entities is 5"),
        ("a.jsonl", lines({"tokens": ["a"], "tags": [3]}), r"a\.jsonl:1: the tag is 3"),
        ("a.jsonl", lines({"tokens": ["a"], "tags": []}), r"a\.jsonl:1: tokens and tags are not two lists"),
        ("a.jsonl", lines({"data": {"text": "a"}, "annotations": [3]}), "Expected the form of Label Studio"),
        ("a.jsonl", lines({**QUESTION, "answers": [{"text": "Bob", "answer_start": 0}]}), "'Bob' does not stand at 0"),
        ("a.zip", b"PK\x03\x04...", "this is a .zip file, and not one of Excel"),
    ],
)
def test_refusals(tmp_path: Path, name: str, content: str | bytes, message: str) -> None:
    with pytest.raises(DataError, match=message):
        load_examples(write(tmp_path, name, content))


@pytest.mark.parametrize(
    ("spec", "family", "message"),
    [
        ("no.csv", None, "no such file"),
        ("hub:x", "ner", "does not say which split"),
        ("a.csv", "parsing", "the family 'parsing'"),
    ],
)
def test_unknown_specs(spec: str, family: str | None, message: str) -> None:
    with pytest.raises(TrunklineError, match=message):
        load_examples(spec, family)


def test_records_without_entities_are_counted(tmp_path: Path) -> None:
    path = write(tmp_path, "a.jsonl", lines({"text": "Ann runs", "entities": [[0, 3, "per"]]}, {"text": "Go"}))
    loaded = read_examples(path)
    assert [len(example.spans) for example in loaded.examples] == [1, 0]  # type: ignore[union-attr]
    assert loaded.notes == ["1 records without the key 'entities' were taken to have no entity"]


TEXT_FORMS = [
    ("a.csv", "text,label\n\"Book a table, please\",x\n", [("Book a table, please", {"label": "x"})]),
    ("a.csv", "Text\nBook a table\n\"two, please\"\n", [("Book a table", {}), ("two, please", {})]),
    ("a.tsv", "id\tsentence\n1\ta\n2\t\n", [("a", {"id": "1"}), ("", {"id": "2"})]),
    ("a.ndjson", lines({"text": "a", "id": 1}, {"text": "b", "id": None}), [("a", {"id": 1}), ("b", {"id": None})]),
    ("a.json", json.dumps([{"text": "a"}, {"text": "b"}]), [("a", {}), ("b", {})]),
    ("a.ndjson", lines({"satz": "a"}, {"satz": "b"}), [("a", {}), ("b", {})]),
    ("a.ndjson", lines({"id": 1, "question": " a\n b ", "context": " c\nd"}), [("a b\n c\nd", {"id": 1})]),
    ("a.txt", "a\n\nb c\n", [("a", {}), ("b c", {})]),
    ("a.conll", "a O\nb B-x\n\nc O\n", [("a b", {}), ("c", {})]),
]  # fmt: skip


@pytest.mark.parametrize(("name", "content", "expected"), TEXT_FORMS)
def test_texts_to_predict_on(tmp_path: Path, name: str, content: str, expected: list[Any]) -> None:
    assert list(load_texts(write(tmp_path, name, content))) == expected
    packed = write(tmp_path, f"{name}.gz", gzip.compress(content.encode()))
    assert list(load_texts(packed)) == expected


def test_texts_by_option_and_refused(tmp_path: Path) -> None:
    path = write(tmp_path, "a.csv", "a;b\nx;1,5\n")
    assert list(load_texts(path, text_column="b", delimiter=";")) == [("1,5", {"a": "x"})]
    assert list(load_texts(path, text_column="a+b")) == [("x 1,5", {})]
    with pytest.raises(DataError, match=r"no column of texts; there are 'a', 'b'.*--text-column"):
        list(load_texts(path))
    alone = write(tmp_path, "a.csv", 'Where is it?\n"Wait, please"\n')
    with pytest.raises(DataError, match=r"a\.csv:2: no column of texts; there are 'Where is it\?'.*--text-column 0"):
        list(load_texts(alone))
    assert [text for text, _ in load_texts(alone, text_column="0")] == ["Where is it?", "Wait, please"]
    assert [text for text, _ in load_texts(alone, text_column="Where is it?")] == ["Wait, please"]
    for record, said in (
        ({"question": "a", "context": 1}, "the context is 1"),
        ({"question": "", "context": "b"}, "empty"),
    ):
        with pytest.raises(DataError, match=rf"a\.ndjson:1: .*{said}"):
            list(load_texts(write(tmp_path, "a.ndjson", lines(record))))
    stream = load_texts(write(tmp_path, "a.ndjson", lines({"text": "a"}, {"text": None})))
    assert next(stream) == ("a", {})
    with pytest.raises(DataError, match=r"a\.ndjson:2: the text is null"):
        next(stream)
    with pytest.raises(DataError, match=r"a\.ndjson:2: no key 'text'"):
        list(load_texts(write(tmp_path, "a.ndjson", lines({"text": "a"}, {"body": "b"}))))


def test_questions_are_predicted_on_as_they_are_fitted(tmp_path: Path) -> None:
    asked = [{"id": n, "question": f"who  {n}?", "answers": []} for n in range(2)]
    squad = {"data": [{"title": "t", "paragraphs": [{"context": " Ann runs", "qas": asked}]}]}
    flat = lines(*({**one, "context": " Ann runs"} for one in asked))
    for name, content in (("a.json", json.dumps(squad)), ("a.jsonl", flat)):
        path = write(tmp_path, name, content)
        found = list(load_texts(path))
        assert [text for text, _ in found] == [example.text for example in load_examples(path)[1]]  # type: ignore[union-attr]
        assert [other["id"] for _, other in found] == [0, 1]
        assert all(other["answers"] == [] and "context" not in other for _, other in found)


def test_texts_are_streamed(tmp_path: Path) -> None:
    path = write(tmp_path, "a.jsonl", lines({"text": "a"}) * 100 + "no json\n")
    stream = load_texts(path)
    assert [next(stream)[0] for _ in range(100)] == ["a"] * 100
    with pytest.raises(DataError, match=r"a\.jsonl:101"):
        next(stream)


@pytest.mark.parametrize(
    ("name", "content", "family", "expected"),
    [
        ("a.jsonl", lines({"left": " Ann", "right": "runs"}, {"left": "", "right": "x"}), "pairs", [PAIR]),
        ("a.csv", "left,right\nAnn,runs\n", "pairs", [PAIR]),
        ("a.data", "left,right\nAnn,runs\n", "pairs", [PAIR]),
        ("a.jsonl", lines({"left": "a", "right": "b", "group": 3}), "pairs", [PairExample("a", "b", "3")]),
        ("a.txt", "Ann\nruns\n\nBob  sits", "plain", [PLAIN, PlainExample("Bob sits")]),
        ("a.md", "Ann runs\n", "plain", [PLAIN]),
        ("a.jsonl", lines({"text": "Ann runs", "label": "x"}), "plain", [PLAIN]),
        ("a.csv", CSV, "classification", [TEXT]),
        ("a.conll", "Ann B-per\nruns O\n", "ner", [NER]),
    ],
)
def test_streams_of_one_family(tmp_path: Path, name: str, content: str, family: str, expected: list[Example]) -> None:
    assert list(stream_examples(write(tmp_path, name, content), family)) == expected


def test_folders_of_plain_text(tmp_path: Path) -> None:
    write(tmp_path, "a.md", "Ann runs\n\nBob sits\n")
    write(tmp_path, "b.csv", "no")
    assert list(stream_examples(tmp_path, "plain")) == [PLAIN, PlainExample("Bob sits")]
    write(tmp_path, "bad.txt", b"\xff")
    found = stream_examples(tmp_path, "plain")
    assert [next(found), next(found)] == [PLAIN, PlainExample("Bob sits")]
    with pytest.raises(DataError, match=r"bad\.txt:1: the byte 0xff"):
        next(found)
    long = write(tmp_path, "long.txt", "word " * 250 + "end. And a last sentence here.")
    sizes = [len(passage.text.split()) for passage in stream_examples(long, "plain")]  # type: ignore[union-attr]
    assert sum(sizes) == 256
    assert max(sizes) <= 200


def test_sources_of_pre_finetuning(tmp_path: Path) -> None:
    both = {"text": "Ann runs", "entities": [[0, 3, "a"], [0, 8, "b"]]}
    path = write(tmp_path, "a.jsonl", lines(both, {"tokens": ["Ann", "runs"], "tags": ["B-per", "O"]}))
    first, second = stream_examples(path, "ner")
    assert first.spans == (Span(0, 3, "a"), Span(0, 8, "b"))  # type: ignore[union-attr]
    assert second == NER
    with pytest.raises(DataError, match="overlap"):
        load_examples(write(tmp_path, "b.jsonl", lines(both)))
    assert list(stream_examples(write(tmp_path, "c.jsonl", lines(QUESTION)), "qa")) == [QA]
    pairs = write(tmp_path, "d.jsonl", lines({"left": "Ann", "right": "runs"}))
    assert list(stream_examples(pairs, "pairs")) == [PAIR]
    with pytest.raises(DataError, match=r"d\.jsonl:1: there are 'left', 'right'.*Expected tokens and tags"):
        list(stream_examples(pairs, "ner"))
