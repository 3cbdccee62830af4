"""Lines and texts of plain and gzipped files; every problem names the file and, where there is one, the line."""

from __future__ import annotations

import codecs
import gzip
import hashlib
import io
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any, TypeVar

from trunkline.errors import DataError

DEFAULT_LIMIT = 4 * 1024**3
"""Bytes of an unpacked file that are read before it is taken for an archive bomb."""

LINE_LIMIT = 64 * 1024**2
"""Bytes of one line; a longer one is no text line and would fill the memory before `limit` is reached."""

_CORRUPT = (gzip.BadGzipFile, zlib.error, EOFError)
_GZIP = b"\x1f\x8b"
_ZIP = b"PK\x03\x04"
_UTF16 = (codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)
_ESCAPING = ("utf-7", "raw-unicode-escape")
"""Encodings that can spell half of a surrogate pair, which no tokenizer takes."""

T = TypeVar("T")


def read_lines(path: str | Path, *, encoding: str = "utf-8", limit: int = DEFAULT_LIMIT) -> Iterator[tuple[int, str]]:
    """Yields the lines of a text file with their numbers, one in memory at a time.

    Only a line feed ends a line, so that U+2028 and the like stay inside a text. A carriage return before it and a byte
    order mark at the start are dropped; that of UTF-16 is believed whatever `encoding` says.

    Args:
        path: A plain or gzipped file, told apart by content; or an object with the methods `open`, `exists` and
            `is_dir` of a path, such as a `zipfile.Path`.
        encoding: Any encoding in which a line feed is one byte.
        limit: The most bytes of the unpacked file.

    Yields:
        Line number, counted from 1, and the line without its end.

    Raises:
        DataError: No such file, a damaged one, bytes that are not text in `encoding`, or too many of them.
    """
    decode = find_codec(path, encoding)
    with open_stream(path) as stream:
        if _peek(stream, path)[:2] in _UTF16:
            text = decode_text(_read_up_to(stream, path, limit), encoding, path)
            yield from enumerate((line.removesuffix("\r") for line in text.removesuffix("\n").split("\n")), start=1)
        else:
            yield from decode_lines(stream, decode, path, limit)


def decode_lines(
    stream: IO[bytes], decode: codecs.CodecInfo, path: str | Path, limit: int
) -> Iterator[tuple[int, str]]:
    """The lines of an open file, as `read_lines` has them."""
    number, left = 0, limit
    while raw := _guarded(path, lambda: stream.readline(min(left, LINE_LIMIT) + 1)):  # noqa: B023
        number += 1
        left -= len(raw)
        if left < 0:
            raise _too_large(path, limit, line=number)
        if len(raw) > LINE_LIMIT:
            raise DataError(
                f"a line of more than {LINE_LIMIT} bytes",
                path=path,
                line=number,
                expected="a text file with one record a line",
            )
        if number == 1 and decode.name == "utf-8":
            raw = raw.removeprefix(codecs.BOM_UTF8)
        yield number, _text(raw, decode, path, number)


def read_text(path: str | Path, *, encoding: str = "utf-8", limit: int = DEFAULT_LIMIT) -> str:
    """The whole text of a file; arguments and errors as for `read_lines`."""
    return decode_text(read_bytes(path, limit=limit), encoding, path)


def read_bytes(path: str | Path, *, limit: int = DEFAULT_LIMIT) -> bytes:
    """The unpacked bytes of a file; errors as for `read_lines`."""
    with open_stream(path) as stream:
        return _read_up_to(stream, path, limit)


def decode_text(content: bytes, encoding: str, path: str | Path) -> str:
    """Decodes a whole file; wrong bytes raise a DataError with the line in which they stand."""
    decode = codecs.lookup("utf-16") if content[:2] in _UTF16 else find_codec(path, encoding)
    if decode.name == "utf-8":
        content = content.removeprefix(codecs.BOM_UTF8)
    try:
        return decode.decode(content)[0]
    except UnicodeDecodeError as error:
        raise _wrong_encoding(error, decode.name, path, content.count(b"\n", 0, error.start) + 1) from None


