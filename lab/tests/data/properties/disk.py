"""Files as formats write them, plain or packed."""

from __future__ import annotations

import bz2
import gzip
import io
import lzma
import tarfile
import zipfile
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

PLAIN = ("", ".gz")
TARS = (".tar", ".tar.gz", ".tgz", ".tar.bz2", ".tar.xz")
ARCHIVES = (*TARS, ".zip")


@dataclass(frozen=True, slots=True)
class Sample:
    """The content of a file, the options to read it with, and the files beside it by the option that names them.

    In an archive the content is the first member, and `members` come after it.
    """

    content: bytes
    options: dict[str, Any] = field(default_factory=dict)
    beside: dict[str, bytes] = field(default_factory=dict)
    member: str = "rows.txt"
    members: dict[str, bytes] = field(default_factory=dict)

    def with_content(self, content: bytes) -> Sample:
        return replace(self, content=content)


def store(sample: Sample, folder: Path, packing: str = "") -> tuple[Path, dict[str, Any]]:
    """Writes a sample; returns the path of its first file and the options."""
    path = folder / f"main{packing}"
    path.write_bytes(pack({sample.member: sample.content, **sample.members}, packing))
    names = {option: f"{option}{packing}" for option in sample.beside}
    for option, name in names.items():
        (folder / name).write_bytes(pack({sample.member: sample.beside[option]}, packing))
    return path, {**sample.options, **names}


def pack(members: dict[str, bytes], packing: str) -> bytes:
    """The bytes of an archive with these members, or of a file, compressed or not, with the only one."""
    if packing == ".zip":
        return make_zip(members)
    return squeeze(make_tar(members) if packing in TARS else next(iter(members.values())), packing)


def squeeze(content: bytes, packing: str) -> bytes:
    """Compresses the bytes of a file or a tar as the end of the packing says."""
    if packing.endswith((".gz", ".tgz")):
        return gzip.compress(content, 1, mtime=0)
    if packing.endswith(".bz2"):
        return bz2.compress(content)
    return lzma.compress(content, preset=0) if packing.endswith(".xz") else content


def make_zip(members: dict[str, bytes]) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in members.items():
            archive.writestr(name, content)
    return buffer.getvalue()


def make_tar(members: dict[str, bytes]) -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as archive:
        for name, content in members.items():
            entry = tarfile.TarInfo(name)
            entry.size = len(content)
            archive.addfile(entry, io.BytesIO(content))
    return buffer.getvalue()
