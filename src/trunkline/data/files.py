"""Reading lines out of plain and packed files in place, and writing files so that a crash leaves the old one whole."""

from __future__ import annotations

import codecs
import fnmatch
import gzip
import hashlib
import lzma
import tarfile
import zipfile
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, TypeVar, cast

from trunkline.data.tar_entry import TarEntry
from trunkline.errors import DataError

DEFAULT_LIMIT = 4 * 1024**3
"""Bytes of an unpacked stream that are read before it is taken for an archive bomb."""

LINE_LIMIT = 64 * 1024**2
"""Bytes of one line; a longer one is no text line and would fill the memory before `limit` is reached."""

_CORRUPT = (
    zipfile.BadZipFile,
    gzip.BadGzipFile,
    tarfile.TarError,
    zlib.error,
    lzma.LZMAError,
    EOFError,
    NotImplementedError,
)
_MOST_MEMBERS = 100_000
_BOM = codecs.BOM_UTF8
_ESCAPING = ("utf-7", "raw-unicode-escape")
"""Encodings that can spell half of a surrogate pair, which no tokenizer takes."""

T = TypeVar("T")


def read_lines(
    path: str | Path, *, member: str | None = None, encoding: str = "utf-8", limit: int = DEFAULT_LIMIT
) -> Iterator[tuple[int, str]]:
    """Yields the lines of a text file with their numbers.

    Only a line feed ends a line, so that U+2028 and the like stay inside a text. A carriage return before it and a
    UTF-8 byte order mark at the start are dropped.

    Args:
        path: A plain file, `.gz`, `.zip` or `.tar` (also packed); archives are read in place.
        member: The file inside a `.zip` or `.tar`; not needed where there is only one.
        encoding: Any encoding in which a line feed is one byte.
        limit: The most bytes of the unpacked stream.

    Yields:
        Line number, counted from 1, and the line without its end.

    Raises:
        DataError: No such file or member, a damaged archive, bytes that are not text in `encoding`, or too many bytes.
    """
    decode = _decoder(path, encoding)
    with open_stream(path, member=member) as stream:
        yield from _lines(stream, decode, _label(path, member), limit)


def read_bytes(path: str | Path, *, member: str | None = None, limit: int = DEFAULT_LIMIT) -> bytes:
    """Returns the unpacked bytes of a file or archive member; errors as for `read_lines`."""
    where = _label(path, member)
    with open_stream(path, member=member) as stream:
        return _read_up_to(stream, where, limit)


def read_members(path: str | Path, pattern: str, *, limit: int = DEFAULT_LIMIT) -> Iterator[tuple[str, bytes]]:
    """Yields name and bytes of the files in a `.zip` or `.tar` whose name matches, in the archive's order.

    Args:
        path: The archive; one whose name does not end in `.zip` is taken for a `.tar`, packed or not.
        pattern: A shell pattern such as `*.xml`, matched against the name without a leading `./`; `*` crosses `/`.
        limit: The most bytes of all matching members together.

    Raises:
        DataError: No such file, a damaged archive, no member that matches, or too many bytes.
    """
    left = limit
    for name, stream in _open_members(path, pattern):
        content = _read_up_to(stream, _label(path, name), left)
        left -= len(content)
        yield name, content


def read_member_lines(
    path: str | Path, pattern: str, *, encoding: str = "utf-8", limit: int = DEFAULT_LIMIT
) -> Iterator[tuple[str, Iterator[tuple[int, str]]]]:
    """Yields name and lines of the files in a `.zip` or `.tar` whose name matches, holding one line at a time.

    The lines are numbered and cut as in `read_lines`. They must be used before the next member is asked for.

    Args:
        path: The archive, as for `read_members`.
        pattern: A shell pattern, as for `read_members`.
        encoding: Any encoding in which a line feed is one byte.
        limit: The most bytes of one member.

    Raises:
        DataError: As for `read_members` and `read_lines`.
    """
    decode = _decoder(path, encoding)
    for name, stream in _open_members(path, pattern):
        yield name, _lines(stream, decode, _label(path, name), limit)


