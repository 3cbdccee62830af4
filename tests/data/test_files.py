"""Reading plain and packed files, and every way in which that can fail."""

from __future__ import annotations

import gzip
import io
import tarfile
import zipfile
from pathlib import Path

import pytest

from trunkline.atomic import write_atomic
from trunkline.data import files
from trunkline.data.files import decode_text, read_bytes, read_lines, read_member_lines, read_members
from trunkline.errors import DataError

TEXT = "eins\nzwei\u2028drei\n\nüber\n"
LINES = [(1, "eins"), (2, "zwei\u2028drei"), (3, ""), (4, "über")]


def make_tar(path: Path, members: dict[str, bytes], mode: str = "w:gz") -> Path:
    with tarfile.open(path, mode) as archive:
        for name, content in members.items():
            info = tarfile.TarInfo(name)
            info.size = len(content)
            archive.addfile(info, io.BytesIO(content))
    return path


def make_zip(path: Path, members: dict[str, bytes]) -> Path:
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in members.items():
            archive.writestr(name, content)
    return path


def test_plain(tmp_path: Path) -> None:
    path = tmp_path / "a.txt"
    path.write_bytes(TEXT.encode())
    assert list(read_lines(path)) == LINES


def test_byte_order_mark_and_crlf_are_dropped(tmp_path: Path) -> None:
    path = tmp_path / "a.txt"
    path.write_bytes(b"\xef\xbb\xbfone\r\ntwo\r\n")
    assert list(read_lines(path)) == [(1, "one"), (2, "two")]


def test_last_line_without_end(tmp_path: Path) -> None:
    path = tmp_path / "a.txt"
    path.write_bytes(b"one\ntwo")
    assert list(read_lines(path)) == [(1, "one"), (2, "two")]


def test_gz_zip_and_tar(tmp_path: Path) -> None:
    data = TEXT.encode()
    packed = tmp_path / "a.txt.gz"
    packed.write_bytes(gzip.compress(data))
    zipped = make_zip(tmp_path / "a.zip", {"x/a.txt": data, "x/b.txt": b"b"})
    tarred = make_tar(tmp_path / "a.tar.gz", {"./a.txt": data, "./b.txt": b"b"})
    plain_tar = make_tar(tmp_path / "a.tar", {"a.txt": data}, "w")
    assert list(read_lines(packed)) == LINES
    assert list(read_lines(zipped, member="x/a.txt")) == LINES
    assert list(read_lines(tarred, member="a.txt")) == LINES
    assert list(read_lines(plain_tar)) == LINES
    assert read_bytes(zipped, member="x/b.txt") == b"b"


def test_other_encoding(tmp_path: Path) -> None:
    path = tmp_path / "a.txt"
    path.write_bytes("café\n".encode("latin-1"))
    assert list(read_lines(path, encoding="latin-1")) == [(1, "café")]


def test_mixed_encoding_names_the_line(tmp_path: Path) -> None:
    path = tmp_path / "a.txt"
    path.write_bytes("ok é\n".encode() + "bad é\n".encode("latin-1"))
    with pytest.raises(DataError, match=r"a\.txt:2: the byte 0xe9 is not utf-8"):
        list(read_lines(path))
    with pytest.raises(DataError, match=r"a\.txt:2"):
        decode_text(path.read_bytes(), "utf-8", path)


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("a.txt", b"a\nb\0c\n", r"a\.txt:2: a NUL byte"),
        ("a.gz", b"not gzip", "the archive is damaged"),
        ("a.gz", gzip.compress(b"x" * 5000)[:-12], "the archive is damaged"),
        ("a.zip", b"not zip", "the archive is damaged"),
        ("a.tar.gz", b"not tar", "the archive is damaged"),
        ("a.tar", b"\1" * 2000, "the archive is damaged"),
    ],
)
def test_damaged(tmp_path: Path, name: str, content: bytes, message: str) -> None:
    path = tmp_path / name
    path.write_bytes(content)
    with pytest.raises(DataError, match=message):
        list(read_lines(path))


def test_damaged_member(tmp_path: Path) -> None:
    path = make_zip(tmp_path / "a.zip", {"a": bytes(range(256)) * 64})
    content = bytearray(path.read_bytes())
    content[60:90] = b"\xff" * 30
    path.write_bytes(content)
    with pytest.raises(DataError, match="damaged"):
        read_bytes(path)


