"""Where jobs run: in this process, or in several processes of this machine.

Only the process that asks for them writes results; workers send each cell back as soon as it is finished.
"""

from __future__ import annotations

import multiprocessing
import os
import signal
from collections import deque
from collections.abc import Generator, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from multiprocessing.connection import Connection, wait
from typing import Any

import torch

from trunkline.errors import TrainingError
from trunkline.training.loop import Interrupted
from trunkline_lab.benchmark.cells import Cell, Job
from trunkline_lab.benchmark.jobs import Outcome, failed, run_job

CORES_PER_WORKER = 2
_PATIENCE_S = 5.0


@dataclass(frozen=True)
class Workers:
    """How many processes work at once, and with how many threads each.

    Threads change the order of sums and so the last digits of features: numbers are identical, whatever the
    number of workers, as long as the threads are the same.
    """

    count: int
    threads: int


def workers_for(count: int | None = None, threads: int | None = None) -> Workers:
    """One worker for every two cores by default, as small matrices gain little from more threads."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    chosen = count or max(1, cores // CORES_PER_WORKER)
    return Workers(chosen, threads or max(1, cores // chosen))


def execute(jobs: Sequence[Job], workers: Workers) -> Generator[Outcome]:
    """Runs jobs and yields what becomes of their cells as soon as each is finished."""
    if workers.count > 1:
        yield from _in_processes(jobs, workers)
        return
    with limited_threads(workers.threads):
        for job in jobs:
            yield from run_job(job)


@dataclass
class _Worker:
    """A process, the other end of its pipe, and the cells that are left of its job."""

    process: Any
    connection: Connection
    left: tuple[Cell, ...] = ()


def _in_processes(jobs: Sequence[Job], workers: Workers) -> Iterator[Outcome]:
    waiting, crew = deque(jobs), list[_Worker]()
    try:
        while waiting or any(worker.left for worker in crew):
            while waiting and len(crew) < workers.count:
                crew.append(_start(workers.threads))
            for worker in crew:
                if not worker.left and waiting:
                    job = waiting.popleft()
                    worker.left = job.cells
                    worker.connection.send(job)
            busy = {worker.connection: worker for worker in crew if worker.left}
            for connection in wait(list(busy)):
                worker = busy[connection]  # type: ignore[index]
                try:
                    outcome = worker.connection.recv()
                except (EOFError, ConnectionResetError):
                    crew.remove(worker)
                    worker.process.join()
                    # The cell that it was at has failed; those behind it get another worker.
                    yield failed(worker.left[0], _death(worker.process.exitcode))
                    if worker.left[1:]:
                        waiting.appendleft(Job(worker.left[1:]))
                    continue
                worker.left = tuple(cell for cell in worker.left if cell.key != outcome.result.key)
                yield outcome
    finally:
        _stop(crew)


def _start(threads: int) -> _Worker:
    context = multiprocessing.get_context("spawn")
    ours, theirs = context.Pipe()
    process = context.Process(target=_serve, args=(theirs, threads), daemon=True)
    process.start()
    theirs.close()
    return _Worker(process, ours)


def _serve(connection: Connection, threads: int) -> None:
    """A worker: runs the jobs that it is sent until the other end is closed, or until it is told to stop."""
    # Ctrl-C reaches all processes of a terminal; the one that gave the jobs then stops this one.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        with limited_threads(threads):
            while True:
                for outcome in run_job(connection.recv()):
                    connection.send(outcome)
    except (EOFError, BrokenPipeError, ConnectionResetError, Interrupted):
        return


def _stop(crew: Sequence[_Worker]) -> None:
    for worker in crew:
        worker.connection.close()
        worker.process.terminate()
    for worker in crew:
        worker.process.join(_PATIENCE_S)
        if worker.process.is_alive():
            worker.process.kill()
            worker.process.join()


def _death(code: int | None) -> TrainingError:
    how = f"by signal {-code}" if code is not None and code < 0 else f"with exit code {code}"
    return TrainingError(
        f"the worker that ran this cell ended {how}",
        expected="memory for what all workers hold at once",
        todo="Run it again with fewer --workers",
    )


@contextmanager
def limited_threads(threads: int) -> Iterator[None]:
    """Computes with this many threads, torch and the libraries below numpy alike."""
    from threadpoolctl import threadpool_limits  # type: ignore[import-untyped]

    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    try:
        with threadpool_limits(limits=threads):
            yield
    finally:
        torch.set_num_threads(before)
