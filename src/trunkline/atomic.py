"""Writing so that readers, crashes and other writers see the old content or the new, never a part."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from trunkline.errors import TrunklineError

LOCK = ".trunkline.lock"


def write_atomic(path: str | Path, content: str | bytes) -> None:
    """Writes a file whole or not at all.

    Args:
        path: Where to write; its folder is made if it is missing.
        content: Text, written as UTF-8 without changing line ends, or bytes.
    """
    target = Path(path)
    target.parent.mkdir(parents=True, exist_ok=True)
    data = content.encode("utf-8") if isinstance(content, str) else content
    handle, temporary = tempfile.mkstemp(dir=target.parent, prefix=f".{target.name}.", suffix=".part")
    try:
        with os.fdopen(handle, "wb") as stream:
            stream.write(data)
            stream.flush()
            os.fsync(stream.fileno())
        Path(temporary).chmod(target.stat().st_mode & 0o777 if target.exists() else 0o666 & ~_umask())
        Path(temporary).replace(target)
    except BaseException:
        Path(temporary).unlink(missing_ok=True)
        raise


@contextmanager
def new_folder(final: Path) -> Iterator[Path]:
    """A temporary folder beside `final` that takes its place when the block ends without an error.

    Raises:
        TrunklineError: The place is taken by something else than an empty folder, or cannot be written to.
    """
    check_free(final)
    try:
        final.parent.mkdir(parents=True, exist_ok=True)
        temporary = Path(tempfile.mkdtemp(dir=final.parent, prefix=f".{final.name}.", suffix=".part"))
    except OSError as error:
        raise _unwritable(final, error) from error
    try:
        temporary.chmod(0o777 & ~_umask())
        yield temporary
        if final.is_dir():
            final.rmdir()
        temporary.rename(final)
    except BaseException:
        shutil.rmtree(temporary, ignore_errors=True)
        raise


def check_free(folder: Path) -> None:
    """Raises TrunklineError unless a new folder can be written here: nothing there yet, or an empty folder.

    Asked before long work, so that nobody waits for a result that has no place.
    """
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise TrunklineError(
            f"{folder} {'has files already' if folder.is_dir() else 'is a file'}",
            expected="a new or empty folder",
            todo="Choose another folder, or remove this one",
        )
    there = folder
    while not there.exists():
        there = there.parent
    if not os.access(there, os.W_OK):
        raise _unwritable(folder, None)


def check_writable(path: Path) -> None:
    """Raises TrunklineError unless a file can be written here."""
    there = path.parent
    if path.is_dir():
        raise TrunklineError(f"{path} is a folder", expected="a file", todo="Name a file in it")
    while not there.exists():
        there = there.parent
    if not os.access(path if path.exists() else there, os.W_OK):
        raise _unwritable(path, None)
    path.parent.mkdir(parents=True, exist_ok=True)


@contextmanager
def locked(folder: Path) -> Iterator[None]:
    """Holds the lock of a folder, waiting for whoever holds it; the system frees it when a process dies.

    Raises:
        TrunklineError: The folder cannot be written to.
    """
    try:
        handle = os.open(folder / LOCK, os.O_RDWR | os.O_CREAT, 0o666)
    except OSError as error:
        raise _unwritable(folder, error) from error
    try:
        _wait_for(handle)
        yield
    finally:
        os.close(handle)


def _wait_for(handle: int) -> None:
    if os.name == "nt":
        import msvcrt
        import time

        while True:
            try:
                msvcrt.locking(handle, msvcrt.LK_LOCK, 1)  # type: ignore[attr-defined]
                return
            except OSError:
                time.sleep(0.05)
    import fcntl

    fcntl.flock(handle, fcntl.LOCK_EX)


def _umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask


def _unwritable(folder: Path, error: OSError | None) -> TrunklineError:
    reason = error.strerror if error is not None else "no permission"
    return TrunklineError(
        f"{folder} cannot be written to ({reason})", expected="a place with write permission", todo="Choose another"
    )
