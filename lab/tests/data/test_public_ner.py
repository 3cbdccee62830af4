"""The readers of public entity files, on small files written here."""

from __future__ import annotations

import gzip
import json
from pathlib import Path
from typing import Any

import pytest

from trunkline.atomic import write_atomic
from trunkline.errors import DataError
from trunkline.text.examples import NerExample
from trunkline_lab.data.headers import normalise_header
from trunkline_lab.data.readers import READERS


def read(name: str, path: Path, content: str | bytes, **options: Any) -> list[Any]:
    write_atomic(path, content)
    return list(READERS[name].read(path, options))


def flat(examples: list[NerExample]) -> list[tuple[str, list[tuple[str, str]]]]:
    return [(e.text, [(e.text[s.start : s.end], s.label) for s in e.spans]) for e in examples]


ANN = [("Ann Lee runs", [("Ann Lee", "per")]), ("Go", [])]


def lines(*records: Any) -> str:
    return "".join(json.dumps(record) + "\n" for record in records)


def test_token_table(tmp_path: Path) -> None:
    content = 'S,W,T\r\n1,Ann,B-per\r\n,Lee,I-per\r\n,runs,O\r\n2,"Go",O\r\n'
    options = {"sentence_columns": ["S"], "token_column": "W", "tag_column": "T"}
    assert flat(read("token_table", tmp_path / "a.csv", content, fill_down=True, **options)) == ANN
    numbered = "1\t0\tAnn\t1\n1\t0\tLee\t2\n1\t0\truns\t0\n1\t1\tGo\t0\n"
    by_number = {
        "header": False, "delimiter": "\t", "sentence_columns": [0, 1], "token_column": 2, "tag_column": 3,
        "tag_names": {"0": "O", "1": "B-per", "2": "I-per"},
    }  # fmt: skip
    assert flat(read("token_table", tmp_path / "b.tsv", numbered, **by_number)) == ANN
    with pytest.raises(DataError, match=r"a\.csv:3: the token is empty"):
        read("token_table", tmp_path / "a.csv", "S,W,T\n1,a,O\n1, ,O\n", **options)
    with pytest.raises(DataError, match=r"a\.csv:3: the tag 'X' is not one of BIO"):
        read("token_table", tmp_path / "a.csv", "S,W,T\n1,a,O\n1,b,X\n", **options)


def test_parallel_tags(tmp_path: Path) -> None:
    write_atomic(tmp_path / "tags", "B-per I-per O\nO\n\n")
    assert flat(read("parallel", tmp_path / "text", "Ann  Lee runs \nGo\n\n", tags="tags")) == ANN
    with pytest.raises(DataError, match=r"tags:2: 1 tags for the 2 tokens"):
        read("parallel", tmp_path / "text", "Ann Lee runs\nGo now\n", tags="tags")
    with pytest.raises(DataError, match=r"text:4: this line has no partner"):
        read("parallel", tmp_path / "text", "Ann Lee runs\nGo\n\nNow\n", tags="tags")


def test_sgd_spans(tmp_path: Path) -> None:
    records = [
        {"u": "In San Jose.", "spans": [[3, 11, "city", "R_1"], [3, 11, "city", "R_2"], [3, 11, "area", "R_1"]]},
        {"u": "Hello", "spans": []},
    ]
    examples = read("sgd_spans", tmp_path / "a.jsonl.gz", gzip.compress(lines(*records).encode()))
    assert flat(examples) == [("In San Jose.", [("San Jose", "city"), ("San Jose", "area")])]
    assert len(read("sgd_spans", tmp_path / "a.jsonl", lines(*records), keep_empty=True)) == 2
    with pytest.raises(DataError, match=r"a\.jsonl:1: the spans are \[3\]"):
        read("sgd_spans", tmp_path / "a.jsonl", lines({"u": "a", "spans": [3]}))


@pytest.mark.parametrize(
    ("header", "expected"),
    [
        ("Team 1", "team"),
        ("Driver(s)", "driver"),
        ("men's club[3]", "mens club"),
        ("City / Town", "city town"),
        ("Rank", ""),
        ("2005", ""),
        ("list of high schools", ""),
        ("a b c d e", ""),
        ("no", ""),
        ("Name V T E", ""),
        ("Opponent's head coach", ""),
    ],
)
def test_headers(header: str, expected: str) -> None:
    assert normalise_header(header) == expected


def test_linked_gazetteer(tmp_path: Path) -> None:
    rows = (
        "city\tParis\tParis\t3\ncapital\tParis\tParis\t5\nrank\tParis\tParis\t9\nfilm\tUp\tUp (film)\t1\nbroken\trow\n"
    )
    write_atomic(tmp_path / "g.tsv", rows)
    text = "He was born in Paris. He liked Up. St. Paul is far from Paris"
    links = [[15, 20, "Paris"], [31, 33, "Up (film)"], [56, 61, "Paris"]]
    record = {"p": [{"t": text, "l": links}, {"t": "No link."}]}
    examples = read("linked_gazetteer", tmp_path / "p.jsonl", lines(record), gazetteer="g.tsv")
    assert flat(examples) == [
        ("He was born in Paris.", [("Paris", "capital"), ("Paris", "city")]),
        ("Paul is far from Paris", [("Paris", "capital"), ("Paris", "city")]),
    ]
    one = read("linked_gazetteer", tmp_path / "p.jsonl", lines(record), gazetteer="g.tsv", max_labels=1, min_count=1)
    assert [labels for _, labels in flat(one)][1] == [("Up", "film")]
    with pytest.raises(DataError, match=r"p\.jsonl:1: .*offsets 0\.\.99"):
        read(
            "linked_gazetteer", tmp_path / "p.jsonl", lines({"p": [{"t": "a", "l": [[0, 99, "x"]]}]}), gazetteer="g.tsv"
        )
