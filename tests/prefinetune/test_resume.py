"""Runs that are killed again and again: they end as one that was never disturbed, down to the last bit."""

from __future__ import annotations

import multiprocessing
import os
import random
import signal
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import tiny_models
from trunkline.prefinetune import Report, prefinetune
from trunkline.training import read_rows
from trunkline.training.checkpoint import checkpoints

Folders = Callable[[str], Path]
CHANGES: dict[str, Any] = {
    "optimizer": {"steps": 80},
    "checkpoint": {"every": 1, "keep": 2},
    "monitor": {"every": 7, "log_every": 1},
}


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("data")


@pytest.fixture(scope="module")
def reference(tiny_folder: Folders, data: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a run that was never stopped."""
    folder = tmp_path_factory.mktemp("reference") / "run"
    prefinetune(tiny_models.recipe_of(tiny_folder("bert"), data, **CHANGES), folder)
    return folder


def train(encoder: str, data: str, folder: str, cache: str) -> None:
    """What a process that is going to be killed does."""
    import torch

    torch.set_num_threads(1)
    os.environ["TRUNKLINE_CACHE"] = cache
    prefinetune(tiny_models.recipe_of(Path(encoder), Path(data), **CHANGES), Path(folder))


def last_step(folder: Path) -> int:
    found = checkpoints(folder / "checkpoints")
    return int(found[-1].stem.rpartition("-")[2]) if found else 0


def kill_one(arguments: tuple[str, str, str, str], *, started: bool) -> bool:
    """Starts the run and kills it at a random moment, after its next checkpoint or anywhere from its very start on.

    Returns:
        Whether it was killed; it may have been done before.
    """
    # A server that has everything imported forks each process, which takes a fraction of starting one anew.
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload([__name__])
    folder = Path(arguments[2])
    before = last_step(folder)
    process = context.Process(target=train, args=arguments)
    process.start()
    until = time.monotonic() + 120
    while not started and process.is_alive() and time.monotonic() < until and last_step(folder) == before:
        time.sleep(0.002)
    # Without a seed on purpose: another moment of a step, a measurement or a write each time.
    time.sleep(random.SystemRandom().uniform(0, 1.0 if started else 0.1))
    process.kill()
    process.join(30)
    return process.exitcode == -signal.SIGKILL


def content(folder: Path) -> dict[str, Any]:
    """All that a run leaves, but for times: tensors of bundle, last checkpoints and best ones, and the log's rows."""
    rows = read_rows(folder / "metrics.jsonl")
    return {
        "rows": [{key: value for key, value in row.items() if key != "seconds_per_step"} for row in rows],
        "names": [path.name for path in checkpoints(folder / "checkpoints")],
    }


@pytest.mark.parametrize("kills", [3, pytest.param(20, marks=pytest.mark.slow)])
def test_a_run_that_is_killed_again_and_again_ends_like_one_that_was_not(
    kills: int, tiny_folder: Folders, data: Path, reference: Path, tmp_path: Path
) -> None:
    run = tmp_path / "run"
    arguments = (str(tiny_folder("bert")), str(data), str(run), os.environ["TRUNKLINE_CACHE"])
    killed = 0
    for number in range(kills):
        before = last_step(run)
        killed += kill_one(arguments, started=number % 4 == 3)
        assert last_step(run) >= before, "no step that was saved is ever lost"
    assert killed == kills, "the run ended before all kills; make it longer"
    assert not (run / "bundle" / "manifest.json").exists()
    reached, said = last_step(run), []
    prefinetune(tiny_models.recipe_of(tiny_folder("bert"), data, **CHANGES), run, Report(say=said.append))
    assert f"going on after step {reached}" in said
    assert content(run) == content(reference)
    for part in ("bundle", "checkpoints"):
        tensors = [tiny_models.bundle_tensors(folder / part) for folder in (run, reference)]
        assert tiny_models.same_bits(*tensors)
    left = {path.name.split("-")[0] for path in (run / "checkpoints").iterdir()}
    assert left == {"step"}, "nothing half-written stays"
