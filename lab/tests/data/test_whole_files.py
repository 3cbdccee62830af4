"""Files that are read as a whole: their bytes within a limit, their text whatever its marks."""

from __future__ import annotations

import gzip
from pathlib import Path

import pytest

from trunkline.errors import DataError
from trunkline_lab.data.archives import decode_text, read_bytes

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
