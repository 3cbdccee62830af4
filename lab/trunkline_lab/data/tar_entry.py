"""Entries of tar archives that are damaged or hostile, which `tarfile` takes for the end of the archive or trusts."""

from __future__ import annotations

import tarfile
from typing import Self

_LONG_HEADERS = (
    tarfile.GNUTYPE_LONGNAME,
    tarfile.GNUTYPE_LONGLINK,
    tarfile.XHDTYPE,
    tarfile.XGLTYPE,
    tarfile.SOLARIS_XHDTYPE,
)
_NAME_LIMIT = 256 * 1024


class TarEntry(tarfile.TarInfo):
    """An entry whose header is whole; for the argument `tarinfo` of `tarfile.open`.

    Raises:
        tarfile.ReadError: A header that is cut off or whose checksum is wrong, an archive without a block of zeros at
            its end, a negative size, which leads back to where it stands for ever, or a name of more than 256 KiB,
            which would be read as a whole.
    """

    @classmethod
    def frombuf(cls, buf: bytes | bytearray, encoding: str, errors: str) -> Self:
        """The entry of a header block."""
        entry = super().frombuf(buf, encoding, errors)
        if entry.type in _LONG_HEADERS and entry.size > _NAME_LIMIT:
            raise tarfile.ReadError(f"a name of {entry.size} bytes")
        return entry._checked()

    @classmethod
    def fromtarfile(cls, archive: tarfile.TarFile) -> Self:
        """The next entry of an archive."""
        try:
            entry = super().fromtarfile(archive)
        except (tarfile.HeaderError, ValueError) as error:
            if type(error).__name__ == "EOFHeaderError":  # the block of zeros
                raise
            raise tarfile.ReadError(str(error)) from None
        return entry._checked()  # the size may come from an extended header

    def _checked(self) -> Self:
        if self.size < 0:
            raise tarfile.ReadError(f"a size of {self.size} bytes")
        return self
