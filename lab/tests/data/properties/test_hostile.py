"""Content that is made to hurt: XML entities, patterns that take quadratic time, encodings that are no text."""

from __future__ import annotations

import encodings.aliases
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from properties.checks import read_or_refuse
from properties.disk import make_tar
from trunkline.errors import DataError
from trunkline_lab.data.readers import READERS

pytestmark = pytest.mark.slow

PAIR = "<QAPair><Question>What is &{};?</Question><Answer>This.</Answer></QAPair>"
ENCODINGS = sorted({*encodings.aliases.aliases.values(), "unicode_escape", "raw_unicode_escape", "idna", "punycode"})


def medquad(folder: Path, content: str | bytes) -> Path:
    path = folder / "a.tar"
    path.write_bytes(make_tar({"1.xml": content if isinstance(content, bytes) else content.encode()}))
    return path


def laughs(depth: int, wide: int) -> str:
    """Entities that each stand for `wide` of the one before."""
    rows = [f'<!ENTITY a{level} "{f"&a{level - 1};" * wide}">' for level in range(1, depth)]
    return f'<!DOCTYPE d [<!ENTITY a0 "ha">{"".join(rows)}]><d>{PAIR.format(f"a{depth - 1}")}</d>'


@pytest.mark.parametrize(
    "doctype",
    [
        '<!DOCTYPE d [<!ENTITY x "expanded">]>',
        '<!DOCTYPE d [<!ENTITY x SYSTEM "file://{folder}/secret.txt">]>',
        '<!DOCTYPE d SYSTEM "file://{folder}/secret.dtd">',
        '<!DOCTYPE d [<!ENTITY % p SYSTEM "file://{folder}/secret.dtd"> %p;]>',
    ],
)
def test_entities_are_not_expanded(tmp_path: Path, doctype: str) -> None:
    (tmp_path / "secret.txt").write_text("expanded")
    (tmp_path / "secret.dtd").write_text('<!ENTITY x "expanded">')
    path = medquad(tmp_path, doctype.replace("{folder}", str(tmp_path)) + f"<d>{PAIR.format('x')}</d>")
    with pytest.raises(DataError, match=r"a\.tar!1\.xml: the XML cannot be parsed .it has a document type"):
        list(READERS["medquad"].read(path))


@pytest.mark.parametrize(("depth", "wide"), [(2, 2), (10, 10), (3, 1000), (30, 2)])
def test_a_billion_laughs_are_refused(tmp_path: Path, depth: int, wide: int) -> None:
    with pytest.raises(DataError, match="document type"):
        list(READERS["medquad"].read(medquad(tmp_path, laughs(depth, wide))))


@pytest.mark.parametrize("encoding", ["nonsense", "utf-16", "shift_jis", "utf-7", "rot13", "hex", "idna", "ucs-4"])
def test_declared_encodings(tmp_path: Path, encoding: str) -> None:
    content = f'<?xml version="1.0" encoding="{encoding}"?><d>{PAIR.format("amp")}</d>'
    read_or_refuse("medquad", medquad(tmp_path, content), {})


def test_deep_elements(tmp_path: Path) -> None:
    assert read_or_refuse("medquad", medquad(tmp_path, "<a>" * 50_000), {}) is None
    deep = f"{'<a>' * 20_000}{PAIR.format('amp')}{'</a>' * 20_000}"
    assert len(list(READERS["medquad"].read(medquad(tmp_path, deep)))) == 1


@pytest.mark.parametrize("count", ["\u00b2", "9" * 5000, "-1", "1.0", "", "\u0663"])
def test_counts_that_are_no_numbers(tmp_path: Path, count: str) -> None:
    (tmp_path / "g.tsv").write_text(f"city\tx\tT\t{count}\nteam\tx\tT\t2\n", "utf-8")
    (tmp_path / "a.jsonl").write_text('{"p": [{"t": "In Rome", "l": [[3, 7, "T"]]}]}')
    found = read_or_refuse("linked_gazetteer", tmp_path / "a.jsonl", {"gazetteer": "g.tsv"})
    assert found is not None and "team" in [span.label for span in found[0].spans]


@pytest.mark.timeout(120)
@pytest.mark.parametrize(
    ("reader", "member", "piece"),
    [
        ("reuters", "a.sgm", "<REUTERS "),
        ("reuters", "a.sgm", "<REUTERS><TITLE>"),
        ("reuters", "a.sgm", "<REUTERS></REUTERS><TITLE><BODY>"),
        ("trivia", "categories/a", "#Q\n"),
        ("trivia", "categories/a", "#Q a\nA b\n"),
    ],
)
def test_unclosed_elements_take_linear_time(tmp_path: Path, reader: str, member: str, piece: str) -> None:
    path = tmp_path / "a.tar"
    path.write_bytes(make_tar({member: piece.encode() * (2_000_000 // len(piece))}))
    assert read_or_refuse(reader, path, {}) is None


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("hostile")


@settings(derandomize=True, deadline=None, max_examples=150)
@given(encoding=st.sampled_from(ENCODINGS), content=st.one_of(st.binary(max_size=40), st.text(max_size=20)))
def test_any_encoding(folder: Path, encoding: str, content: str | bytes) -> None:
    path = folder / "a.txt"
    path.write_bytes(b"label text\n" + (content if isinstance(content, bytes) else content.encode("utf-8", "ignore")))
    read_or_refuse("label_text", path, {"encoding": encoding})
