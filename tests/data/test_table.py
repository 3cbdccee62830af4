"""Tables: delimiters by content, quotes that never swallow rows."""

from __future__ import annotations

import csv
import io
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from trunkline.data.load import DELIMITERS, find_delimiter, read_rows, read_table
from trunkline.errors import DataError

CELL = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0\r"), max_size=20)
LABEL = st.sampled_from(["yes", "no", "may be"])


def read(content: str, delimiter: str = ",") -> list[list[str]]:
    return [row for _, row in read_rows(enumerate(content.split("\n"), start=1), delimiter, "t.csv")]


@settings(max_examples=150, deadline=None)
@given(rows=st.lists(st.tuples(CELL, LABEL), min_size=1, max_size=8), delimiter=st.sampled_from([",", ";", "|"]))
def test_what_csv_writes_is_read(rows: list[tuple[str, str]], delimiter: str) -> None:
    """Line feeds, quotes and delimiters inside of values come back; none is taken for an unbalanced quote."""
    stream = io.StringIO()
    csv.writer(stream, delimiter=delimiter, lineterminator="\n").writerows([("text", "label"), *rows])
    found = read(stream.getvalue(), delimiter)
    assert [tuple(row) for row in found[1:]] == rows


@settings(max_examples=150, deadline=None)
@given(
    texts=st.lists(st.text(st.characters(exclude_categories=["Cs", "Cc", "Zl", "Zp"]), min_size=1, max_size=12),
                   min_size=2, max_size=8),
    labels=st.lists(LABEL, min_size=8, max_size=8),
)  # fmt: skip
def test_tabs_are_never_swallowed(texts: list[str], labels: list[str]) -> None:
    """Unquoted tables with tabs keep every row, whatever quotes the texts have."""
    rows = [(text, label) for text, label in zip(texts, labels, strict=False) if text.strip()]
    content = "".join(f"{text}\t{label}\n" for text, label in [("text", "label"), *rows])
    found = read(content, "\t")[1:]
    assert len(found) == len(rows)
    for (text, label), row in zip(rows, found, strict=True):
        assert row[1] == label
        assert row[0] in (text, text[1:-1].replace('""', '"'))


GOOD = "text,label\na,yes\nb,no\n"


@pytest.mark.parametrize(
    ("content", "line"),
    [
        (GOOD + 'open "quote inside is text,yes\nc,no\n', None),
        (GOOD + '5" pipe,yes\nc,no\n', None),
        (GOOD + '"never closed,yes\nc,no\nd,yes\n', 4),
        (GOOD + '"never closed,yes\nc,no\n"d, e",yes\n', 4),
        (GOOD + '"closed far below,yes\nc,no\npipe of 5",yes\ne,no\n', 4),
        ('text,label\n"closed far below,yes\nc,no\npipe of 5",yes\n' + "a,yes\nb,no\n", 2),
        ('label,text\nyes,a\nno,"closed far below\nyes,c\nno,d"\nyes,e\n', 3),
        (GOOD + '"a quote" and more,yes\n', 4),
        (GOOD + '"Dear Sir,\nthanks for the parcel, it came\nbye",no\nc,yes\n', None),
        (GOOD + '"Hello, I am lost\nplease help",no\nc,yes\n', None),
        (GOOD + "a,b,yes\n", 4),
        (GOOD + "alone\n", 4),
    ],
)
def test_unbalanced_quotes_name_the_line(content: str, line: int | None) -> None:
    if line is None:
        assert len(read(content)) >= 4
        return
    with pytest.raises(DataError, match=rf"t\.csv:{line}: "):
        read(content)


def test_values_over_several_lines_with_tabs() -> None:
    assert read('text\tlabel\n"a\nb ""c"""\tyes\n"d\te\n', "\t") == [
        ["text", "label"],
        ['a\nb "c"', "yes"],
        ['"d', "e"],
    ]
    with pytest.raises(DataError, match=r"t\.csv:2: a double quote is opened here"):
        read('text\tlabel\n"a\nb\nc\tyes\n', "\t")
    with pytest.raises(DataError, match=r"t\.csv:2: 1 column"):
        read("text\tlabel\na\nb\tyes\n", "\t")


@pytest.mark.parametrize("delimiter", DELIMITERS)
def test_the_delimiter_is_found(tmp_path: Path, delimiter: str) -> None:
    path = tmp_path / "a.csv"
    with path.open("w", newline="") as stream:
        csv.writer(stream, delimiter=delimiter).writerows([["text", "label"], ["a, b; c | d", "x"], ["e", "y"]])
    kind, records = read_table(path)
    assert kind == f"a table with 2 columns parted by {'tabs' if delimiter == chr(9) else repr(delimiter)}"
    assert list(records) == [(2, {"text": "a, b; c | d", "label": "x"}), (3, {"text": "e", "label": "y"})]


def test_one_column_has_no_delimiter() -> None:
    assert find_delimiter(["text", "a; b", "c"]) == ","
    assert find_delimiter([]) == ","
