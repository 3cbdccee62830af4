"""Reading the files of .zip and .tar archives, as public data sets come, and files as a whole."""

from __future__ import annotations

import codecs
import fnmatch
import hashlib
import lzma
import tarfile
import zipfile
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO

from trunkline.bundle.files import write_atomic
from trunkline.data.load import LIMIT, open_stream
from trunkline.data.values import too_large, wrong_bytes
from trunkline.errors import DataError
from trunkline.versions import cache_folder

DEFAULT_LIMIT = 2 * 1024**3
"""Bytes of all members that are read before an archive is taken for a bomb."""

ARCHIVES = (".zip", ".tar", ".tar.gz", ".tgz", ".tar.bz2", ".tar.xz")

_BROKEN = (zipfile.BadZipFile, tarfile.TarError, zlib.error, lzma.LZMAError, EOFError, OSError, NotImplementedError)


def is_archive(path: str | Path) -> bool:
    """Whether a file's name says that it is an archive."""
    return Path(path).name.lower().endswith(ARCHIVES)


def read_members(path: str | Path, pattern: str, *, limit: int | None = None) -> Iterator[tuple[str, bytes]]:
    """Yields name and bytes of the files in a `.zip` or `.tar` whose name matches, in the archive's order.

    Args:
        path: The archive; one whose name does not end in `.zip` is taken for a `.tar`, packed or not.
        pattern: A shell pattern such as `*.xml`, matched against the name without a leading `./`; `*` crosses `/`.
        limit: The most bytes of all matching members together; `DEFAULT_LIMIT` by default.

    Raises:
        DataError: No such file, a damaged archive, no member that matches, or too many bytes.
    """
    if not Path(path).is_file():
        raise DataError("no such file", path=path, expected="an archive of the data set", todo="Check the path")
    members = _zip_members if Path(path).name.lower().endswith(".zip") else _tar_members
    found = False
    most = left = DEFAULT_LIMIT if limit is None else limit
    with _whole(path):
        for name, stream in members(path, pattern):
            found = True
            with stream:
                content = stream.read(left + 1)
            left -= len(content)
            if left < 0:
                raise DataError(
                    f"more than {most} bytes when unpacked",
                    path=f"{path}!{name}",
                    expected="a file within the size limit, which guards against archive bombs",
                )
            yield name, content
    if not found:
        raise DataError(
            f"no file in the archive matches {pattern!r}",
            path=path,
            expected="an archive of the data set as its authors publish it",
            todo="Check that this is the right archive",
        )


def unpacked(path: Path, member: str) -> Path:
    """One file of an archive, unpacked into the cache unless it is there already; errors as for `read_members`."""
    state = path.stat() if path.is_file() else None
    key = f"{path.resolve()} {state.st_size} {state.st_mtime_ns} {member}" if state else ""
    target = cache_folder() / "unpacked" / hashlib.sha256(key.encode()).hexdigest()[:24] / Path(member).name
    if not state or not target.is_file():
        _, content = next(read_members(path, glob_of(member)))
        write_atomic(target, content)
    return target


def glob_of(name: str) -> str:
    """The shell pattern that matches exactly this name."""
    return "".join(f"[{sign}]" if sign in "*?[" else sign for sign in name)


def _tar_members(path: str | Path, pattern: str) -> Iterator[tuple[str, IO[bytes]]]:
    with tarfile.open(path, "r:*") as archive:
        for entry in archive:
            name = entry.name.removeprefix("./")
            if entry.isfile() and fnmatch.fnmatchcase(name, pattern) and (stream := archive.extractfile(entry)):
                yield name, stream


def _zip_members(path: str | Path, pattern: str) -> Iterator[tuple[str, IO[bytes]]]:
    with zipfile.ZipFile(path) as archive:
        for entry in archive.infolist():
            name = entry.filename.removeprefix("./")
            if not entry.is_dir() and fnmatch.fnmatchcase(name, pattern):
                yield name, archive.open(entry)


@contextmanager
def _whole(path: str | Path) -> Iterator[None]:
    try:
        yield
    except _BROKEN as error:
        raise DataError(
            f"the archive is damaged ({error or type(error).__name__})",
            path=path,
            expected="a complete .zip or .tar file",
            todo="Get the file again",
        ) from error


def read_bytes(path: str | Path, *, limit: int = LIMIT) -> bytes:
    """The unpacked bytes of a file; errors as for `read_lines`."""
    with open_stream(path) as stream:
        content: bytes = stream.read(limit + 1)
    if len(content) > limit:
        raise too_large(path, None, limit)
    return content


def decode_text(content: bytes, encoding: str, path: str | Path) -> str:
    """Decodes a whole file; wrong bytes raise a DataError with the line in which they stand."""
    marked = content.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE))
    codec = codecs.lookup("utf-16" if marked else encoding)
    if codec.name == "utf-8":
        content = content.removeprefix(codecs.BOM_UTF8)
    try:
        return codec.decode(content)[0]
    except UnicodeDecodeError as error:
        raise wrong_bytes(error, path, content.count(b"\n", 0, error.start) + 1) from None
