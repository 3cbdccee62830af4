"""The readers of labelled texts and of text pairs, on small files written here."""

from __future__ import annotations

import json
import logging
from pathlib import Path
from typing import Any

import pytest
from properties import disk

from trunkline.bundle.files import write_atomic
from trunkline.errors import DataError, RecipeError
from trunkline.text.examples import PairExample, TextExample
from trunkline_lab.data.readers import READERS


def read(name: str, path: Path, content: str | bytes, **options: Any) -> list[Any]:
    write_atomic(path, content)
    return list(READERS[name].read(path, options))


def make_tar(path: Path, members: dict[str, bytes]) -> Path:
    path.write_bytes(disk.squeeze(disk.make_tar(members), path.name))
    return path


def texts(*pairs: tuple[str, str]) -> list[TextExample]:
    return [TextExample(text, label) for text, label in pairs]


def pairs(*items: tuple[str, str]) -> list[PairExample]:
    return [PairExample(left, right) for left, right in items]


@pytest.mark.parametrize(
    ("content", "options"),
    [
        ('text,label\r\n"Hi, you", a\r\n Bye ,b\r\n', {}),
        ("id;kind;body\n1;a;Hi, you\n2;b;Bye\n", {"delimiter": ";", "text_column": "body", "label_column": "kind"}),
        ("a\tHi, you\nb\tBye\n", {"delimiter": "\t", "header": False, "text_column": -1, "label_column": 0}),
        ('text,label\n\n"Hi, you",a\n\nskip me,"a,b"\nBye,b\n', {"skip_labels_with": ","}),
        ('text,label\n"Hi, you",0\nBye,b\n', {"label_names": {"0": "a"}}),
        ('one,two,label\n"Hi,",you,a\nBye,,b\n', {"text_column": ["one", "two"]}),
        ('text,label\n" ",x\n"Hi, you",a\nBye,b\n', {"empty_texts": "skip"}),
    ],
)
def test_table(tmp_path: Path, content: str, options: dict[str, Any]) -> None:
    assert read("table", tmp_path / "a.csv", content, **options) == texts(("Hi, you", "a"), ("Bye", "b"))


def test_quotes(tmp_path: Path) -> None:
    content = 'text\tlabel\nsay "hi\tx\n"no\ty\n'
    options = {"delimiter": "\t", "quoting": False}
    assert read("table", tmp_path / "a.tsv", content, **options) == texts(('say "hi', "x"), ('"no', "y"))
    multi = 'text,label\n"two\nlines",x\nlast,\n'
    with pytest.raises(DataError, match=r"a\.csv:4: the label is empty"):
        read("table", tmp_path / "a.csv", multi)


@pytest.mark.parametrize(
    ("content", "options", "message"),
    [
        ("text,label\na,b\na,b,c\n", {}, r"a\.csv:3: 3 columns. Expected 2 columns"),
        ("text,label\na,b\na\n", {}, r"a\.csv:3: 1 column\."),
        ("text,label\n ,b\n", {}, r"a\.csv:2: the text is empty"),
        ("text,label\na, \n", {}, r"a\.csv:2: the label is empty"),
        ("text,label\na, \n", {"empty_texts": "skip"}, r"a\.csv:2: the label is empty"),
        ("one,two,label\n , ,x\n", {"text_column": ["one", "two"]}, r"a\.csv:2: the text is empty"),
        ("one,label\na,x\n", {"text_column": ["one", "two"]}, r"a\.csv:1: no column 'two'"),
        ("text,kind\na,b\n", {}, r"a\.csv:1: no column 'label'; the header is 'text', 'kind'"),
        ("text,text,label\na,b,c\n", {}, "2 columns 'text'"),
        ("a,b\n", {"header": False}, "without a header"),
        ("a,b\n", {"header": False, "text_column": 2, "label_column": 0}, r"a\.csv:1: no column 2"),
        ('text,label\nx,y\n"never closed,b\n', {}, r"a\.csv:3: the row cannot be parsed"),
        ("text,label\n", {}, r"a\.csv: the file has no example"),
        ("", {}, "the file has no example"),
    ],
)
def test_table_errors(tmp_path: Path, content: str, options: dict[str, Any], message: str) -> None:
    with pytest.raises(DataError, match=message):
        read("table", tmp_path / "a.csv", content, **options)


