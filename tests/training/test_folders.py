"""Folders that are written whole or not at all: a fault or a SIGKILL at every single operation on the disk."""

from __future__ import annotations

import errno
import os
import resource
import shutil
import signal
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

import tiny_models
from trunkline.errors import TrunklineError
from trunkline.training import checkpoint
from trunkline.training.best import best_of, keep_best, load_best
from trunkline.training.checkpoint import checkpoints, load_checkpoint, save_checkpoint
from trunkline.training.ema import Ema
from trunkline.training.folders import find_folder, find_folders, tidy, write_folder

OPERATIONS: list[tuple[Any, str]] = [
    (checkpoint, "save_file"),
    (os, "fsync"),
    (os, "unlink"),
    (os, "rmdir"),
    (tempfile, "mkstemp"),
    (Path, "mkdir"),
    (Path, "rename"),
    (Path, "replace"),
]
"""What touches the disk while a checkpoint is written, the removal of what is old included."""


class Training:
    """A module with its optimizer and average after some steps."""

    def __init__(self, steps: int) -> None:
        torch.manual_seed(5)
        self.module = nn.Sequential(nn.Linear(3, 4), nn.Linear(4, 1))
        self.optimizer = torch.optim.AdamW(self.module.parameters(), lr=0.1)
        self.ema = Ema(self.module, 0.9)
        for _ in range(steps):
            self.optimizer.zero_grad()
            self.module(torch.randn(5, 3)).square().mean().backward()
            self.optimizer.step()
            self.ema.update()

    def save(self, folder: Path, step: int, keep: int = 2) -> Path:
        return save_checkpoint(folder, step, self.module, self.optimizer, {}, keep, self.ema)

    def bits(self) -> dict[str, torch.Tensor]:
        return {**self.module.state_dict(), **{f"ema {name}": part for name, part in self.ema.state().items()}}


def loaded(path: Path) -> tuple[int, dict[str, torch.Tensor]]:
    """The step of a checkpoint and everything that it restores."""
    training = Training(0)
    step, _ = load_checkpoint(path, training.module, training.optimizer, training.ema)
    return step, {name: tensor.clone() for name, tensor in training.bits().items()}


@contextmanager
def acting_at(number: int, act: Callable[[], None], *, stays: bool = False) -> Iterator[list[int]]:
    """Calls `act` instead of the operation of this number (from 1), and of all later ones if it `stays`."""
    done = [0]
    with pytest.MonkeyPatch.context() as patch:
        for owner, name in OPERATIONS:
            original = getattr(owner, name)

            def operation(*args: Any, original: Any = original, **options: Any) -> Any:
                done[0] += 1
                if done[0] == number or (stays and done[0] > number):
                    act()
                return original(*args, **options)

            patch.setattr(owner, name, operation)
        yield done


@pytest.fixture(autouse=True)
def _no_waiting(monkeypatch: pytest.MonkeyPatch) -> None:
    """Calls to bring things to the disk are counted, and need not be waited for."""
    monkeypatch.setattr(os, "fsync", lambda handle: None)


