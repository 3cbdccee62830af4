"""Files that are read as a whole: their bytes within a limit, their text whatever its marks; those of archives."""

from __future__ import annotations

import gzip
import os
import zipfile
from pathlib import Path

import pytest

from trunkline.errors import DataError
from trunkline_lab.data.archives import decode_text, read_bytes, unpacked

TEXT = "eins\nzwei\u2028drei\n\nüber\n"


@pytest.mark.parametrize(
    "content",
    [
        TEXT.encode(),
        b"\xef\xbb\xbf" + TEXT.encode(),
        TEXT.encode("utf-16"),
        b"\xfe\xff" + TEXT.encode("utf-16-be"),
        gzip.compress(TEXT.encode("utf-16")),
    ],
)
def test_text_whatever_marks_and_packing(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "a.txt"
    path.write_bytes(content)
    assert decode_text(read_bytes(path), "utf-8", path) == TEXT


def test_refusals(tmp_path: Path) -> None:
    path = tmp_path / "a.gz"
    path.write_bytes(gzip.compress(b"0123456789\n" * 10_000))
    with pytest.raises(DataError, match="more than 1000 bytes"):
        read_bytes(path, limit=1000)
    with pytest.raises(DataError, match=r"a\.txt:2: the byte 0xe9"):
        decode_text("ok\nbad é\n".encode("latin-1"), "utf-8", "a.txt")


def test_a_file_of_an_archive_is_unpacked_once_and_anew_when_the_archive_changes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TRUNKLINE_CACHE", str(tmp_path / "cache"))
    path = tmp_path / "a.zip"

    def pack(content: str, time: int) -> None:
        with zipfile.ZipFile(path, "w") as archive:
            archive.writestr("x/rows.txt", content)
            archive.writestr("y/rows.txt", "others")
        os.utime(path, ns=(time, time))

    pack("one", 1)
    first = unpacked(path, "x/rows.txt")
    assert (first.read_text(), unpacked(path, "y/rows.txt").read_text()) == ("one", "others")
    first.write_text("kept")
    assert unpacked(path, "x/rows.txt").read_text() == "kept"
    for content, time in (("two", 2), ("three", 2)):
        pack(content, time)
        assert unpacked(path, "x/rows.txt").read_text() == content
