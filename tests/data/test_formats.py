"""Every form of `FORMATS`, as its tool writes it: what is read, what is said to be left out, what is refused."""

from __future__ import annotations

import json
import sys
import zipfile
import zlib
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest

from trunkline.data import documents, formats, sheets
from trunkline.data.formats import FORMATS
from trunkline.data.load import find_form, read_examples
from trunkline.data.stream import load_texts
from trunkline.errors import DataError, TrunklineError
from written_forms import WRITERS, Text

TEXTS: list[Text] = [
    ("Ann lives in Berlin 😀 now.", [(0, 3, "per"), (13, 19, "loc")]),
    ("No one here.", []),
    ("Bob Smith met Ann in 😀 Oslo.", [(0, 9, "per"), (14, 17, "per"), (23, 27, "loc")]),
]


@pytest.mark.parametrize("form", WRITERS)
def test_texts_with_entities_come_back(tmp_path: Path, form: str) -> None:
    path = WRITERS[form](tmp_path, TEXTS)
    assert find_form(path) == form.partition(" ")[0].rstrip(",")
    loaded = read_examples(path, "ner")
    found = [(e.text, [(e.text[s.start : s.end], s.label) for s in e.spans]) for e in loaded.examples]  # type: ignore[union-attr]
    blanks = " " if "tokens" in form else ""
    texts = [(text.replace(".", f"{blanks}."), [(text[a:b], label) for a, b, label in own]) for text, own in TEXTS]
    assert found == texts
    assert [text.strip() for text, _ in load_texts(path)] == [text for text, _ in texts]


def test_each_form_is_written_here() -> None:
    others = {"xlsx", "fasttext"}  # which have no entities
    assert set(FORMATS) - {name.partition(" ")[0].rstrip(",") for name in WRITERS} == others


def read(path: Path, **columns: Any) -> tuple[list[tuple[str, str]], list[str]]:
    loaded = read_examples(path, **columns)
    return [(e.text, e.label) for e in loaded.examples], loaded.notes  # type: ignore[union-attr]


def test_excel(tmp_path: Path) -> None:
    import datetime

    import openpyxl

    book, path = openpyxl.Workbook(), tmp_path / "a.data"
    rows = [["Nachricht", "Abteilung", "am"], ["Wo ist es?", "001", datetime.date(2026, 1, 2)], [], ["Geld", 10, None]]
    for row in [[], *rows]:
        book.active.append(row)
    book.create_sheet("mehr").append(["a"])
    book.save(path)
    columns = {"text_column": "Nachricht", "label_column": "Abteilung"}
    found, notes = read(path, **columns)
    assert found == [("Wo ist es?", "001"), ("Geld", "10")]
    assert notes == ["left out: the sheets 'mehr', as only the first one, 'Sheet', is read"]
    assert read_examples(path, **columns).kind == "an Excel sheet, texts with a label"
    assert next(load_texts(path, text_column="Nachricht")) == ("Wo ist es?", {"Abteilung": "001", "am": "2026-01-02"})
    assert read(path, text_column="0", label_column="1")[0][0] == ("Nachricht", "Abteilung")
    with pytest.raises(DataError, match=r"a\.data:3: there are 'Abteilung', 'am'"):
        read(path, text_column="Nachricht")
    book.active["D3"] = "more"
    book.save(path)
    with pytest.raises(DataError, match=r"a\.data:3: 4 columns\. Expected 3 columns"):
        read(path, **columns)


@pytest.mark.parametrize("kept", ["parquet", "saved"])
def test_names_of_classes(tmp_path: Path, kept: str) -> None:
    import datasets

    datasets.disable_progress_bars()
    label, tags = datasets.ClassLabel(names=["no", "yes"]), datasets.List(datasets.ClassLabel(names=["O", "B-x"]))
    text, tokens = datasets.Value("string"), datasets.List(datasets.Value("string"))

    def keep(name: str, columns: dict[str, list[Any]], features: dict[str, Any]) -> Path:
        data = datasets.Dataset.from_dict(columns, datasets.Features(features))
        path = tmp_path / name
        (data.to_parquet if kept == "parquet" else data.save_to_disk)(path)
        return path

    labels = keep("a", {"text": ["a", "b"], "label": [1, 0]}, {"text": text, "label": label})
    assert read(labels)[0] == [("a", "yes"), ("b", "no")]
    words = keep("b", {"tokens": [["Ann", "runs"]], "ner_tags": [[1, 0]]}, {"tokens": tokens, "ner_tags": tags})
    assert read_examples(words).examples[0].spans[0].label == "x"  # type: ignore[union-attr]
    unknown = keep("c", {"text": ["a", "b"], "label": [1, -1]}, {"text": text, "label": label})
    with pytest.raises(DataError, match="c:2: the label is null"):
        read(unknown)


