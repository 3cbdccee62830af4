"""Where pairs come from: each method on files written here, and what a damaged source says."""

from __future__ import annotations

import gzip
import json
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from trunkline.errors import DataError
from trunkline.label.files import split_passages, without_code
from trunkline.label.options import PAIR_METHODS, check_options
from trunkline.label.pairs import Candidate, find_candidates

SETTINGS = settings(derandomize=True, deadline=None, max_examples=40, suppress_health_check=[HealthCheck.too_slow])


def find(*sources: Path, method: str, **options: Any) -> list[Candidate]:
    return list(find_candidates(sources, method, check_options(method, options, PAIR_METHODS)))


def sides(*sources: Path, **options: Any) -> list[tuple[str, str]]:
    return [(item.left, item.right) for item in find(*sources, **options)]


def write(path: Path, text: str) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text, encoding="utf-8")
    return path


def write_rows(path: Path, rows: list[dict[str, Any]]) -> Path:
    return write(path, "".join(json.dumps(row) + "\n" for row in rows))


def test_columns(tmp_path: Path) -> None:
    expected = [("Lost card", "Block it at once."), ("No title", "")]
    options = {"method": "columns", "left_column": "title", "right_column": "body"}
    csv = write(tmp_path / "a.csv", "id,title,body\n1,Lost card,Block it at once.\n2,No title,\n")
    tsv = write(tmp_path / "a.tsv", "body\ttitle\nBlock it at once.\tLost card\n\tNo title\n")
    rows = [{"title": "Lost card", "body": "Block it at once."}, {"title": "No title", "body": None}]
    jsonl = write_rows(tmp_path / "a.jsonl", rows)
    packed = tmp_path / "b.jsonl.gz"
    packed.write_bytes(gzip.compress(jsonl.read_bytes()))
    for path in (csv, tsv, jsonl, packed):
        assert sides(path, **options) == expected
    assert sides(csv, tsv, **options) == expected * 2
    assert sides(tmp_path, **options) == expected * 4
    grouped = find(csv, **options, group_column="id")
    assert [item.group for item in grouped] == ["1", "2"]


@pytest.mark.parametrize(
    ("text", "passages"),
    [
        ("one\ntwo\n\nthree\n\n\nfour\n", ["one two", "three", "four"]),
        ("one\ntwo\nthree\n\n", ["one", "two", "three"]),
        (f"title\n\n{'a ' * 99}\n{'b ' * 99}\n", ["title", ("a " * 99).strip(), ("b " * 99).strip()]),
        ("", []),
    ],
)
def test_what_separates_passages(text: str, passages: list[str]) -> None:
    assert list(split_passages(text.split("\n"))) == passages


@pytest.mark.parametrize(
    ("lines", "left"),
    [
        (["a", "```bash", "# not a heading", "```", "b"], ["a", "", "b"]),
        (["a", "````", "```", "x", "````", "b"], ["a", "", "b"]),
        (["a ```inline``` b", "```inline```", "c"], ["a ```inline``` b", "```inline```", "c"]),
        (["~~~", "never closed"], [""]),
    ],
)
def test_code_is_no_text(lines: list[str], left: list[str]) -> None:
    assert list(without_code(lines)) == left


@SETTINGS
@given(st.lists(st.lists(st.integers(0, 99), min_size=1, max_size=6), min_size=1, max_size=5))
def test_adjacent_pairs_never_cross_documents(tmp_path_factory: pytest.TempPathFactory, shape: list[list[int]]) -> None:
    folder = tmp_path_factory.mktemp("documents")
    for number, passages in enumerate(shape):
        text = "\n\n".join(f"d{number} p{place} v{value}" for place, value in enumerate(passages))
        write(folder / f"{number}.txt", text)
    for options in ({}, {"group_documents": True}):
        found = find(folder, method="adjacent", **options)
        assert len(found) == sum(len(passages) - 1 for passages in shape)
        for item in found:
            (left, first, _), (right, second, _) = item.left.split(), item.right.split()
            assert left == right == f"d{item.document}"
            assert int(second[1:]) == int(first[1:]) + 1
            assert item.group == (str(item.document) if options else "")


def test_rows_hold_documents(tmp_path: Path) -> None:
    texts = ["a b\n\nc d", "e f\n\ng h"]
    rows = write_rows(tmp_path / "a.jsonl", [{"story": text} for text in texts])
    write(tmp_path / "b.txt", "no row")
    for source in (rows, tmp_path):
        assert sides(source, method="adjacent", text_column="story") == [("a b", "c d"), ("e f", "g h")]


def test_turns_stay_in_their_conversation(tmp_path: Path) -> None:
    said = [("x", "hi"), ("x", "hello"), ("y", "yes"), ("x", "again"), ("", "a"), ("", "b"), ("z", "1"), ("z", "2")]
    path = write_rows(tmp_path / "a.jsonl", [{"thread": thread, "text": text} for thread, text in said])
    options = {"method": "adjacent", "conversation_column": "thread"}
    assert sides(path, **options) == [("hi", "hello"), ("1", "2")]
    copy = write(tmp_path / "b.jsonl", path.read_text())
    found = find(path, copy, **options, group_documents=True)
    assert [(item.left, item.right) for item in found] == [("hi", "hello"), ("1", "2")] * 2
    assert len({item.group for item in found}) == 4


