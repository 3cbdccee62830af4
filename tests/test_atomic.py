"""Writing whole or not at all: what fails leaves the old content and nothing beside it."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

import crashes
from trunkline.bundle.edit import new_folder
from trunkline.bundle.files import check_writable, locked, write_atomic
from trunkline.errors import TrunklineError


def test_a_failed_write_keeps_the_old_file_and_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_atomic(tmp_path / "deep" / "file", "old\r\nü")
    assert (tmp_path / "deep" / "file").read_bytes() == "old\r\nü".encode()

    def full(descriptor: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError, match="No space"):
        write_atomic(tmp_path / "deep" / "file", b"new")
    assert (tmp_path / "deep" / "file").read_bytes() == "old\r\nü".encode()
    assert [path.name for path in (tmp_path / "deep").iterdir()] == ["file"]


def test_killed_at_any_moment_it_is_the_old_content_or_the_new(tmp_path: Path) -> None:
    path, seen = tmp_path / "file", set()
    for _ in crashes.killed_everywhere(lambda: path.write_bytes(b"old"), lambda: write_atomic(path, b"new" * 1000)):
        seen.add(path.read_bytes())
    assert seen == {b"old", b"new" * 1000}


def test_a_folder_that_fails_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(RuntimeError), new_folder(tmp_path / "a" / "b") as work:
        (work / "half").write_text("x")
        raise RuntimeError
    assert not list((tmp_path / "a").iterdir())


def test_of_two_that_write_one_folder_the_second_is_refused_and_the_first_stays(tmp_path: Path) -> None:
    with pytest.raises(TrunklineError, match="has files already"), new_folder(tmp_path / "x") as second:
        (second / "file").write_text("second")
        with new_folder(tmp_path / "x") as first:
            (first / "file").write_text("first")
    assert (tmp_path / "x" / "file").read_text() == "first"
    assert [path.name for path in tmp_path.iterdir()] == ["x"]


def test_an_empty_folder_is_taken(tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    with new_folder(tmp_path / "empty") as work:
        (work / "file").write_text("x")
    assert (tmp_path / "empty" / "file").read_text() == "x"


@pytest.mark.parametrize("place", ["file/x", "/proc/nowhere", "folder", "pipe", "x" * 300])
def test_places_for_files_that_are_none_are_refused(place: str, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("mine")
    (tmp_path / "folder").mkdir()
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(TrunklineError, match=r"cannot be written to|is a folder|no plain file"):
        check_writable(tmp_path / place)
    check_writable(tmp_path / "new" / "file")
    check_writable(tmp_path / "file")
    assert (tmp_path / "file").read_text() == "mine"
    assert not list((tmp_path / "new").iterdir())


def test_a_lock_waits_and_goes_with_its_process(tmp_path: Path) -> None:
    script = f"""
import sys, time
from pathlib import Path
from trunkline.bundle.files import locked
with locked(Path({str(tmp_path)!r})):
    print("held", flush=True)
    time.sleep(60)
"""
    holder: subprocess.Popen[Any] = subprocess.Popen([sys.executable, "-c", script], stdout=subprocess.PIPE, text=True)
    assert holder.stdout is not None
    assert holder.stdout.readline() == "held\n"
    waiter = subprocess.Popen(
        [sys.executable, "-c", script.replace("time.sleep(60)", "pass")], stdout=subprocess.PIPE, text=True
    )
    time.sleep(1.0)
    assert waiter.poll() is None, "it waits"
    holder.kill()
    out, _ = waiter.communicate(timeout=30)
    assert out == "held\n"
    holder.communicate()
    with locked(tmp_path):
        pass
    with pytest.raises(TrunklineError, match="cannot be written to"), locked(tmp_path / "missing"):
        pass