def test_a_data_set_with_splits_asks_for_one(tmp_path: Path) -> None:
    import datasets

    data = datasets.Dataset.from_dict({"text": ["a"], "label": ["x"]})
    datasets.DatasetDict({"train": data, "test": data}).save_to_disk(tmp_path / "all")
    with pytest.raises(DataError, match=r"splits 'train', 'test'.*such as .*all/train"):
        read(tmp_path / "all")
    assert read(tmp_path / "all" / "test")[0] == [("a", "x")]


def test_categories_of_a_docbin(tmp_path: Path) -> None:
    import spacy
    from spacy.tokens import DocBin

    held = DocBin()
    for text, cats in (("good", {"pos": 1.0, "neg": 0.0}), ("bad", {"pos": 0.0, "neg": 1.0})):
        doc = spacy.blank("en")(text)
        doc.cats, doc.spans["sc"] = cats, [doc[:1]]
        held.add(doc)
    held.to_disk(tmp_path / "a")
    assert read(tmp_path / "a") == ([("good", "pos"), ("bad", "neg")], ["left out: 2 spans of the group 'sc'"])


@pytest.mark.parametrize(
    "content", ["__label__a b, c\n__label__d e", '"__label__a b, c __comment__x y"\n__label__d e \n']
)
def test_fasttext(tmp_path: Path, content: str) -> None:
    path = tmp_path / "a.txt"
    path.write_text(content)
    found, notes = read(path)
    assert found == [("b, c", "a"), ("e", "d")]
    assert notes == ["left out: the comments of 1 texts"] * ("comment" in content)
    path.write_text("__label__a b\nno label\n")
    with pytest.raises(DataError, match=r"a\.txt:2: the line is 'no label'"):
        read(path)


@pytest.mark.parametrize("name", ["a.json", "a.csv"])
def test_one_choice_and_several_in_the_short_forms_of_label_studio(tmp_path: Path, name: str) -> None:
    meta = dict.fromkeys(("annotation_id", "annotator", "created_at", "lead_time", "updated_at"), "1")
    choices: list[Any] = ["pos", {"choices": ["pos", "neg"]}]
    records = [{"text": text, "mood": mood, **meta} for text, mood in zip("ab", choices, strict=True)]
    content = json.dumps(records)
    if name == "a.csv":
        cells = [["text", "mood", *meta], *([own["text"], _cell(own["mood"]), *meta.values()] for own in records)]
        content = "".join(",".join(row) + "\n" for row in cells)
    (tmp_path / name).write_text(content)
    found = read_examples(tmp_path / name, "multilabel", label_column="mood").examples
    assert [example.labels for example in found] == [("pos",), ("pos", "neg")]  # type: ignore[union-attr]


def _cell(value: Any) -> str:
    return value if isinstance(value, str) else '"' + json.dumps(value).replace('"', '""') + '"'


def test_rasa_in_all_its_notations(tmp_path: Path) -> None:
    path = tmp_path / "nlu.yml"
    path.write_text(
        "nlu:\n- intent: faq/ask\n  examples:\n  - text: |\n      where is [Bob](name:b)?\n"
        "- intent: greet\n  examples: |\n"
        '    - hi [San Francisco]{"entity": "city", "role": "to"}\n- lookup: x\n  examples: |\n    - y\n'
    )
    with pytest.raises(DataError, match=r"nlu\.yml:5: the records have entities .*--family"):
        read(path)
    found, notes = read(path, family="classification")
    assert found == [("where is Bob?", "faq/ask"), ("hi San Francisco", "greet")]
    assert notes == ["left out: 1 blocks without an intent, such as synonyms"]
    spans = [s for e in read_examples(path, "ner").examples for s in e.spans]  # type: ignore[union-attr]
    assert [(s.start, s.end, s.label) for s in spans] == [(9, 12, "name"), (3, 16, "city")]
    path.write_text("nlu:\n- intent: no\n  examples: |\n    - 42\n- intent: 001\n  examples: |\n    - yes\n")
    assert read(path, family="classification")[0] == [("42", "no"), ("yes", "001")]
    bomb = "".join(f"  {b}: &{b} [{', '.join([f'*{a}'] * 9)}]\n" for a, b in pairwise("abcdefghi"))
    path.write_text(
        f"nlu:\n- intent: greet\n  a: &a [x]\n{bomb}  examples: |\n    - y\n- intent: *i\n  examples: |\n    - z\n"
    )
    with pytest.raises(DataError, match=r"nlu\.yml:16: the text has 9 labels"):
        read(path, family="classification")
    path.write_text("nlu:\n- intent: [\n")
    with pytest.raises(DataError, match=r"nlu\.yml:3: the file is not YAML"):
        read(path)


def test_words_of_one_token_and_words_that_are_not_in_the_text(tmp_path: Path) -> None:
    path = tmp_path / "a"
    words = ["1 Er O", "2 geht O", "3-4 zum _", "3 zu O", "4 dem O", "4.1 x _", "5 Arzt B-job", "6 . O"]
    rows = ["\t".join((number, word, *"_______", tag)) for number, word, tag in map(str.split, words)]
    path.write_text("\n".join(["# text = Er geht  zum Arzt.", *rows, ""]))
    [example] = read_examples(path).examples
    assert example.text == "Er geht  zum Arzt."  # type: ignore[union-attr]
    assert [(s.start, s.end, s.label) for s in example.spans] == [(13, 17, "job")]  # type: ignore[union-attr]


