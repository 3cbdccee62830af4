"""Where jobs run: in this process, in several processes of this machine, or on a Ray cluster.

Only the process that asks for them writes results; workers send each cell back as soon as it is finished.
"""

from __future__ import annotations

import importlib
import importlib.util
import multiprocessing
import os
import signal
from collections import deque
from collections.abc import Generator, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from multiprocessing.connection import Connection, wait
from pathlib import Path
from typing import Any, Literal

import torch

from trunkline.errors import TrainingError, TrunklineError
from trunkline.training.loop import Interrupted
from trunkline_lab.benchmark.cells import Cell, Job
from trunkline_lab.benchmark.jobs import Outcome, failed, run_job
from trunkline_lab.data.cards import DATA_VARIABLE, data_folder

Executor = Literal["local", "ray"]
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

    Threads change the order of sums and so the last digits of features: numbers are identical, whatever the executor
    and the number of workers, as long as the threads are the same.
    """

    count: int
    threads: int


def workers_for(count: int | None = None, threads: int | None = None) -> Workers:
    """One worker for every two cores by default, as small matrices gain little from more threads."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    chosen = count or max(1, cores // CORES_PER_WORKER)
    return Workers(chosen, threads or max(1, cores // chosen))


def execute(jobs: Sequence[Job], executor: Executor, workers: Workers) -> Generator[Event]:
    """Runs jobs and yields what happens, in the order in which it happens.

    Raises:
        TrunklineError: Ray is asked for and not installed.
    """
    if executor == "ray":
        yield from _on_ray(jobs, workers)
    elif workers.count == 1:
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


def _on_ray(jobs: Sequence[Job], workers: Workers) -> Iterator[Event]:
    if importlib.util.find_spec("ray") is None:
        raise TrunklineError(
            "the executor ray needs the package ray, which is not installed",
            expected="ray, or the executor local",
            todo="`pip install 'trunkline[ray]'`, or leave --executor out",
        )
    ray = importlib.import_module("ray")
    ours = not ray.is_initialized()
    if ours:
        address = os.environ.get("RAY_ADDRESS")
        here: dict[str, Any] = {} if address else {"num_cpus": workers.count * workers.threads}
        variables = {DATA_VARIABLE: str(data_folder().resolve()), "PYTHONPATH": str(Path(__file__).parents[2])}
        ray.init(
            address=address, include_dashboard=False, log_to_driver=False, runtime_env={"env_vars": variables}, **here
        )
    try:
        yield from _ray_events(ray, jobs, workers.threads)
    finally:
        if ours:
            ray.shutdown()


def _ray_events(ray: Any, jobs: Sequence[Job], threads: int) -> Iterator[Event]:
    # Each job streams its cells back, so that a job that dies loses only the cell that it was at.
    remote = ray.remote(num_cpus=threads, num_returns="streaming", max_retries=0)(_run_remotely)
    running = {remote.remote(job, threads): job for job in jobs}
    left = {id(job): job.cells for job in jobs}
    while running:
        ready, _ = ray.wait(list(running), num_returns=1)
        stream = ready[0]
        job = running[stream]
        try:
            outcome = ray.get(next(stream))
        except StopIteration:
            running.pop(stream)
            yield Event(job, ended=True)
            continue
        except ray.exceptions.RayError as error:
            running.pop(stream)
            for cell in left[id(job)]:
                yield Event(job, failed(cell, TrainingError(f"the Ray task of this cell ended: {_first_line(error)}")))
            yield Event(job, ended=True)
            continue
        if len(left[id(job)]) == len(job.cells):
            yield Event(job)
        left[id(job)] = tuple(cell for cell in left[id(job)] if cell.key != outcome.result.key)
        yield Event(job, outcome)


def _run_remotely(job: Job, threads: int) -> Iterator[Outcome]:
    with limited_threads(threads):
        yield from run_job(job)


def _first_line(error: BaseException) -> str:
    return (str(error).strip() or type(error).__name__).splitlines()[0]


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