def test_label_text(tmp_path: Path) -> None:
    content = "NUM:date When was café ?\nHUM:ind Who ?\n".encode("latin-1")
    found = read("label_text", tmp_path / "a", content, encoding="latin-1", label_until=":")
    assert found == texts(("When was café ?", "NUM"), ("Who ?", "HUM"))
    found = read("label_text", tmp_path / "a", "x@y.z@pos\nb@neg\n", separator="@", label_first=False)
    assert found == texts(("x@y.z", "pos"), ("b", "neg"))
    found = read("label_text", tmp_path / "a", 'L\tT\nham\t"Hi\n', separator="\t", skip_lines=1)
    assert found == texts(('"Hi', "ham"))
    for bad, message in [
        ("ham", r"a:2: no ' ' in 'ham'"),
        ("ham  ", "a:2: the text is empty"),
        (" x", "a:2: the label"),
    ]:
        with pytest.raises(DataError, match=message):
            read("label_text", tmp_path / "a", "x y\n" + bad)


def test_blank_texts_are_dropped_only_when_asked_for_and_counted(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    write_atomic(tmp_path / "label", "0\n1\n1\n")
    with caplog.at_level(logging.WARNING, logger="trunkline.data"):
        found = read("parallel", tmp_path / "text", "a\n \nb\n", labels="label", empty_texts="skip")
        assert found == texts(("a", "0"), ("b", "1"))
        names = {"0": "bad", "1": "good"}
        found = read("label_text", tmp_path / "lines", "0 \n1 fine\n0 \n", empty_texts="skip", label_names=names)
        assert found == texts(("fine", "good"))
    assert [record.getMessage().partition(": ")[2] for record in caplog.records] == [
        "1 blank texts were dropped (empty_texts: skip)",
        "2 blank texts were dropped (empty_texts: skip)",
    ]
    with pytest.raises(DataError, match="the file has no example"):
        read("label_text", tmp_path / "lines", "0 \n", empty_texts="skip")


def test_json_lists(tmp_path: Path) -> None:
    content = '{"val": [],\n "train": [["a, ]}", "x"],\n  [" b ", 3]],\n "oos": [["c", "y"]]}'
    path = tmp_path / "a.json"
    assert read("json_lists", path, content) == texts(("a, ]}", "x"), ("b", "3"))
    assert read("json_lists", path, content, list_keys=["oos"]) == texts(("c", "y"))
    assert read("json_lists", path, json.dumps([["a", "0"]]), list_keys=[], label_names={"0": "x"}) == texts(("a", "x"))
    nested = json.dumps({"a": {"b": [["a", "x"]], "c": 1}}, indent=1)
    assert read("json_lists", path, nested, list_keys=["a", "b"]) == texts(("a", "x"))


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ('{"train": [["a", "x"],\n["b"]]}', r"a\.json:2: the item is .*\['b'\].* Expected \[text, label\]"),
        ('{"train": [["a", "x"],\n\n{"b": 1}]}', r"a\.json:3: the item is"),
        ('{"train":\n[["a", "x"], [" ", "x"]]}', r"a\.json:2: the text is empty"),
        ('{"train":\n[["a", ""]]}', r"a\.json:2: the label is empty"),
        ('{"train":\n[["a", true]]}', r"a\.json:2: the label is True"),
        ('{"train": [["a", "x"],\n', r"a\.json:1: the file is not JSON"),
        ('{"text": "a"}\n{"text": "b"}\n', r"a\.json:2: the file is not JSON \(Extra data\)"),
        ("[" * 100_000, r"a\.json: the file is not JSON \(nested too deeply\)"),
        ('{"train": ' + "9" * 5000 + "}", r"a\.json: the file is not JSON \(.*digits"),
        ('\n{"test": []}', r"a\.json: no key 'train'; the keys are 'test'"),
        ("[1]", r"a\.json: no key 'train' in a list"),
        ('{"a": 1,\n"train": {}}', r"a\.json: train is a dict\. Expected a list"),
        ('{"train": []}', r"a\.json: the file has no example"),
        ("", r"a\.json:1: the file is not JSON"),
    ],
)
def test_json_list_errors_name_the_line(tmp_path: Path, content: str, message: str) -> None:
    with pytest.raises(DataError, match=message):
        read("json_lists", tmp_path / "a.json", content)