@contextmanager
def open_stream(path: str | Path) -> Iterator[IO[bytes]]:
    """Opens the unpacked bytes of a file."""
    file: Any = path if hasattr(path, "open") else Path(path)
    if file.is_dir():
        raise DataError("this is a folder", path=path, expected="a file", todo="Name the file in it that you mean")
    if not file.exists():
        where = "its folder does not exist either" if not file.parent.exists() else "its folder exists"
        raise DataError(f"no such file ({where})", path=path, expected="a file that exists", todo="Check the path")
    with _guarded(path, lambda: file.open("rb")) as raw:
        stream = raw if hasattr(raw, "peek") else io.BufferedReader(raw)
        start = _peek(stream, path)
        if start.startswith(_ZIP):
            raise DataError(
                "this is a .zip file, as those of Excel are, too",
                path=path,
                expected="a text file, plain or gzipped",
                todo="Unpack it, or save the sheet as CSV in UTF-8",
            )
        packed = start.startswith(_GZIP) or str(path).lower().endswith(".gz")
        yield gzip.GzipFile(fileobj=stream) if packed else stream  # type: ignore[misc]


def find_codec(path: str | Path, encoding: str) -> codecs.CodecInfo:
    """The codec of a name; a DataError if it cannot be read line by line."""
    try:
        info = codecs.lookup(encoding)
        line_end = "\n".encode(encoding)
        if info.name in _ESCAPING:
            raise LookupError(encoding)
    except (LookupError, ValueError):  # ValueError: a codec that encodes nothing, or a NUL in the name
        raise DataError(
            f"the encoding {encoding!r} cannot be read", path=path, expected="a name such as utf-8, latin-1 or cp1252"
        ) from None
    if line_end != b"\n":
        raise DataError(
            f"the encoding {encoding} has no one-byte line ends",
            path=path,
            expected="UTF-8 or another encoding that contains ASCII",
            todo="Convert the file, for example with `iconv -t utf-8`",
        )
    return info


def file_state(path: Path, *, content: bool) -> str:
    """What tells whether a file has changed: its size and time of change, or the SHA-256 of its content."""
    if not content:
        return f"{path.stat().st_size} {path.stat().st_mtime_ns}"
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def _peek(stream: Any, path: str | Path) -> bytes:
    found: bytes = _guarded(path, lambda: stream.peek(4))
    return found[:4]


def _guarded(path: str | Path, action: Callable[[], T]) -> T:
    try:
        return action()
    except _CORRUPT as error:
        raise DataError(
            f"the archive is damaged ({error or type(error).__name__})",
            path=path,
            expected="a complete .gz file",
            todo="Get the file again",
        ) from error
    except OSError as error:
        raise DataError(f"the file cannot be read ({error.strerror or error})", path=path) from error


def _read_up_to(stream: IO[bytes], path: str | Path, limit: int) -> bytes:
    content = _guarded(path, lambda: stream.read(limit + 1))
    if len(content) > limit:
        raise _too_large(path, limit)
    return content


def _too_large(path: str | Path, limit: int, *, line: int | None = None) -> DataError:
    return DataError(
        f"more than {limit} bytes when unpacked",
        path=path,
        line=line,
        expected="a file within the size limit, which guards against archive bombs",
        todo="Split it if the file is what you think",
    )


def _text(raw: bytes, decode: codecs.CodecInfo, path: str | Path, line: int) -> str:
    if b"\0" in raw:
        raise DataError(
            "a NUL byte, so this is a binary file or UTF-16 without its mark",
            path=path,
            line=line,
            expected="text",
            todo="Convert the file to UTF-8 or name another one",
        )
    try:
        text: str = decode.decode(raw)[0]
    except UnicodeDecodeError as error:
        raise _wrong_encoding(error, decode.name, path, line) from None
    return text.removesuffix("\n").removesuffix("\r")


def _wrong_encoding(error: UnicodeDecodeError, encoding: str, path: str | Path, line: int) -> DataError:
    found = error.object[error.start] if error.start < len(error.object) else 0
    return DataError(
        f"the byte 0x{found:02x} is not {encoding} here",
        path=path,
        line=line,
        expected=f"{encoding} in the whole file",
        todo="Save the file as UTF-8 (latin-1 and cp1252 are common), or mend the line",
    )