def test_what_brat_has_besides_is_counted_and_checked(tmp_path: Path) -> None:
    folder = WRITERS["brat"](tmp_path, TEXTS)
    (folder / "b.txt").write_text("unlabelled")
    with (folder / "a.ann").open("a", encoding="utf-8") as stream:
        stream.write("T9\tx 0 3;13 19\tAnn Berlin\nR1\tr Arg1:T1 Arg2:T2\n#1\tAnnotatorNotes T1\thm\n")
    notes = read_examples(folder).notes
    assert [note.removeprefix("left out: 1 ") for note in notes] == [
        "entities of several parts", "relations", "comments", "texts without an .ann file",
    ]  # fmt: skip
    (folder / "a.ann").write_text("T1\tper 1 4\tAnn\n")
    with pytest.raises(DataError, match=r"a\.ann:1: 'Ann' does not stand at 1\.\.4 of a\.txt"):
        read_examples(folder / "a.ann")


def test_a_layer_is_named(tmp_path: Path) -> None:
    path = WRITERS["webanno"](tmp_path, TEXTS)
    assert "'webanno.custom.Pos'; 'de.tudarmstadt" in read_examples(path).notes[0]
    with pytest.raises(DataError, match=r"the layers are 'webanno\.custom\.Pos', .*one layer x\. .*--label-column"):
        read_examples(path, label_column="x")
    assert len(read_examples(WRITERS["xmi"](tmp_path, TEXTS), label_column="webanno.custom.Other").examples) == 3


def test_nothing_is_unpacked_without_limits(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for module in (formats, sheets, documents):
        monkeypatch.setattr(module, "DOCUMENT_LIMIT", 1000)
    monkeypatch.setattr(sheets, "LIMIT", 10)
    bomb = tmp_path / "bomb"
    bomb.write_bytes(zlib.compress(b"0" * 100_000))
    assert find_form(bomb) == "docbin"
    with zipfile.ZipFile(tmp_path / "a.xlsx", "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("xl/workbook.xml", "<a>" + "0" * 100_000)
    for path in (bomb, tmp_path / "a.xlsx", WRITERS["parquet"](tmp_path, TEXTS)):
        with pytest.raises(DataError, match=r"more than 10+ bytes when unpacked"):
            read_examples(path)


@pytest.mark.parametrize(
    "start",
    [
        b'<!DOCTYPE a [<!ENTITY b "c">]>',
        b'<?xml version="1.0" encoding="UTF-7"?>',
        b"<?xml version='1.0' encoding='UTF-16'?>",
    ],
)
def test_xml_declares_no_entities(tmp_path: Path, start: bytes) -> None:
    path = WRITERS["xmi"](tmp_path, TEXTS)
    content = path.read_bytes().partition(b"?>")[2]
    path.write_bytes(start + content)
    with pytest.raises(DataError, match="declares a document type or entities, or is not UTF-8"):
        read_examples(path)
    with zipfile.ZipFile(tmp_path / "a.xlsx", "w") as archive:
        archive.writestr("xl/workbook.xml", start + b"<a/>")
    with pytest.raises(DataError, match=r"a\.xlsx!xl/workbook\.xml: its XML declares"):
        read_examples(tmp_path / "a.xlsx")


@pytest.mark.parametrize("form", ["docbin", "xmi", "cas", "parquet", "saved of tokens"])
def test_damaged_files_name_the_form(tmp_path: Path, form: str) -> None:
    path = WRITERS[form](tmp_path, TEXTS)
    file = next(path.glob("*.arrow")) if path.is_dir() else path
    file.write_bytes(file.read_bytes()[:-40])
    with pytest.raises(DataError, match=rf"was taken for {FORMATS[form.split()[0]].kind} and cannot be read"):
        read_examples(path)


def test_an_old_excel_file_and_a_folder_of_other_files_are_refused(tmp_path: Path) -> None:
    (tmp_path / "a.xls").write_bytes(b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1" + bytes(100))
    with pytest.raises(DataError, match="a NUL byte, so this is a binary file"):
        read_examples(tmp_path / "a.xls")
    with pytest.raises(DataError, match="this is a folder"):
        read_examples(tmp_path)


@pytest.mark.parametrize(
    ("form", "package", "extra"),
    [("parquet", "pyarrow", "formats"), ("xmi", "cassis", "formats"), ("docbin", "spacy.tokens", "spacy")],
)
def test_what_needs_an_extra_names_it(
    tmp_path: Path, form: str, package: str, extra: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = WRITERS[form](tmp_path, TEXTS)
    monkeypatch.setitem(sys.modules, package, None)
    with pytest.raises(TrunklineError, match=rf"needs the package {package}.*trunkline\[{extra}\]"):
        read_examples(path)
