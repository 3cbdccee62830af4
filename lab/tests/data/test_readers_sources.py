"""The readers of pre-finetuning sources and of plain text, on small files written here."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from properties import disk

from trunkline.bundle.files import write_atomic
from trunkline.errors import DataError
from trunkline.text.examples import NerExample, PairExample, PlainExample
from trunkline_lab.data.cards import DATA_VARIABLE, data_folder, load_card
from trunkline_lab.data.readers import READERS

TABLES = {
    "./data/all_csv/1.csv": b"driver#points#home team's ground#club\nann lee#3#old oval#rovers\n",
    "./data/all_csv/2.csv": b"city\r\nrome\r\n",
    "./other.txt": b"x",
}


def read(name: str, path: Path, content: str | bytes, **options: Any) -> list[Any]:
    if name == "corpus":
        path = path.with_name(f"{path.name}.zip")
        content = disk.pack({"a.txt": content if isinstance(content, bytes) else content.encode()}, ".zip")
    write_atomic(path, content)
    return list(READERS[name].read(path, options))


def labelled(examples: list[NerExample]) -> list[tuple[str, list[tuple[str, str]]]]:
    return [(one.text, [(one.text[span.start : span.end], span.label) for span in one.spans]) for one in examples]


def pairs(*items: tuple[str, ...]) -> list[PairExample]:
    return [PairExample(*item) for item in items]


def tabfact(folder: Path, statements: Any, **options: Any) -> list[Any]:
    (folder / "tabfact_head.tar.gz").write_bytes(disk.pack(TABLES, ".tar.gz"))
    content = statements if isinstance(statements, str) else json.dumps(statements)
    return read("tabfact", folder / "a.json", content, **options)


def test_tabfact(tmp_path: Path) -> None:
    first = [
        " #ann lee;1,0# of the #rover;1,3# win at #the old oval ;1,2# by #3;1,1#",
        "the #driver;0,0# in #the cup;-1,-1#",
        "#driver;1,0# and #total;1,3#",
    ]
    found = tabfact(tmp_path, {"1.csv": [first, [1, 1, 1]], "2.csv": [["go to #rome;1,0# or #42;1,0#"]]})
    assert labelled(found) == [
        (
            "ann lee of the rover win at the old oval  by 3",
            [("ann lee", "driver"), ("rover", "club"), ("the old oval", "home teams ground")],
        ),
        ("go to rome or 42", [("rome", "city")]),
    ]
    assert all(span in example.words for example in found[1:] for span in [(6, 10)])


@pytest.mark.parametrize(
    ("statements", "message"),
    [
        ('{"1.csv":\n oops}', r"a\.json:2: the file is not JSON"),
        ("[" * 100_000, r"a\.json: the file is not JSON"),
        ("[1" + "0" * 5000 + "]", r"a\.json: the file is not JSON"),
        ([], r"a\.json: the file holds list"),
        ({"1.csv": {}}, r"the entry of '1\.csv' does not begin with statements"),
        ({"1.csv": [["a", 1]]}, r"the entry of '1\.csv' does not begin with statements"),
        ({"9.csv": [["a"]]}, r"the table '9\.csv' is not in tabfact_head\.tar\.gz"),
        ({"1.csv": [["#a;1,7#"]]}, r"the link '#a;1,7#' names column 7.*from 0 to 3"),
        ({"1.csv": [["#a;1,0# and #b;1"]]}, "is not whole"),
        ({"1.csv": [["nothing"]]}, "no example"),
    ],
)
def test_tabfact_errors(tmp_path: Path, statements: Any, message: str) -> None:
    with pytest.raises(DataError, match=message):
        tabfact(tmp_path, statements)


def mention(**changes: Any) -> str:
    record = {
        "left_context_token": ["In", "May"],
        "mention_span": "the old  club",
        "right_context_token": ["won", "."],
        "y_str": ["club", "team", "club"],
    }
    return json.dumps({**record, **changes}) + "\n"


def test_typed_mentions(tmp_path: Path) -> None:
    content = mention() + mention(y_str=[]) + mention(left_context_token=[], mention_span="We")
    found = read("typed_mentions", tmp_path / "a.json", content)
    assert labelled(found) == [
        ("In May the old club won .", [("the old club", "club"), ("the old club", "team")]),
        ("We won .", [("We", "club"), ("We", "team")]),
    ]
    assert found[1].words == ((0, 2), (3, 6), (7, 8))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"y_str": "club"}, "y_str is 'club'"),
        ({"left_context_token": ["a", " "]}, "left_context_token is"),
        ({"right_context_token": [1]}, "right_context_token is"),
        ({"mention_span": " "}, "the mention is empty"),
    ],
)
def test_typed_mention_errors(tmp_path: Path, changes: dict[str, Any], message: str) -> None:
    with pytest.raises(DataError, match=rf"a\.json:2: {message}"):
        read("typed_mentions", tmp_path / "a.json", mention() + mention(**changes))
    with pytest.raises(DataError, match=r"a\.json: the file has no example"):
        read("typed_mentions", tmp_path / "a.json", mention(y_str=[]))


ARTICLE = {
    "title": "Ann Lee (driver)",
    "p": [
        {"t": "Lee lives in Rome. Rome, Romeo and rome.", "l": [[13, 17, "Rome"]]},
        {"t": "Ann Lee likes it and Rome.", "l": [[14, 16, "It"]]},
    ],
}
ROWS = [
    ("City", "Rome", "Rome", "1"),
    ("City", "Paris", "Paris", "3"),
    ("City", "it", "It", "1"),
    ("Lost", "Rome", "Rome", "5"),
    ("Driver", "Ann Lee", "Ann Lee (driver)", "1"),
]
GAZETTEER = "".join("\t".join(row) + "\n" for row in ROWS)


def test_links_recur_in_their_article(tmp_path: Path) -> None:
    write_atomic(tmp_path / "g.tsv", GAZETTEER)
    options = {"gazetteer": "g.tsv", "min_count": 1, "strict_headers": True, "propagate": True}
    content = json.dumps(ARTICLE)
    assert labelled(read("linked_gazetteer", tmp_path / "a", content, **options)) == [
        ("Lee lives in Rome.", [("Rome", "city")]),
        ("Rome, Romeo and rome.", [("Rome", "city")]),
        ("Ann Lee likes it and Rome.", [("Ann Lee", "driver"), ("it", "city"), ("Rome", "city")]),
    ]
    fewer = read("linked_gazetteer", tmp_path / "a", content, **{**options, "min_targets": 2})
    assert {span.label for example in fewer for span in example.spans} == {"city"}
    plain = read("linked_gazetteer", tmp_path / "a", content, **{**options, "propagate": False})
    assert labelled(plain)[1] == ("Ann Lee likes it and Rome.", [("it", "city")])
    lax = read("linked_gazetteer", tmp_path / "a", content, gazetteer="g.tsv")
    assert labelled(lax)[0] == ("Lee lives in Rome.", [("Rome", "lost")])


def test_aligned_lines(tmp_path: Path) -> None:
    write_atomic(tmp_path / "left", "A b\nSame\n\nC\n")
    found = read("aligned_lines", tmp_path / "right", "a\nsame\n\n c  d\n", left="left", group=True)
    assert found == pairs(("A b", "a", "A b"), ("C", "c d", "C"))
    assert read("aligned_lines", tmp_path / "right", "a\nsame\n\nd\n", left="left")[0].group == ""
    with pytest.raises(DataError, match=r"left:4: this line has no partner, because .*right ends"):
        read("aligned_lines", tmp_path / "right", "a\nsame\n\n", left="left")
    with pytest.raises(DataError, match=r"right:5: this line has no partner"):
        read("aligned_lines", tmp_path / "right", "a\nb\n\nd\ne\n", left="left")
    with pytest.raises(DataError, match="no example"):
        read("aligned_lines", tmp_path / "right", "a b\nsame\n\nc\n", left="left")


def test_scored_pairs(tmp_path: Path) -> None:
    content = "\tleft\tright\tscore\n1\ta\tb\t4.0\n2\tc\td\t3.9\n3\te\t\t5\n4\tf\tg\t\n5\th\ti\t5\n"
    found = read("scored_pairs", tmp_path / "a.tsv", content, delimiter="\t", min_score=4)
    assert found == pairs(("a", "b"), ("h", "i"))
    for score in ("high", "nan", "inf"):
        with pytest.raises(DataError, match=rf"a\.csv:3: the score is '{score}'"):
            read("scored_pairs", tmp_path / "a.csv", f"left,right,score\na,b,1\na,b,{score}\n")
    with pytest.raises(DataError, match="no example"):
        read("scored_pairs", tmp_path / "a.csv", "left,right,score\na,b,1\n", min_score=4)


def test_captions_are_grouped_by_image(tmp_path: Path) -> None:
    content = "1.jpg#0\ta\n1.jpg#1\tb\n2.jpg#0\tx\n2.jpg#1\ty\n"
    found = read("captions", tmp_path / "a", content, group=True)
    assert found == pairs(("a", "b", "1.jpg"), ("x", "y", "2.jpg"))


REVIEW = (
    "<review>\n<id>\n7\n</id>\n<title>\nGood  &amp; cheap\n</title>\n"
    "<review_text>\nIt\x1a works.\n\nFine.\n</review_text>\n</review>\n"
)


def test_tagged_records(tmp_path: Path) -> None:
    bare = "<review>\n<title>\n\n</title>\n<review_text>\nx\n</review_text>\n</review>\n"
    found = read("tagged_records", tmp_path / "a", f"<data>\n{REVIEW}{bare}</data>\n")
    assert found == pairs(("Good & cheap", "It works. Fine."))


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("stray\n", "a:14: 'stray' is in no record"),
        ("</review>\n", "a:14: a record ends here without a beginning"),
        ("<review>\n<review>\n", "a:15: a record that began in line 14 has no end"),
        ("<review>\n<title>\nx\n</review>\n", "a:17: the field <title> has no end"),
        ("<review>\n<title>\nx\n</title>\n", "a:17: the record of line 14 has no end"),
    ],
)
def test_tagged_record_errors(tmp_path: Path, content: str, message: str) -> None:
    with pytest.raises(DataError, match=message):
        read("tagged_records", tmp_path / "a", REVIEW + content)


def turn(text: str, intents: list[str], acts: list[str], *slots: str, speaker: str = "U") -> str:
    spans = [[0, 1, slot, "S"] for slot in slots]
    return json.dumps({"sp": speaker, "u": text, "intent": intents, "acts": acts, "spans": spans}) + "\n"


def test_sgd_same_intent(tmp_path: Path) -> None:
    state, find = ["INFORM_INTENT"], ["Food_1/Find"]
    content = "".join(
        [
            *(turn(f"find me food {number}", find, state) for number in range(5)),
            turn("Find me  food 1", find, state),
            turn("find food number two", ["Food_2/Find"], state),
            turn("a taxi for me", ["Cab_1/Get"], state),
            turn("call me a cab", ["Ride_3/Order"], state),
            turn("book it for me", ["Cab_1/Get"], state),
            turn("book it for me", find, state),
            turn("short", find, state),
            turn("anything else for you", find, state, speaker="S"),
            turn("not an intent here", ["Food_1/NONE"], state),
            turn("two of them here", [*find, "Cab_1/Get"], state),
            turn("yes I do please", find, ["AFFIRM"]),
        ]
    )
    found = read("sgd_same_intent", tmp_path / "a", content, kinds={"Ride_3/Order": "Cab/Get"})
    groups = [pair.group for pair in found]
    assert {group: groups.count(group) for group in groups} == {"Cab/Get": 1, "Food/Find": 12}
    unordered = {frozenset((pair.left, pair.right)) for pair in found}
    assert len(unordered) == 13 and all(len(pair) == 2 for pair in unordered)
    texts = {text for pair in unordered for text in pair}
    assert texts == {f"find me food {number}" for number in range(5)} | {
        "find food number two", "a taxi for me", "call me a cab",
    }  # fmt: skip
    assert found == read("sgd_same_intent", tmp_path / "a", content, kinds={"Ride_3/Order": "Cab/Get"})


def test_sgd_same_slots(tmp_path: Path) -> None:
    content = "".join(
        [
            turn("it is in Rome", ["Food_1/Find"], ["INFORM"], "city"),
            turn("make it Paris please", ["Food_1/Find"], ["INFORM"], "city", "city"),
            turn("thai food in Oslo", ["Food_1/Find"], ["INFORM"], "city", "cuisine"),
            turn("for four of us", ["Food_1/Find"], ["INFORM"]),
        ]
    )
    (pair,) = read("sgd_same_intent", tmp_path / "a", content, acts=["INFORM"], slots=True)
    assert {pair.left, pair.right} == {"it is in Rome", "make it Paris please"}
    assert pair.group == "Food/Find INFORM city"


@pytest.mark.parametrize(
    ("record", "message"),
    [
        ({"sp": "U", "u": "", "intent": [], "acts": []}, "the utterance is empty"),
        ({"sp": "U", "u": "a", "intent": "x", "acts": []}, "intent is 'x'"),
        ({"sp": "U", "u": "a", "intent": [], "acts": [1]}, r"acts is \[1\]"),
        ({"u": "a", "intent": [], "acts": []}, "no key 'sp'"),
        ({"sp": "U", "u": "a", "intent": ["x"], "acts": ["INFORM_INTENT"], "spans": [1]}, r"the spans are \[1\]"),
    ],
)
def test_sgd_same_intent_errors(tmp_path: Path, record: dict[str, Any], message: str) -> None:
    content = turn("find me food", ["Food_1/Find"], ["INFORM_INTENT"], "city") + json.dumps(record)
    with pytest.raises(DataError, match=f"a:2: {message}"):
        read("sgd_same_intent", tmp_path / "a", content, slots=True)


def plain(examples: list[PlainExample]) -> list[str]:
    return [example.text for example in examples]


def test_corpus_splits(tmp_path: Path) -> None:
    content = "One two\nthree.\n \n\nFour.\nFive  six."
    path = tmp_path / "a.txt"
    assert plain(read("corpus", path, content)) == ["One two three.", "Four. Five six."]
    assert plain(read("corpus", path, content, split="lines")) == ["One two", "three.", "Four.", "Five six."]
    assert plain(read("corpus", path, content, split="file")) == ["One two three. Four. Five six."]
    assert plain(read("corpus", path, content, split="lines", min_words=2)) == ["One two", "Five six."]


def test_corpus_cuts_long_texts_at_sentence_ends(tmp_path: Path) -> None:
    content = "One two three. Four five. Six seven eight nine ten eleven twelve."
    assert plain(read("corpus", tmp_path / "a.txt", content, max_words=5)) == [
        "One two three. Four five.",
        "Six seven eight nine ten",
        "eleven twelve.",
    ]


def test_corpus_holds_no_long_file_in_memory(tmp_path: Path) -> None:
    words = [f"w{number}" for number in range(120_000)]
    content = "\n".join(" ".join(words[start : start + 10]) for start in range(0, len(words), 10))
    found = plain(read("corpus", tmp_path / "a.txt", content, split="file", max_words=1000))
    assert max(len(text.split()) for text in found) <= 1000
    assert " ".join(found).split() == words


def test_corpus_in_archives(tmp_path: Path) -> None:
    members = {"x/b.txt": b"Two.", "x/a.txt": b"One.", "x/c.md": b"Three.", "README": b"no"}
    for packing in (".zip", ".tar.gz"):
        path = tmp_path / f"a{packing}"
        path.write_bytes(disk.pack(members, packing))
        assert plain(list(READERS["corpus"].read(path))) == ["Two.", "One."]
        assert plain(list(READERS["corpus"].read(path, {"members": "x/[ac].*"}))) == ["One.", "Three."]
        with pytest.raises(DataError, match=r"no file in the archive matches '\*\.pdf'"):
            list(READERS["corpus"].read(path, {"members": "*.pdf"}))


def test_corpus_drops_tags_and_markup(tmp_path: Path) -> None:
    tagged = "\tThe/at ``/`` 1/2/cd mile/nn ''/'' ./.\nA_b"
    assert plain(read("corpus", tmp_path / "a", tagged, tag_separator="/")) == ['The " 1/2 mile " . A_b']
    marked = "Tom &amp; <b>Ann</b>.<br /><br />2 < 3 > 1"
    assert plain(read("corpus", tmp_path / "a", marked, markup=True)) == ["Tom & Ann . 2 < 3 > 1"]


def test_corpus_of_mixed_encodings(tmp_path: Path) -> None:
    content = "\ufeffCafé.\n".encode() + "Naïve.\n".encode("cp1252")
    assert plain(read("corpus", tmp_path / "a", content, fallback_encoding="cp1252")) == ["Café. Naïve."]
    with pytest.raises(DataError, match=r"a\.txt:2: the byte 0xef is not utf-8"):
        read("corpus", tmp_path / "a", content)
    with pytest.raises(DataError, match=r"a\.txt:2: the line is neither UTF-8 nor ascii"):
        read("corpus", tmp_path / "a", content, fallback_encoding="ascii")
    with pytest.raises(DataError, match=r"a\.txt: a NUL byte"):
        read("corpus", tmp_path / "a", b"a\0b", fallback_encoding="cp1252")
    with pytest.raises(DataError, match=r"a\.zip: the file has no example"):
        read("corpus", tmp_path / "a", "a b\n", min_words=3)


def test_plain_jsonl(tmp_path: Path) -> None:
    content = '{"text": "One  two. Three four five six."}\n{"text": " "}\n{"text": "Seven"}\n'
    found = read("plain_jsonl", tmp_path / "a.jsonl", content, max_words=5)
    assert plain(found) == ["One two.", "Three four five six.", "Seven"]
    with pytest.raises(DataError, match=r"a\.jsonl:4: the text is 3"):
        read("plain_jsonl", tmp_path / "a.jsonl", content + '{"text": 3}')
    with pytest.raises(DataError, match=r"a\.jsonl:4: no key 'text'"):
        read("plain_jsonl", tmp_path / "a.jsonl", content + '{"txt": "a"}')


REAL = """tabfact ufet_crowd craft bionlp11id asset blitzer_reviews quora_duplicates sts_similar sgd_same_intent
brown masc_tagged abc webtext state_union inaugural genesis"""


@pytest.mark.slow
@pytest.mark.parametrize("name", REAL.split())
def test_real_sources(name: str) -> None:
    if not data_folder().is_dir():
        pytest.skip(f"the real data is not here: set {DATA_VARIABLE} (now {data_folder()})")
    card = load_card(name)
    for split in card.splits:
        assert sum(1 for _ in card.stream(split)) == card.counts[split]
