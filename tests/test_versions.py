"""What a result depends on: versions, the state of a repository, the machine."""

from __future__ import annotations

import os
import platform
import shutil
import subprocess
from pathlib import Path

import pytest

from trunkline.versions import git_state, hardware, used, versions


def git(folder: Path, *arguments: str) -> str:
    identity = ["-c", "user.name=a", "-c", "user.email=a@example.org", "-c", "commit.gpgsign=false"]
    done = subprocess.run(["git", *identity, "-C", str(folder), *arguments], capture_output=True, text=True, check=True)
    return done.stdout.strip()


@pytest.fixture
def repository(tmp_path: Path) -> Path:
    if shutil.which("git") is None:
        pytest.skip("git is not installed")
    git(tmp_path, "init", "-q")
    return tmp_path


def test_a_repositorys_commit_and_changes_are_told(repository: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert git_state(repository) == {"commit": None, "dirty": False}
    (repository / "a").write_text("a")
    assert git_state(repository) == {"commit": None, "dirty": True}
    git(repository, "add", "a")
    git(repository, "commit", "-q", "-m", "a")
    (repository / "inner").mkdir()
    monkeypatch.chdir(repository / "inner")
    assert git_state() == {"commit": git(repository, "rev-parse", "HEAD"), "dirty": False}
    (repository / "a").write_text("b")
    assert git_state() == {"commit": git(repository, "rev-parse", "HEAD"), "dirty": True}


def test_where_there_is_no_repository_no_git_or_no_answer_there_is_no_state_and_no_error(
    repository: Path, tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("GIT_CEILING_DIRECTORIES", str(tmp_path_factory.getbasetemp()))
    assert git_state(tmp_path_factory.mktemp("none")) is None
    assert git_state(repository / "gone") is None
    binaries = tmp_path_factory.mktemp("bin")
    (binaries / "git").write_text("#!/bin/sh\nexec /bin/sleep 20\n")
    (binaries / "git").chmod(0o755)
    monkeypatch.setattr("trunkline.versions._GIT_TIMEOUT_S", 0.1)
    monkeypatch.setenv("PATH", str(binaries))
    assert git_state(repository) is None
    (binaries / "git").unlink()
    assert git_state(repository) is None


def test_the_machine_is_described() -> None:
    found = hardware()
    assert 1 <= found["cores"] <= (os.cpu_count() or 1)
    assert found["system"].startswith(platform.system())
    assert found["memory_bytes"] is None or found["memory_bytes"] > 2**27
    assert all(isinstance(name, str) for name in found["accelerators"])
    assert versions()["python"] == platform.python_version()


def test_what_nobody_used_for_long_leaves_the_cache(tmp_path: Path) -> None:
    old, new, mine = (tmp_path / name for name in ("old", "new", "mine"))
    for folder in (old, new, mine):
        folder.mkdir()
        (folder / "file").write_text("x")
    for folder in (old, mine):
        os.utime(folder, (0, 0))
    assert used(mine) == mine
    assert sorted(path.name for path in tmp_path.iterdir()) == ["mine", "new"]
    assert used(tmp_path / "missing") == tmp_path / "missing"