def test_missing_file_folder_and_member(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"no such file \(its folder exists\)"):
        list(read_lines(tmp_path / "no.txt"))
    with pytest.raises(DataError, match="its folder does not exist"):
        list(read_lines(tmp_path / "no" / "no.txt"))
    with pytest.raises(DataError, match="this is a folder"):
        list(read_lines(tmp_path))
    archive = make_zip(tmp_path / "a.zip", {"a": b"", "b": b""})
    with pytest.raises(DataError, match=r"no member 'c'.*one of: a, b"):
        list(read_lines(archive, member="c"))
    with pytest.raises(DataError, match="the archive has 2 files"):
        list(read_lines(archive))
    plain = tmp_path / "a.txt"
    plain.write_text("a")
    with pytest.raises(DataError, match="a member 'c' was asked for"):
        list(read_lines(plain, member="c"))


@pytest.mark.parametrize("encoding", ["utf-16", "nonsense"])
def test_encodings_that_cannot_be_read_by_line(tmp_path: Path, encoding: str) -> None:
    path = tmp_path / "a.txt"
    path.write_text("a")
    with pytest.raises(DataError, match=encoding):
        list(read_lines(path, encoding=encoding))


def test_bombs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    bomb = b"0123456789\n" * 10_000
    packed = tmp_path / "a.gz"
    packed.write_bytes(gzip.compress(bomb))
    zipped = make_zip(tmp_path / "a.zip", {"a": bomb})
    tarred = make_tar(tmp_path / "a.tgz", {"a": bomb[:600], "b": bomb[:600]})
    for path in (packed, zipped):
        with pytest.raises(DataError, match="more than 1000 bytes when unpacked"):
            list(read_lines(path, limit=1000))
        with pytest.raises(DataError, match="more than 1000 bytes"):
            read_bytes(path, limit=1000)
    with pytest.raises(DataError, match="bytes when unpacked"):
        list(read_members(tarred, "*", limit=1000))
    assert len(list(read_lines(packed, limit=len(bomb)))) == 10_000
    monkeypatch.setattr(files, "LINE_LIMIT", 5)
    with pytest.raises(DataError, match="a line of more than 5 bytes"):
        list(read_lines(packed))


def test_members_in_order(tmp_path: Path) -> None:
    members = {"./b.xml": b"1\n2", "./a.xml": b"\xef\xbb\xbf3\r\n", "./c.txt": b"4"}
    for path in (make_tar(tmp_path / "a.tar.gz", members), make_zip(tmp_path / "a.zip", members)):
        assert [name for name, _ in read_members(path, "*.xml")] == ["b.xml", "a.xml"]
        assert dict(read_members(path, "*.txt")) == {"c.txt": b"4"}
        found = {name: list(lines) for name, lines in read_member_lines(path, "*.xml")}
        assert found == {"b.xml": [(1, "1"), (2, "2")], "a.xml": [(1, "3")]}
        for function in (read_members, read_member_lines):
            with pytest.raises(DataError, match=r"no file in the archive matches '\*\.pdf'"):
                list(function(path, "*.pdf"))
            with pytest.raises(DataError, match="no such file"):
                list(function(tmp_path / f"no{path.suffix}", "*"))


def test_members_are_named_in_errors(tmp_path: Path) -> None:
    path = make_zip(tmp_path / "a.zip", {"x/a": b"ok\n\xff\n", "x/b": b"1234567"})
    with pytest.raises(DataError, match=r"a\.zip!x/a:2: the byte 0xff is not utf-8"):
        [list(lines) for _, lines in read_member_lines(path, "x/a")]
    with pytest.raises(DataError, match=r"a\.zip!x/b:1: more than 5 bytes"):
        [list(lines) for _, lines in read_member_lines(path, "x/b", limit=5)]
    with pytest.raises(DataError, match=r"a\.zip!x/b: more than"):
        list(read_members(path, "x/*", limit=8))
    (tmp_path / "b.zip").write_bytes(b"not zip")
    with pytest.raises(DataError, match="the archive is damaged"):
        list(read_members(tmp_path / "b.zip", "*"))


def test_write_atomic(tmp_path: Path) -> None:
    path = tmp_path / "new" / "a.txt"
    write_atomic(path, "é\n")
    assert path.read_bytes() == "é\n".encode()
    write_atomic(path, b"\0")
    assert path.read_bytes() == b"\0"
    assert list(path.parent.iterdir()) == [path]


def test_write_atomic_keeps_the_old_file_when_it_fails(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "a.txt"
    write_atomic(path, "old")

    def fail(_: int) -> None:
        raise OSError("disk full")

    monkeypatch.setattr("os.fsync", fail)
    with pytest.raises(OSError, match="disk full"):
        write_atomic(path, "new")
    assert path.read_text() == "old"
    assert list(tmp_path.iterdir()) == [path]
