"""Lines and texts of plain and gzipped files; every problem names the file and, where there is one, the line."""

from __future__ import annotations

import codecs
import gzip
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

_UTF16 = (codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)
T = TypeVar("T")


def data_error(path: str | Path, line: int | None, given: str, expected: str = "", todo: str = "") -> DataError:
    """A DataError, in the order in which it is read."""
    return DataError(given, path=path, line=line, expected=expected, todo=todo)


def read_lines(path: str | Path, *, encoding: str = "utf-8", limit: int = DEFAULT_LIMIT) -> Iterator[tuple[int, str]]:
    """Yields the numbers, counted from 1, and lines of a plain or gzipped text file; one is in memory at a time.

    Only a line feed ends a line, so that U+2028 and the like stay inside a text. A carriage return before it and a byte
    order mark at the start are dropped; that of UTF-16 is believed whatever `encoding` says. `path` may be any object
    with the methods of a path, such as a `zipfile.Path`, and `limit` is the most bytes of the unpacked file.

    Raises:
        DataError: No such file, a damaged one, bytes that are not text in `encoding`, or too many of them.
    """
    codec = _codec(path, encoding)
    with open_stream(path) as stream:
        if _peek(stream, path).startswith(_UTF16):
            text = decode_text(_read_up_to(stream, path, limit), encoding, path)
            yield from enumerate((line.removesuffix("\r") for line in text.removesuffix("\n").split("\n")), start=1)
            return
        number, left = 0, limit
        while raw := _guarded(path, lambda: stream.readline(min(left, LINE_LIMIT) + 1)):  # noqa: B023
            number, left = number + 1, left - len(raw)
            if left < 0 or len(raw) > LINE_LIMIT:
                raise _too_large(path, number, LINE_LIMIT if left >= 0 else limit)
            if b"\0" in raw:
                given = "a NUL byte, so this is a binary file or UTF-16 without its mark"
                raise data_error(path, number, given, "text", "Convert the file to UTF-8 or name another one")
            if number == 1 and codec.name == "utf-8":
                raw = raw.removeprefix(codecs.BOM_UTF8)
            try:
                text = codec.decode(raw)[0]
            except UnicodeDecodeError as error:
                raise _wrong_bytes(error, path, number) from None
            yield number, text.removesuffix("\n").removesuffix("\r")


def read_bytes(path: str | Path, *, limit: int = DEFAULT_LIMIT) -> bytes:
    """The unpacked bytes of a file; errors as for `read_lines`."""
    with open_stream(path) as stream:
        return _read_up_to(stream, path, limit)


def decode_text(content: bytes, encoding: str, path: str | Path) -> str:
    """Decodes a whole file; wrong bytes raise a DataError with the line in which they stand."""
    codec = codecs.lookup("utf-16") if content.startswith(_UTF16) else _codec(path, encoding)
    if codec.name == "utf-8":
        content = content.removeprefix(codecs.BOM_UTF8)
    try:
        return codec.decode(content)[0]
    except UnicodeDecodeError as error:
        raise _wrong_bytes(error, path, content.count(b"\n", 0, error.start) + 1) from None


@contextmanager
def open_stream(path: str | Path) -> Iterator[IO[bytes]]:
    """Opens the unpacked bytes of a file."""
    file: Any = path if hasattr(path, "open") else Path(path)
    if file.is_dir():
        raise data_error(path, None, "this is a folder", "a file", "Name the file in it that you mean")
    if not file.exists():
        where = "its folder exists" if file.parent.exists() else "its folder does not exist either"
        raise data_error(path, None, f"no such file ({where})", "a file that exists", "Check the path")
    with _guarded(path, lambda: file.open("rb")) as raw:
        stream = raw if hasattr(raw, "peek") else io.BufferedReader(raw)
        start = _peek(stream, path)
        if start.startswith(b"PK\x03\x04"):
            todo = "Unpack it, or save the sheet as CSV in UTF-8"
            raise data_error(path, None, "this is a .zip file, as those of Excel are, too", "a text file", todo)
        packed = start.startswith(b"\x1f\x8b") or str(path).lower().endswith(".gz")
        yield gzip.GzipFile(fileobj=stream) if packed else stream  # type: ignore[misc]


def _codec(path: str | Path, encoding: str) -> codecs.CodecInfo:
    try:
        found = codecs.lookup(encoding)
        fits = "\n".encode(encoding) == b"\n" and found.name not in ("utf-7", "raw-unicode-escape")
    except (LookupError, ValueError):  # ValueError: a codec that encodes nothing, or a NUL in the name
        fits = False
    if not fits:
        expected = "one in which a line feed is one byte, such as utf-8, latin-1 or cp1252"
        raise data_error(path, None, f"the encoding {encoding!r} cannot be read", expected, "Convert the file to UTF-8")
    return found


def _peek(stream: Any, path: str | Path) -> bytes:
    return bytes(_guarded(path, lambda: stream.peek(4)))


def _guarded(path: str | Path, action: Callable[[], T]) -> T:
    try:
        return action()
    except (gzip.BadGzipFile, zlib.error, EOFError) as error:
        given = f"the archive is damaged ({error or type(error).__name__})"
        raise data_error(path, None, given, "a complete .gz file", "Get the file again") from error
    except OSError as error:
        raise data_error(path, None, f"the file cannot be read ({error.strerror or error})") from error


def _read_up_to(stream: IO[bytes], path: str | Path, limit: int) -> bytes:
    content = _guarded(path, lambda: stream.read(limit + 1))
    if len(content) > limit:
        raise _too_large(path, None, limit)
    return content


def _too_large(path: str | Path, line: int | None, limit: int) -> DataError:
    what = "a line of more" if limit == LINE_LIMIT and line else "more"
    expected = "a text file of lines, within the limit that guards against archive bombs"
    return data_error(path, line, f"{what} than {limit} bytes when unpacked", expected, "Split the file")


def _wrong_bytes(error: UnicodeDecodeError, path: str | Path, line: int) -> DataError:
    byte = error.object[error.start] if error.start < len(error.object) else 0
    todo = "Save the file as UTF-8 (latin-1 and cp1252 are common), or mend the line"
    return data_error(path, line, f"the byte 0x{byte:02x} is not {error.encoding} here", "one encoding", todo)
