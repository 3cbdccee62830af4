"""Executors: the same numbers wherever jobs run, and a worker that dies costs one cell."""

from __future__ import annotations

import multiprocessing
import os
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import tiny_suites
import torch

from trunkline_lab.benchmark.cells import Job, group_jobs
from trunkline_lab.benchmark.executors import Workers, execute, limited_threads, workers_for
from trunkline_lab.benchmark.results import Result
from trunkline_lab.benchmark.run import RunOptions, list_cells, run_suite

Tasks = dict[str, Path]
Folder = Callable[[str], Path]


def numbers(results: list[Result]) -> list[tuple[object, ...]]:
    return sorted((r.key, str(r.dev), str(r.test), str(r.counts), r.n_train, r.n_bytes, r.error) for r in results)


def test_a_worker_for_every_two_cores_and_all_cores_are_shared(monkeypatch: pytest.MonkeyPatch) -> None:
    for cores, expected in ((1, Workers(1, 1)), (2, Workers(1, 2)), (3, Workers(1, 3)), (16, Workers(8, 2))):
        monkeypatch.setattr(os, "sched_getaffinity", lambda pid, cores=cores: set(range(cores)))
        assert workers_for() == expected
    assert workers_for(4) == Workers(4, 4)
    assert workers_for(32) == Workers(32, 1)
    assert workers_for(2, 3) == Workers(2, 3)


def test_threads_are_limited_and_given_back() -> None:
    from threadpoolctl import threadpool_info

    before = torch.get_num_threads()
    with limited_threads(3):
        assert torch.get_num_threads() == 3
        assert {pool["num_threads"] for pool in threadpool_info() if pool["user_api"] == "blas"} <= {3}
    assert torch.get_num_threads() == before


def test_outcomes_of_one_process_come_in_order(tasks: Tasks, tiny_folder: Folder) -> None:
    jobs = group_jobs(list_cells(tiny_suites.suite(tiny_folder("bert"), tasks)))
    found = [outcome.result.key for outcome in execute(jobs, Workers(1, 1))]
    assert found == [cell.key for job in jobs for cell in job.cells]


@pytest.mark.slow
def test_processes_give_the_same_numbers_as_one(tasks: Tasks, tiny_folder: Folder, tmp_path: Path) -> None:
    recipe = tiny_suites.suite(tiny_folder("bert"), tasks, methods=["head", "lora"], seeds=[0, 1])
    one = run_suite(recipe, tmp_path / "one", RunOptions(workers=1, threads=1))
    two = run_suite(recipe, tmp_path / "two", RunOptions(workers=2, threads=1))
    assert numbers(list(two.results)) == numbers(list(one.results))
    assert not one.failures
    assert not multiprocessing.active_children()


class Bomb:
    """Ends the process that is sent it."""

    def __reduce__(self) -> tuple[Any, ...]:
        return os._exit, (3,)


def with_bomb(job: Job) -> Job:
    return Job((replace(job.cells[0], identity={"card": Bomb()}), *job.cells[1:]))


@pytest.mark.slow
def test_a_worker_that_dies_costs_the_cell_that_it_was_at(tasks: Tasks, tiny_folder: Folder) -> None:
    jobs = group_jobs(list_cells(tiny_suites.suite(tiny_folder("bert"), tasks, seeds=[0, 1])))
    found = [outcome.result for outcome in execute([with_bomb(jobs[0]), *jobs[1:]], Workers(2, 1))]
    assert sorted(result.key for result in found) == sorted(cell.key for job in jobs for cell in job.cells)
    (failure,) = (result for result in found if result.error)
    assert failure.key == jobs[0].cells[0].key
    assert "ended with exit code 3" in failure.error
    assert "--workers" in failure.error
    assert not multiprocessing.active_children()


@pytest.mark.slow
def test_workers_end_when_the_run_is_broken_off(tasks: Tasks, tiny_folder: Folder) -> None:
    jobs = group_jobs(list_cells(tiny_suites.suite(tiny_folder("bert"), tasks)))
    outcomes = execute(jobs, Workers(2, 1))
    next(outcomes)
    assert multiprocessing.active_children()
    outcomes.close()
    assert not multiprocessing.active_children()