POSTS = {
    "x/train/cats/1": b"From: ann\nSubject: hi\n\nCats: are\n\nfine.\n",
    "x/train/dogs/2": b" odd first line\r\nLines: 1\r\n\r\n  caf\xe9\r\n",
    "x/test/cats/3": b"From: bo\n\n",
}


def test_posts(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    path = make_tar(tmp_path / "a.tar.gz", POSTS)
    options = {"pattern": "*train/*", "encoding": "latin-1"}
    assert list(READERS["posts"].read(path, options)) == texts(("Cats: are\n\nfine.", "cats"), ("café", "dogs"))
    with caplog.at_level(logging.WARNING, logger="trunkline.data"):
        named = {"encoding": "latin-1", "empty_texts": "skip", "label_names": {"cats": "cat"}}
        assert [e.label for e in READERS["posts"].read(path, named)] == ["cat", "dogs"]
    assert "1 blank texts were dropped" in caplog.text


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"pattern": "*test/*"}, r"a\.tar\.gz!x/test/cats/3:1: the text is empty"),
        ({"pattern": "*train/*"}, r"a\.tar\.gz!x/train/dogs/2:4: the byte 0xe9 is not utf-8"),
        ({"pattern": "*bare"}, r"a\.tar\.gz!bare:1: no blank line ends the header"),
        ({"pattern": "*none*"}, "no file in the archive matches"),
    ],
)
def test_post_errors_name_the_file(tmp_path: Path, options: dict[str, Any], message: str) -> None:
    path = make_tar(tmp_path / "a.tar.gz", {**POSTS, "bare": b"no header"})
    with pytest.raises(DataError, match=message):
        list(READERS["posts"].read(path, options))


def test_parallel_labels(tmp_path: Path) -> None:
    write_atomic(tmp_path / "label", "0\n1\n")
    found = read("parallel", tmp_path / "text", "a \nb\n", labels="label", label_names={"0": "no", "1": "yes"})
    assert found == texts(("a", "no"), ("b", "yes"))
    with pytest.raises(DataError, match=r"label:2: this line has no partner, because .*text ends"):
        read("parallel", tmp_path / "text", "a\n", labels="label")
    with pytest.raises(DataError, match=r"text:2: the text is empty"):
        read("parallel", tmp_path / "text", "a\n \n", labels="label")
    with pytest.raises(RecipeError, match="exactly one of tags"):
        READERS["parallel"].options({})


def test_pair_table_and_pair_jsonl(tmp_path: Path) -> None:
    options = {"left_column": "title", "right_column": "body"}
    found = read("pair_table", tmp_path / "a.csv", "title, body\nA, about a\nB,\n,c\nD,d\n", **options)
    assert found == pairs(("A", "about a"), ("D", "d"))
    content = '{"q": "A", "a": " b "}\n{"q": " ", "a": "b"}\n'
    assert read("pair_jsonl", tmp_path / "a.jsonl", content, left_key="q", right_key="a") == pairs(("A", "b"))
    with pytest.raises(DataError, match=r"a\.jsonl:1: the pair is 1, 'b'"):
        read("pair_jsonl", tmp_path / "a.jsonl", '{"left": 1, "right": "b"}')
    with pytest.raises(DataError, match="the file has no example"):
        read("pair_jsonl", tmp_path / "a.jsonl", '{"left": "", "right": "b"}')