def test_questions_and_answers(tmp_path: Path) -> None:
    text = """# Cards

Some words before any question.

## How do I block
my card?

Call us at any
hour.

More that is not asked for.

Is this answered?

# Prices

Is it free?
Really?
Yes, always.

Q: Where is the office
A: In the old mill.
Q2: **Why?** Because of what?
Answer: Nobody knows, do you?
**Q:** Can I come by?
Please do.
"""
    assert sides(write(tmp_path / "faq.md", text), method="question-answer") == [
        ("my card?", "Call us at any hour."),
        ("Really?", "Yes, always."),
        ("Where is the office", "In the old mill."),
        ("**Why?** Because of what?", "Nobody knows, do you?"),
        ("Can I come by?", "Please do."),
    ]


@pytest.mark.parametrize("mark", ["?", "？", "؟", "?)", '?"', "?”"])
def test_question_marks_of_the_world(tmp_path: Path, mark: str) -> None:
    path = write(tmp_path / "a.txt", f"one two{mark}\nthree four.\nfive\n")
    assert sides(path, method="question-answer") == [(f"one two{mark}", "three four.")]


def test_titles_and_bodies(tmp_path: Path) -> None:
    plain = write(tmp_path / "a.txt", "\nThe title\n\nThe body\ngoes on.\n\nMore.\n")
    assert sides(plain, method="title-body") == [("The title", "The body goes on.")]
    marked = "# First #\nIts body.\n\nMore.\n```\n# no heading\n```\n## Empty\n### Last\n\nAnother body.\n"
    path = write(tmp_path / "a.md", marked)
    assert sides(path, method="title-body") == [("First", "Its body."), ("Last", "Another body.")]


@SETTINGS
@given(
    st.lists(st.tuples(st.sampled_from("abc"), st.integers(0, 30)), max_size=90),
    st.integers(1, 4),
    st.integers(0, 3),
)
def test_duplicates_share_their_group(
    tmp_path_factory: pytest.TempPathFactory, rows: list[tuple[str, int]], per_row: int, seed: int
) -> None:
    texts = [f"text {number} {value}" for number, (_, value) in enumerate(rows)]
    of = dict(zip(texts, (group for group, _ in rows), strict=True))
    path = tmp_path_factory.mktemp("rows") / "a.jsonl"
    write_rows(path, [{"kind": of[text], "text": text} for text in texts])
    options = {"method": "duplicates", "group_column": "kind", "per_row": per_row, "seed": seed}
    found = find(path, **options)
    assert all(of[item.left] == of[item.right] == item.group for item in found)
    assert all(texts.index(item.left) < texts.index(item.right) for item in found)
    sizes = Counter(of.values())
    assert len(found) == sum(min(per_row, earlier) for size in sizes.values() for earlier in range(size))
    assert find(path, **options) == found


@pytest.mark.parametrize(
    ("name", "content", "options", "message"),
    [
        ("a.csv", "t,b\nx,y\nz\n", {}, r"a\.csv:3: 1 column"),
        ("a.csv", "t,c\nx,y\n", {}, r"a\.csv:2: no column 'b'.*--right-column"),
        ("a.jsonl", '{"t": "x", "b": "y"}\n{"t": "x"\n', {}, r"a\.jsonl:2: the line is not JSON"),
        ("a.jsonl", '{"t": "x", "b": "y"}\n{"t": "x"}\n', {}, r"a\.jsonl:2: no column 'b'.*--right-column"),
        ("a.jsonl", '{"t": "x", "b": ["y"]}\n', {}, r"a\.jsonl:1: the value of 'b' is \['y'\]"),
        ("a.jsonl", '{"t": "x", "b": true}\n', {}, r"a\.jsonl:1: the value of 'b' is True"),
        ("a.csv", "t,b\nx,\0\n", {}, r"a\.csv:2: a NUL byte"),
        ("a.txt", "t,b\nx,y\n", {}, "no file of a form that is read here"),
        ("a.pdf", "x", {"method": "adjacent"}, "no file of a form that is read here.*txt"),
        ("a.txt", "fine\nbr\udcffken\n", {"method": "adjacent"}, r"a\.txt:2: the byte 0xff is not utf-8"),
        ("in/a.pdf", "x", {"method": "adjacent"}, r"no file of a form that is read here.*\.txt"),
        (None, "", {"method": "adjacent"}, "no such file"),
    ],
)
def test_problems_name_file_and_line(
    tmp_path: Path, name: str | None, content: str, options: dict[str, str], message: str
) -> None:
    path = tmp_path / (name or "missing.txt")
    if name is not None:
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(content.encode("utf-8", "surrogateescape"))
    source = path.parent if name and "/" in name else path
    columns = {"method": "columns", "left_column": "t", "right_column": "b"}
    with pytest.raises(DataError, match=message):
        find(source, **(options or columns))
