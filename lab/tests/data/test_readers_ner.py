"""The readers of entity files, on small files written here."""

from __future__ import annotations

import gzip
import json
import logging
from pathlib import Path
from typing import Any

import pytest

from tagged import spans_to_bio
from trunkline.bundle.files import write_atomic
from trunkline.errors import DataError, RecipeError
from trunkline.text.examples import NerExample, Span, join_tokens
from trunkline_lab.data.headers import normalise_header
from trunkline_lab.data.readers import READERS
from trunkline_lab.data.readers.linked_gazetteer import split_sentences


def read(name: str, path: Path, content: str | bytes, **options: Any) -> list[Any]:
    write_atomic(path, content)
    return list(READERS[name].read(path, options))


def flat(examples: list[NerExample]) -> list[tuple[str, list[tuple[str, str]]]]:
    return [(e.text, [(e.text[s.start : s.end], s.label) for s in e.spans]) for e in examples]


ANN = [("Ann Lee runs", [("Ann Lee", "per")]), ("Go", [])]


@pytest.mark.parametrize(
    ("content", "options"),
    [
        ("Ann\tB-per\nLee\tI-per\nruns\tO\n\nGo\tO\n", {}),
        ("Ann B-per\r\nLee  I-per\r\nruns O\r\n \t\r\nGo O", {}),
        ("-DOCSTART- -X- O\n\nAnn N B-per\nLee N I-per\nruns V O\n\n\nGo V O\n", {}),
        ("B-per\tAnn\nI-per\tLee\nO\truns\n\nO\tGo\n", {"token_column": 1, "tag_column": 0}),
        ("0|Ann|I-per\n1|Lee|I-per\n2|runs|O\n\n0|Go|O\n", {"token_column": 1, "separator": "|"}),
        ("Ann B-per\nLee E-per\nruns O\n\nGo O\n", {"scheme": "BIOES"}),
        ("Ann I-per\nLee I-per\nruns O\n\nGo O\n", {"scheme": "IO"}),
        ("Ann B-per\nLee I-per\nruns O\n\nId: O\n7 O\n\nGo O\n", {"drop_sentences": ["Id:"]}),
        ("Ann B-per\nbad\nLee I-per\nruns O\n\nGo O\n", {"malformed": "skip"}),
    ],
)
def test_conll(tmp_path: Path, content: str, options: dict[str, Any]) -> None:
    assert flat(read("conll", tmp_path / "a.conll", content, **options)) == ANN


def test_conll_round_trip(tmp_path: Path) -> None:
    tokens = [["Ann", "Lee", "saw", "Bo"], ["No", "one"]]
    tags = [["B-per", "I-per", "O", "B-per"], ["O", "O"]]
    content = "\n\n".join(
        "\n".join(f"{w}\t{t}" for w, t in zip(a, b, strict=True)) for a, b in zip(tokens, tags, strict=True)
    )
    examples = read("conll", tmp_path / "a.conll", content)
    assert [spans_to_bio(example) for example in examples] == [(row, 0) for row in tags]
    assert [(example.text, example.words) for example in examples] == [join_tokens(row) for row in tokens]


@pytest.mark.parametrize(
    ("content", "options", "message"),
    [
        ("Ann B-per\nLee\n", {}, r"a\.conll:2: 1 column in the row 'Lee'.*in 2 columns"),
        ("Ann\tB-per\nLee\tx\tI-per\n", {}, r"a\.conll:2: 3 columns"),
        ("Ann\tB-per\n\tO\n", {}, r"a\.conll:2: no token"),
        ("Ann\tB-per\nLee\t\n", {}, r"a\.conll:2: no tag"),
        ("a O\n\nAnn B-per\nLee Q-per\n", {}, r"a\.conll:4: the tag 'Q-per' is not one of BIO"),
        ("", {}, r"a\.conll: the file has no example"),
        ("\n\n", {}, "the file has no example"),
        ("a O\nb O\n", {"tag_column": 2}, r"a\.conll:1: 2 columns"),
    ],
)
def test_conll_errors(tmp_path: Path, content: str, options: dict[str, Any], message: str) -> None:
    with pytest.raises(DataError, match=message):
        read("conll", tmp_path / "a.conll", content, **options)


def test_repairs_are_reported(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING, logger="trunkline.data"):
        examples = read("conll", tmp_path / "a.conll", "Ann I-per\nsaw O\nBo I-per\n")
    assert flat(examples) == [("Ann saw Bo", [("Ann", "per"), ("Bo", "per")])]
    assert "2 tags broke the rules of BIO" in caplog.text


