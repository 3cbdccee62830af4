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
class Event:
    """A job has begun (no outcome), has finished a cell, or has ended (no outcome, `ended`)."""

    job: Job
    outcome: Outcome | None = None
    ended: bool = False


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


def execute(jobs: Sequence[Job], workers: Workers) -> Generator[Event]:
    """Runs jobs and yields what happens, in the order in which it happens."""
    if workers.count == 1:
        with limited_threads(workers.threads):
            for job in jobs:
                yield Event(job)
                for outcome in run_job(job):
                    yield Event(job, outcome)
                yield Event(job, ended=True)
    else:
        yield from _in_processes(jobs, workers)


@dataclass
class _Worker:
    process: Any
    connection: Connection
    job: Job | None = None
    left: tuple[Cell, ...] = ()

    def give(self, job: Job) -> None:
        self.job, self.left = job, job.cells
        self.connection.send(job)

    def finished(self, key: str) -> None:
        self.left = tuple(cell for cell in self.left if cell.key != key)


def _in_processes(jobs: Sequence[Job], workers: Workers) -> Iterator[Event]:
    waiting, crew = deque(jobs), list[_Worker]()
    try:
        while waiting or any(worker.job for worker in crew):
            while waiting and len(crew) < workers.count:
                crew.append(_start(workers.threads))
            for worker in crew:
                if worker.job is None and waiting:
                    worker.give(waiting.popleft())
                    yield Event(_job_of(worker))
            busy = {worker.connection: worker for worker in crew if worker.job}
            for connection in wait(list(busy)):
                worker = busy[connection]  # type: ignore[index]
                job = _job_of(worker)
                try:
                    message = worker.connection.recv()
                except (EOFError, ConnectionResetError):
                    crew.remove(worker)
                    worker.process.join()
                    # The cell that it was at has failed; those behind it get another worker.
                    yield Event(job, failed(worker.left[0], _death(worker.process.exitcode)))
                    yield Event(job, ended=True)
                    if worker.left[1:]:
                        waiting.appendleft(Job(worker.left[1:]))
                    continue
                if message is None:
                    worker.job = None
                    yield Event(job, ended=True)
                else:
                    worker.finished(message.result.key)
                    yield Event(job, message)
    finally:
        _stop(crew)


def _job_of(worker: _Worker) -> Job:
    return worker.job or Job(())


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
                connection.send(None)
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