@pytest.fixture(scope="module")
def two_steps(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the checkpoints of steps 1 and 2; treat it as read-only."""
    folder = tmp_path_factory.mktemp("two")
    for step in (1, 2):
        Training(step).save(folder, step)
    return folder


def no_space() -> None:
    raise OSError(errno.ENOSPC, "No space left on device")


def kill() -> None:
    os.kill(os.getpid(), signal.SIGKILL)


@pytest.mark.parametrize("stays", [False, True], ids=["once", "from then on"])
@pytest.mark.parametrize("step", [2, 3], ids=["replacing a step", "a new step"])
def test_a_full_disk_at_any_point_of_writing_leaves_what_was_there(
    step: int, stays: bool, two_steps: Path, tmp_path: Path
) -> None:
    before, after = Training(2), Training(3)
    failed, number = 0, 0
    while True:
        number += 1
        folder = tmp_path / str(number)
        shutil.copytree(two_steps, folder)
        with acting_at(number, no_space, stays=stays) as done:
            try:
                after.save(folder, step)
            except TrunklineError as error:
                failed += 1
                text = str(error)
                assert str(folder) in text
                assert "No space left" in text
                assert "Free some space" in text
        found = checkpoints(folder)
        saved, bits = loaded(found[-1])
        assert (saved == 2 and tiny_models.same_bits(bits, before.bits())) or (
            saved == step and tiny_models.same_bits(bits, after.bits())
        )
        # The one before the last is as good as it ever was, and what rotation could not remove is no harm.
        assert 2 <= len(found) <= 3
        assert [loaded(path)[0] for path in found] in ([1, 2], [2, 3], [1, 2, 3])
        if not stays:
            assert not list(folder.glob(".writing-*"))
        if done[0] < number:
            break
    assert failed >= 8, "few operations failed; are they still those that write?"


@pytest.mark.parametrize("step", [2, 3], ids=["replacing a step", "a new step"])
def test_a_sigkill_at_any_point_of_writing_leaves_a_complete_checkpoint(
    step: int, two_steps: Path, tmp_path: Path
) -> None:
    before, after = Training(2), Training(3)
    killed, number = 0, 0
    while True:
        number += 1
        folder = tmp_path / str(number)
        shutil.copytree(two_steps, folder)
        child = os.fork()
        if child == 0:
            with acting_at(number, kill):
                after.save(folder, step)
            os._exit(0)
        status = os.waitpid(child, 0)[1]
        found = checkpoints(folder)
        assert 2 <= len(found) <= 3
        saved, bits = loaded(found[-1])
        wanted = before if status and tiny_models.same_bits(bits, before.bits()) else after
        assert saved == (2 if wanted is before else step)
        assert tiny_models.same_bits(bits, wanted.bits())
        assert all(loaded(path) for path in found)
        after.save(folder, 4)
        assert {path.name for path in folder.iterdir()} == {f"step-{max(saved, 2):08d}", "step-00000004"}
        if not status:
            break
        assert os.WTERMSIG(status) == signal.SIGKILL
        killed += 1
    assert killed >= 12


@pytest.mark.parametrize("limit", [0, 200, 900])
def test_a_disk_that_takes_no_more_bytes_keeps_the_last_checkpoint(limit: int, tmp_path: Path) -> None:
    before = Training(2)
    before.save(tmp_path, 2)
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (limit, hard))
    try:
        with pytest.raises(TrunklineError, match=r"step-00000003 could not be written.*earlier checkpoints are intact"):
            Training(3).save(tmp_path, 3)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert [path.name for path in tmp_path.iterdir()] == ["step-00000002"]
    assert tiny_models.same_bits(loaded(tmp_path / "step-00000002")[1], before.bits())


def test_a_full_disk_at_any_point_keeps_the_best_one_before(tmp_path: Path) -> None:
    rules, number = {"ner": "dev/ner/f"}, 0
    first, better = Training(1).module, Training(4).module
    while True:
        number += 1
        folder = tmp_path / str(number)
        keep_best(folder, rules, 1, {"dev/ner/f": 0.5}, first)
        with acting_at(number, no_space) as done, pytest.MonkeyPatch.context() as patch:
            patch.setattr("trunkline.training.best.save_module", checkpoint.save_module)
            try:
                keep_best(folder, rules, 2, {"dev/ner/f": 0.75}, better)
            except TrunklineError as error:
                assert "best-ner could not be written" in str(error)
        held, module = best_of(folder, "ner"), Training(0).module
        assert held is not None
        load_best(folder, "ner", module)
        assert tiny_models.same_bits(module.state_dict(), (first if held["step"] == 1 else better).state_dict())
        if done[0] < number:
            break
    assert held["step"] == 2
    assert number > 6


def test_every_file_and_the_folder_are_brought_to_the_disk_before_the_name_is_given(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    events: list[str] = []
    rename = Path.rename

    def fsync(handle: int) -> None:
        events.append(Path(f"/proc/self/fd/{handle}").readlink().name)

    monkeypatch.setattr(os, "fsync", fsync)
    monkeypatch.setattr(Path, "rename", lambda self, to: (events.append(f"-> {Path(to).name}"), rename(self, to))[1])
    write_folder(tmp_path / "done", lambda path: [(path / name).write_text(name) for name in "ab"])
    assert sorted(events[:2]) == ["a", "b"]
    assert events[2:] == [".writing-done", "-> done", tmp_path.name]


def test_what_is_set_aside_is_found_until_its_successor_is_there(tmp_path: Path) -> None:
    for name in ("step-1", "step-2"):
        write_folder(tmp_path / name, lambda path: (path / "f").write_text("old"))
    (tmp_path / "step-2").rename(tmp_path / ".replaced-step-2")
    assert find_folders(tmp_path, "step-") == [tmp_path / "step-1", tmp_path / ".replaced-step-2"]
    assert find_folder(tmp_path / "step-3") == tmp_path / "step-3"
    tidy(tmp_path)
    assert find_folders(tmp_path, "step-") == [tmp_path / "step-1", tmp_path / "step-2"]
    shutil.copytree(tmp_path / "step-1", tmp_path / ".replaced-step-1")
    tidy(tmp_path)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["step-1", "step-2"]
