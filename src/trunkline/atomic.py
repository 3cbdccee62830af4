"""Writing so that readers, crashes and other writers see the old content or the new, never a part."""

from __future__ import annotations

import os
import secrets
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO

from trunkline.errors import TrunklineError

LOCK = ".trunkline.lock"


def write_atomic(path: str | Path, content: str | bytes) -> None:
    """Writes a file whole or not at all.

    Args:
        path: Where to write; its folder is made if it is missing.
        content: Text, written as UTF-8 without changing line ends, or bytes.
    """
    with open_atomic(Path(path)) as stream:
        stream.write(content.encode("utf-8") if isinstance(content, str) else content)


@contextmanager
def open_atomic(target: Path) -> Iterator[IO[bytes]]:
    """A file to write to, which takes its name when the block ends; an error leaves what was there."""
    target.parent.mkdir(parents=True, exist_ok=True)
    temporary = _beside(target)
    try:
        with temporary.open("xb") as stream:
            yield stream
            stream.flush()
            os.fsync(stream.fileno())
        if target.exists():
            temporary.chmod(target.stat().st_mode & 0o777)
        temporary.replace(target)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise


@contextmanager
def new_folder(final: Path) -> Iterator[Path]:
    """A temporary folder beside `final` that takes its place when the block ends without an error.

    Raises:
        TrunklineError: The place is taken by something else than an empty folder, or cannot be written to.
    """
    check_free(final)
    temporary = _beside(final)
    try:
        temporary.mkdir(parents=True)
    except OSError as error:
        raise unwritable(final, error) from error
    try:
        yield temporary
        # Another process may have come first.
        check_free(final)
        try:
            if final.is_dir():
                final.rmdir()
            temporary.rename(final)
        except OSError as error:
            raise unwritable(final, error) from error
    except BaseException:
        shutil.rmtree(temporary, ignore_errors=True)
        raise


def check_free(folder: Path) -> None:
    """Raises TrunklineError unless a new folder can be written here: nothing there yet, or an empty folder.

    Asked before long work, so that nobody waits for a result that has no place.
    """
    folder = folder.absolute()
    try:
        there = folder.exists()
        taken = there and (not folder.is_dir() or any(folder.iterdir()))
        # A new folder takes the place of an empty one, which neither of these lets go.
        fixed = there and (folder.is_mount() or folder.samefile(Path.cwd()))
    except OSError as error:
        raise unwritable(folder, error) from error
    if taken:
        raise TrunklineError(
            f"{folder} {'has files already' if folder.is_dir() else 'is a file'}",
            expected="a new or empty folder",
            todo="Choose another folder, or remove this one",
        )
    if fixed:
        raise TrunklineError(
            f"{folder} is {'a mount point' if folder.is_mount() else 'the working directory'}",
            expected="a new or empty folder",
            todo=f"Choose a folder in it, such as {folder / 'bundle'}",
        )
    _try_writing(folder)


def check_writable(path: Path) -> None:
    """Raises TrunklineError unless a file can be written here; makes its folder."""
    try:
        other = path.exists() and not path.is_file()
    except OSError as error:
        raise unwritable(path, error) from error
    if other:
        raise TrunklineError(
            f"{path} is {'a folder' if path.is_dir() else 'no plain file'}", expected="a new or a plain file"
        )
    _try_writing(path)
    path.parent.mkdir(parents=True, exist_ok=True)


def _try_writing(path: Path) -> None:
    """Writes a file and removes it, in the nearest folder above that there is: rights alone do not tell everything."""
    try:
        there = path.absolute().parent
        while not there.exists():
            there = there.parent
        with tempfile.TemporaryFile(dir=there):
            pass
    except OSError as error:
        raise unwritable(path, error) from error


def _beside(path: Path) -> Path:
    # Made with the mode that the process's umask leaves, which files of `tempfile` have not.
    return path.parent / f".{path.name}.{secrets.token_hex(6)}.part"


@contextmanager
def locked(folder: Path) -> Iterator[None]:
    """Holds the lock of a folder, waiting for whoever holds it; the system frees it when a process dies.

    Raises:
        TrunklineError: The folder cannot be written to.
    """
    try:
        handle = os.open(folder / LOCK, os.O_RDWR | os.O_CREAT, 0o666)
    except OSError as error:
        raise unwritable(folder, error) from error
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


def unwritable(path: Path, error: OSError) -> TrunklineError:
    """The error for a place that cannot be written to."""
    return TrunklineError(
        f"{path} cannot be written to ({error.strerror or error})",
        expected="a place with write permission",
        todo="Choose another",
    )
