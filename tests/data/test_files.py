"""Reading plain and gzipped files, and every way in which that can fail."""

from __future__ import annotations

import gzip
import zipfile
from pathlib import Path

import pytest

from trunkline.data import load
from trunkline.data.load import read_lines
from trunkline.errors import DataError

TEXT = "eins\nzwei\u2028drei\n\nüber\n"
LINES = [(1, "eins"), (2, "zwei\u2028drei"), (3, ""), (4, "über")]


@pytest.mark.parametrize(
    "content",
    [
        TEXT.encode(),
        TEXT.removesuffix("\n").encode(),
        b"\xef\xbb\xbf" + TEXT.encode(),
        TEXT.replace("\n", "\r\n").encode(),
        TEXT.encode("utf-16"),
        b"\xfe\xff" + TEXT.replace("\n", "\r\n").encode("utf-16-be"),
        gzip.compress(TEXT.encode()),
        gzip.compress(TEXT.encode("utf-16")),
    ],
)
def test_lines_whatever_marks_ends_and_packing(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "a.txt"
    path.write_bytes(content)
    assert list(read_lines(path)) == LINES


def test_other_encoding(tmp_path: Path) -> None:
    path = tmp_path / "a.txt"
    path.write_bytes("café\n".encode("latin-1"))
    assert list(read_lines(path, encoding="latin-1")) == [(1, "café")]


def test_wrong_bytes_name_the_line(tmp_path: Path) -> None:
    path = tmp_path / "a.txt"
    path.write_bytes("ok é\n".encode() + "bad é\n".encode("latin-1"))
    with pytest.raises(DataError, match=r"a\.txt:2: the byte 0xe9 is not utf-8.*cp1252"):
        list(read_lines(path))


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("a.txt", b"a\nb\0c\n", r"a\.txt:2: a NUL byte"),
        ("a.gz", b"not gzip", "the archive is damaged"),
        ("a.gz", gzip.compress(b"x" * 5000)[:-12], "the archive is damaged"),
        ("a.csv", gzip.compress(b"x" * 5000)[:-12], "the archive is damaged"),
        ("a.xlsx", b"PK\x03\x04 ...", r"this is a \.zip file, and not one of Excel"),
        ("a.txt", b"\xff\xfea", "is not utf-16"),
    ],
)
def test_damaged(tmp_path: Path, name: str, content: bytes, message: str) -> None:
    path = tmp_path / name
    path.write_bytes(content)
    with pytest.raises(DataError, match=message):
        list(read_lines(path))


def test_missing_file_and_folder(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"no such file \(its folder exists\)"):
        list(read_lines(tmp_path / "no.txt"))
    with pytest.raises(DataError, match="its folder does not exist"):
        list(read_lines(tmp_path / "no" / "no.txt"))
    with pytest.raises(DataError, match="this is a folder"):
        list(read_lines(tmp_path))


def test_bombs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    bomb = b"0123456789\n" * 10_000
    packed = tmp_path / "a.gz"
    packed.write_bytes(gzip.compress(bomb))
    with pytest.raises(DataError, match=r"a\.gz:91: more than 1000 bytes when unpacked"):
        list(read_lines(packed, limit=1000))
    assert len(list(read_lines(packed, limit=len(bomb)))) == 10_000
    monkeypatch.setattr(load, "LINE_LIMIT", 5)
    with pytest.raises(DataError, match="a line of more than 5 bytes"):
        list(read_lines(packed))


def test_paths_of_other_file_systems(tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "a.zip", "w") as archive:
        archive.writestr("x/a.txt", TEXT)
        archive.writestr("x/b.gz", gzip.compress(TEXT.encode()))
    for name in ("x/a.txt", "x/b.gz"):
        assert list(read_lines(zipfile.Path(tmp_path / "a.zip", name))) == LINES  # type: ignore[arg-type]
