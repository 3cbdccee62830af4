"""Folders that are there whole or not at all: a crash, a full disk or a power cut leaves the one that was there before.

A folder is written under another name, brought to the disk and renamed. One that it replaces is set aside first and
removed last, so that at every moment one of the two is complete.
"""

from __future__ import annotations

import errno
import os
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from safetensors import SafetensorError

from trunkline.errors import TrunklineError

_WRITING, _ASIDE, _REMOVING = ".writing-", ".replaced-", ".removing-"


def write_folder(final: Path, write: Callable[[Path], None]) -> Path:
    """Writes a folder of files, or replaces it.

    Args:
        final: Its name; its parent is made if it is missing. One process at a time writes into a parent.
        write: Gets an empty folder to write the files into.

    Returns:
        `final`.

    Raises:
        OSError: As it came; what was under `final` is there as before, and nothing half-written stays.
    """
    parent = final.parent
    parent.mkdir(parents=True, exist_ok=True)
    tidy(parent)
    temporary = parent / (_WRITING + final.name)
    try:
        temporary.mkdir()
        write(temporary)
        for file in temporary.iterdir():
            _sync(file)
        _sync(temporary)
        _rename(temporary, final)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
    return final


def remove_folder(path: Path) -> None:
    """Removes a folder; while its files go one by one it does not carry its name any more."""
    going = path.with_name(_REMOVING + path.name)
    path.rename(going)
    shutil.rmtree(going, ignore_errors=True)


def find_folder(path: Path) -> Path:
    """Where the content of a folder is: under its name, or set aside where a crash kept its successor from coming."""
    aside = path.with_name(_ASIDE + path.name)
    return path if path.exists() or not aside.exists() else aside


def find_folders(parent: Path, prefix: str) -> list[Path]:
    """The folders whose name begins with a prefix, by name, each as `find_folder` finds it."""
    names = {
        item.name.removeprefix(_ASIDE) for item in (*parent.glob(f"{prefix}*"), *parent.glob(f"{_ASIDE}{prefix}*"))
    }
    return [find_folder(parent / name) for name in sorted(names)]


def tidy(parent: Path) -> None:
    """Clears away what crashes left, and puts a folder back that was set aside for a successor that never came."""
    for half in (*parent.glob(f"{_WRITING}*"), *parent.glob(f"{_REMOVING}*")):
        shutil.rmtree(half, ignore_errors=True)
    for aside in parent.glob(f"{_ASIDE}*"):
        final = parent / aside.name.removeprefix(_ASIDE)
        if final.exists():
            shutil.rmtree(aside, ignore_errors=True)
        else:
            aside.rename(final)


@contextmanager
def write_errors(path: Path, kept: str) -> Iterator[None]:
    """Turns what the system says when a disk is full or read-only into an error that the user can act on.

    Args:
        path: What is being written.
        kept: What is intact all the same, such as `earlier checkpoints are intact`.

    Raises:
        TrunklineError: In place of an OSError or a SafetensorError.
    """
    try:
        yield
    except (OSError, SafetensorError) as error:
        raise TrunklineError(
            f"{path} could not be written ({error}); {kept}",
            todo=f"Free some space in {path.parent} and run the same command again, to go on from the last checkpoint",
        ) from error


def _rename(temporary: Path, final: Path) -> None:
    aside = final.with_name(_ASIDE + final.name)
    replaces = final.exists()
    if replaces:
        final.rename(aside)
    try:
        temporary.rename(final)
        _sync(final.parent)
    except OSError:
        if replaces and not final.exists():
            aside.rename(final)
        raise
    if replaces:
        shutil.rmtree(aside, ignore_errors=True)


def _sync(path: Path) -> None:
    """Brings a file, or the names in a folder, to the disk, so that a power cut does not leave them empty."""
    if not path.is_dir():
        with path.open("rb+") as file:
            os.fsync(file.fileno())
    elif os.name == "posix":  # elsewhere a folder cannot be opened
        handle = os.open(path, os.O_RDONLY)
        try:
            os.fsync(handle)
        except OSError as error:
            if error.errno != errno.EINVAL:  # a file system that knows no such thing, as some in networks
                raise
        finally:
            os.close(handle)