def test_malformed_rows_are_dropped_only_when_asked_for_and_counted(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    content = "Ann\tB-per\nLee\tI-per\n \tO\n\tO\nx\ty\tO\nruns\tO\n\t\nGo\tO\n"
    with caplog.at_level(logging.WARNING, logger="trunkline.data"):
        assert flat(read("conll", tmp_path / "a.conll", content, separator="\t", malformed="skip")) == ANN
    assert "a.conll: 3 rows that are no token with a tag were dropped (malformed: skip)" in caplog.text
    with pytest.raises(DataError, match=r"a\.conll:3: no token in the row ' \\tO'"):
        read("conll", tmp_path / "a.conll", content, separator="\t")


def test_pseudo_sentences_are_dropped(tmp_path: Path) -> None:
    rows = ["Id O", ": O", "", "Ann B-per", "Lee I-per", "runs O", "", "", "Go O"]
    content = "".join((f"{row} {row}" if row else " ").replace(" ", "\t") + "\n" for row in rows)
    options = {"separator": "\t", "tag_column": 1, "drop_sentences": ["Id"]}
    assert flat(read("conll", tmp_path / "a.txt", content, **options)) == ANN


RASA = [
    {
        "text": "Ann Lee runs",
        "intent": "run",
        "entities": [{"start": 0, "end": 7, "value": "ann", "entity": "per", "role": "runner"}],
    },
    {"text": "Go", "intent": "go"},
]
OVERLAP = [{"start": 0, "end": 5, "entity": "a"}, {"start": 4, "end": 7, "entity": "b"}]


def lines(*records: Any) -> str:
    return "".join(json.dumps(record) + "\n" for record in records)


def test_spans(tmp_path: Path) -> None:
    records = [
        {"text": "  Ann saw Bo ", "entities": [{"start": 10, "end": 12, "label": "per"}, [2, 6, " per "]]},
        {"text": "none", "entities": []},
    ]
    examples = read("spans", tmp_path / "a.jsonl", lines(*records))
    assert flat(examples) == [("Ann saw Bo", [("Ann", "per"), ("Bo", "per")]), ("none", [])]
    assert spans_to_bio(examples[0]) == (["B-per", "O", "B-per"], 0)


@pytest.mark.parametrize(
    ("record", "message"),
    [
        ({"text": "Ann", "entities": [[0, 4, "per"]]}, r"the offsets 0\.\.4.*end <= 3"),
        ({"text": "Ann", "entities": [[2, 2, "per"]]}, "the offsets"),
        ({"text": "Ann", "entities": [[-1, 2, "per"]]}, "the offsets"),
        ({"text": "Ann", "entities": [["0", 2, "per"]]}, r"the entity is \['0', 2, 'per'\]"),
        ({"text": "Ann", "entities": [[False, True, "per"]]}, "the offsets"),
        ({"text": "A  n", "entities": [[1, 3, "per"]]}, "covers only blanks"),
        ({"text": "A \u0007n", "entities": [[2, 3, "per"]]}, "covers no word"),
        ({"text": "Ann", "entities": [[0, 2, " "]]}, "the label is empty"),
        ({"text": "Ann", "entities": [[0, 2]]}, r"the entity is \[0, 2\]"),
        ({"text": "Ann", "entities": [{"start": 0, "end": 2}]}, "the label is null"),
        ({"text": "Ann", "entities": "x"}, "the entities are 'x'"),
        ({"text": "Ann Lee", "entities": [[0, 5, "a"], [4, 7, "b"]]}, "overlap"),
        ({"text": " ", "entities": []}, "the text is empty"),
        ({"text": 3, "entities": []}, "the text is 3"),
        ({"txt": "Ann"}, "no key 'text'; the keys are 'txt'"),
        ([1], "the line holds list"),
    ],
)
def test_span_errors_name_the_line(tmp_path: Path, record: Any, message: str) -> None:
    with pytest.raises(DataError, match=rf"a\.jsonl:2: .*{message}"):
        read("spans", tmp_path / "a.jsonl", lines({"text": "ok", "entities": []}, record))


def test_bad_json_is_named(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"a\.jsonl:2: the line is not JSON"):
        read("spans", tmp_path / "a.jsonl", lines({"text": "ok", "entities": []}) + "{oops\n")


def test_tokens(tmp_path: Path) -> None:
    records = [
        {"tokens": ["Ann", "Lee", "runs"], "ner_tags": ["B-per", "I-per", "O"]},
        {"tokens": ["Go"], "ner_tags": ["O"]},
    ]
    assert flat(read("tokens", tmp_path / "a.jsonl", lines(*records), tags_key="ner_tags")) == ANN


@pytest.mark.parametrize(
    ("record", "message"),
    [
        ({"tokens": ["a", "b"], "tags": ["O"]}, "2 tokens and 1 tags"),
        ({"tokens": ["a", " "], "tags": ["O", "O"]}, "the token is empty"),
        ({"tokens": ["a"], "tags": [1]}, "the tag is 1"),
        ({"tokens": ["a"], "tags": ["x"]}, "the tag 'x' is not one of BIO"),
        ({"tokens": [], "tags": []}, "empty"),
    ],
)
def test_token_errors_name_the_line(tmp_path: Path, record: Any, message: str) -> None:
    with pytest.raises(DataError, match=rf"a\.jsonl:1: .*{message}"):
        read("tokens", tmp_path / "a.jsonl", lines(record))


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


def test_unknown_options_and_values_are_listed_at_once() -> None:
    with pytest.raises(RecipeError) as caught:
        READERS["conll"].options({"tagcolumn": 1, "scheme": "BMES", "token_column": "x"})
    assert len(caught.value.problems) == 3
    assert "tagcolumn: unknown key; did you mean 'tag_column'?" in str(caught.value)


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


def test_long_sentences_are_cut_outside_of_links() -> None:
    text = " ".join(f"w{number}" for number in range(25))
    start = text.index("w9")
    link = Span(start, text.index("w12") - 1, "x")
    parts = split_sentences(text, [link], 10)
    assert " ".join(text[a:b] for a, b in parts) == text
    assert all(len(text[a:b].split()) <= 12 for a, b in parts)
    assert any(a <= link.start and link.end <= b for a, b in parts)