def _open_members(path: str | Path, pattern: str) -> Iterator[tuple[str, IO[bytes]]]:
    _require_file(path)
    members = _zip_members if Path(path).name.lower().endswith(".zip") else _tar_members
    found = False
    for name, stream in members(path, pattern):
        found = True
        with stream:
            yield name, stream
    if not found:
        raise DataError(
            f"no file in the archive matches {pattern!r}",
            path=path,
            expected="an archive of the data set as its authors publish it",
            todo="Check that this is the right archive",
        )


def _tar_members(path: str | Path, pattern: str) -> Iterator[tuple[str, IO[bytes]]]:
    with _open_tar(path) as archive:
        for entry in _tar_entries(path, archive):
            name = _plain(entry.name)
            if fnmatch.fnmatchcase(name, pattern) and (stream := archive.extractfile(entry)):
                yield name, stream


def _open_tar(path: str | Path) -> tarfile.TarFile:
    return _guarded(path, lambda: tarfile.open(path, "r:*", tarinfo=TarEntry))


def _tar_entries(path: str | Path, archive: tarfile.TarFile) -> Iterator[tarfile.TarInfo]:
    """The files of a tar. At its end all of it was read, so that its checksum, if it has one, was compared."""
    while (entry := _guarded(path, archive.next)) is not None:
        archive.members = []  # type: ignore[attr-defined]  # would hold the entries of a bomb, and is not used here
        if entry.isfile():
            yield entry
    while _guarded(path, lambda: archive.fileobj.read(1024**2)):
        pass


def _zip_members(path: str | Path, pattern: str) -> Iterator[tuple[str, IO[bytes]]]:
    with _guarded(path, lambda: zipfile.ZipFile(path)) as archive:
        for entry in archive.infolist():
            name = _plain(entry.filename)
            if not entry.is_dir() and fnmatch.fnmatchcase(name, pattern):
                yield name, _open_entry(path, archive, entry.filename)


def _open_entry(path: str | Path, archive: zipfile.ZipFile, name: str) -> IO[bytes]:
    try:
        return _guarded(path, lambda: archive.open(name))
    except RuntimeError:
        raise DataError(
            f"the member {name!r} is encrypted", path=path, expected="an archive without a password"
        ) from None


def decode_text(content: bytes, encoding: str, path: str | Path) -> str:
    """Decodes a whole file; wrong bytes raise a DataError with the line in which they stand."""
    decode = _decoder(path, encoding)
    if decode.name == "utf-8":
        content = content.removeprefix(_BOM)
    try:
        return decode.decode(content)[0]
    except UnicodeDecodeError as error:
        line = content.count(b"\n", 0, error.start) + 1
        raise _wrong_encoding(error, encoding, path, line) from None


@contextmanager
def open_stream(path: str | Path, *, member: str | None = None) -> Iterator[IO[bytes]]:
    """Opens the unpacked bytes of a file or of an archive's member."""
    _require_file(path)
    name = Path(path).name.lower()
    if name.endswith(".zip"):
        with _guarded(path, lambda: zipfile.ZipFile(path)) as archive:
            names = [entry.filename for entry in archive.infolist() if not entry.is_dir()]
            chosen = _choose(path, names, member)
            with _open_entry(path, archive, chosen) as stream:
                yield stream
    elif name.endswith((".tar", ".tar.gz", ".tgz", ".tar.bz2", ".tar.xz")):
        with _open_tar(path) as packed:
            entries: dict[str, tarfile.TarInfo] = {}
            for entry in _tar_entries(path, packed):
                entries[entry.name] = entry
                if len(entries) > _MOST_MEMBERS:
                    raise DataError(
                        f"more than {_MOST_MEMBERS} files", path=path, expected="an archive of the files of a data set"
                    )
            inner = packed.extractfile(entries[_choose(path, list(entries), member)])
            if inner is None:
                raise DataError("the member cannot be read", path=_label(path, member), expected="a regular file")
            with inner:
                yield inner
    elif member is not None:
        raise DataError(
            f"a member {member!r} was asked for", path=path, expected="a .zip or .tar file that has members"
        )
    else:
        packed_alone = name.endswith(".gz")
        with _guarded(path, lambda: gzip.open(path, "rb") if packed_alone else Path(path).open("rb")) as plain:
            yield cast(IO[bytes], plain)