def test_sgd_turns(tmp_path: Path) -> None:
    turns = [("1", "I want to eat now ."), ("1", "Which city do you mean ?"), ("1", "Paris"), ("2", "I am a new one .")]
    content = "".join(json.dumps({"d": d, "u": u}) + "\n" for d, u in turns * 2)
    first = (turns[0][1], turns[1][1])
    assert read("sgd_turns", tmp_path / "a", content) == pairs(first)
    assert read("sgd_turns", tmp_path / "a", content, unique=False, min_words=1) == pairs(
        first, (turns[1][1], "Paris"), first, (turns[1][1], "Paris")
    )


def test_captions(tmp_path: Path) -> None:
    content = "1.jpg#0\ta\n1.jpg#1\tb\n1.jpg#2\tc\n1.jpg#3\ta\n2.jpg#0\tx\ne3.jpg#0\tm\ne3.jpg#1\tn\n"
    found = read("captions", tmp_path / "a", content, drop_images=["e"])
    assert found == pairs(("a", "b"), ("a", "c"), ("b", "c"))
    with pytest.raises(DataError, match="a:2: the row 'broken' is no caption"):
        read("captions", tmp_path / "a", "1.jpg#0\ta\nbroken\n")


def test_trivia(tmp_path: Path) -> None:
    blocks = (
        "\n#Q Two\r\nlines?\n^ yes\nA yes\nB no\n\n#Q lost\n\n#Q Who said “hi”?\n^ Caf".encode()
        + b"\xe9\nA x\n\n#Q no answer\n"
    )
    path = make_tar(tmp_path / "a.tar.gz", {"./LICENSE": b"#Q no\n^ no\n", "./categories/one": blocks})
    assert list(READERS["trivia"].read(path)) == pairs(("Two lines?", "yes"), ("Who said “hi”?", "Café"))


def test_reuters(tmp_path: Path) -> None:
    story = (
        "<REUTERS ID='1'><TEXT>&#2;\n<TITLE>A &lt;B> UP</TITLE><BODY>Went\n  up.\n Reuter\n&#3;</BODY></TEXT></REUTERS>"
    )
    brief = "<REUTERS ID='2'><TEXT><TITLE>ONLY TITLE</TITLE></TEXT></REUTERS>"
    path = make_tar(tmp_path / "a.tar.gz", {"r/a.sgm": (brief + story).encode(), "r/b.sgm": story.encode(), "r/x": b""})
    assert list(READERS["reuters"].read(path)) == pairs(("A <B> UP", "Went up."), ("A <B> UP", "Went up."))


def test_medquad(tmp_path: Path) -> None:
    one = "<QAPair><Question>What  is it ?</Question><Answer>An\n illness.</Answer></QAPair>"
    none = "<QAPair><Question>Why ?</Question><Answer></Answer></QAPair>"
    good = f"<Document><QAPairs>{one}{none}</QAPairs></Document>".encode()
    path = make_tar(tmp_path / "a.tar.gz", {"x/1.xml": good, "readme.txt": b""})
    assert list(READERS["medquad"].read(path)) == pairs(("What is it ?", "An illness."))
    broken = make_tar(tmp_path / "b.tar.gz", {"x/1.xml": b"<a>\n<b></a>"})
    with pytest.raises(DataError, match=r"b\.tar\.gz!x/1\.xml:2: the XML cannot be parsed"):
        list(READERS["medquad"].read(broken))


@pytest.mark.parametrize("name", sorted(READERS))
def test_every_reader_refuses_missing_files_and_unknown_options(tmp_path: Path, name: str) -> None:
    needed = {"parallel": {"labels": "labels"}, "linked_gazetteer": {"gazetteer": "g.tsv"}}.get(name, {})
    with pytest.raises(DataError, match="no such file"):
        list(READERS[name].read(tmp_path / "missing.txt", needed))
    with pytest.raises(RecipeError, match="colour: unknown key"):
        READERS[name].options({**needed, "colour": 1})


@pytest.mark.parametrize("encoding", ["utf-16", "nonsense", "utf-7"])
def test_encodings_that_cannot_be_read_by_line(tmp_path: Path, encoding: str) -> None:
    with pytest.raises(RecipeError, match="a line feed is one byte"):
        read("label_text", tmp_path / "a.txt", "x a", encoding=encoding)