def file_state(path: Path, *, content: bool) -> str:
    """What tells whether a file has changed: its size and time of change, or the SHA-256 of its content."""
    if not content:
        return f"{path.stat().st_size} {path.stat().st_mtime_ns}"
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def _lines(stream: IO[bytes], decode: codecs.CodecInfo, where: str, limit: int) -> Iterator[tuple[int, str]]:
    number, left = 0, limit
    while raw := _guarded(where, lambda: stream.readline(min(left, LINE_LIMIT) + 1)):  # noqa: B023
        number += 1
        left -= len(raw)
        if left < 0:
            raise _too_large(where, limit, line=number)
        if len(raw) > LINE_LIMIT:
            raise DataError(
                f"a line of more than {LINE_LIMIT} bytes",
                path=where,
                line=number,
                expected="a text file with one record a line",
            )
        if number == 1 and decode.name == "utf-8":
            raw = raw.removeprefix(_BOM)
        yield number, _text(raw, decode, where, number)


def _require_file(path: str | Path) -> None:
    file = Path(path)
    if file.is_dir():
        raise DataError("this is a folder", path=path, expected="a file", todo="Name the file in it that you mean")
    if not file.exists():
        where = "its folder does not exist either" if not file.parent.exists() else "its folder exists"
        raise DataError(f"no such file ({where})", path=path, expected="a file that exists", todo="Check the path")


def _choose(path: str | Path, names: list[str], member: str | None) -> str:
    if member is None and len(names) == 1:
        return names[0]
    by_plain = {_plain(name): name for name in names}
    if member is not None and _plain(member) in by_plain:
        return by_plain[_plain(member)]
    listed = ", ".join(sorted(by_plain)[:8]) + (", ..." if len(by_plain) > 8 else "")
    given = f"no member {member!r} in the archive" if member is not None else f"the archive has {len(names)} files"
    raise DataError(given, path=path, expected=f"one of: {listed or 'nothing, it is empty'}", todo="Set `member`")


def _plain(name: str) -> str:
    return name.removeprefix("./")


def _label(path: str | Path, member: str | None) -> str:
    return str(path) if member is None else f"{path}!{_plain(member)}"


def _guarded(where: str | Path, action: Callable[[], T]) -> T:
    try:
        return action()
    except _CORRUPT as error:
        raise DataError(
            f"the archive is damaged ({error or type(error).__name__})",
            path=where,
            expected="a complete .zip, .gz or .tar file",
            todo="Get the file again",
        ) from error
    except OSError as error:
        raise DataError(f"the file cannot be read ({error.strerror or error})", path=where) from error


def _read_up_to(stream: IO[bytes], where: str, limit: int) -> bytes:
    content = _guarded(where, lambda: stream.read(limit + 1))
    if len(content) > limit:
        raise _too_large(where, limit)
    return content


def _too_large(where: str, limit: int, *, line: int | None = None) -> DataError:
    return DataError(
        f"more than {limit} bytes when unpacked",
        path=where,
        line=line,
        expected="a file within the size limit, which guards against archive bombs",
        todo="Raise the limit if the file is what you think, or split it",
    )


def _decoder(path: str | Path, encoding: str) -> codecs.CodecInfo:
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


def _text(raw: bytes, decode: codecs.CodecInfo, where: str, line: int) -> str:
    if b"\0" in raw:
        raise DataError(
            "a NUL byte, so this is a binary file or UTF-16",
            path=where,
            line=line,
            expected="text",
            todo="Convert the file to UTF-8 or name another one",
        )
    try:
        text: str = decode.decode(raw)[0]
    except UnicodeDecodeError as error:
        raise _wrong_encoding(error, decode.name, where, line) from None
    return text.removesuffix("\n").removesuffix("\r")


def _wrong_encoding(error: UnicodeDecodeError, encoding: str, path: str | Path, line: int) -> DataError:
    return DataError(
        f"the byte 0x{error.object[error.start]:02x} is not {encoding} here",
        path=path,
        line=line,
        expected=f"{encoding} in the whole file",
        todo="Set `encoding` (latin-1 and cp1252 are common) or mend the line",
    )
