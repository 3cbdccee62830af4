"""Cases that are measured side by side: a process for each, repeats in turn, ratios paired by repeat."""

from __future__ import annotations

import json
import os
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, Protocol

QUIET = {"TOKENIZERS_PARALLELISM": "false", "HF_HUB_DISABLE_TELEMETRY": "1"}


class Missing(Exception):
    """A case cannot run here; the text says why."""


class WorkerProcess:
    """A process that measures a case whenever it is told to, and answers in lines of JSON.

    Args:
        name: The case's, for errors.
        program: The module that Python runs.
        request: What it is told at its start, as JSON.
        env: Beside this process's environment.
        alone: Whether it gets a session of its own, which has its own share of a busy machine.
    """

    def __init__(self, name: str, program: str, request: Any, env: Mapping[str, str], *, alone: bool = False) -> None:
        self.name = name
        self._log = tempfile.TemporaryFile("w+", encoding="utf-8", errors="replace")  # noqa: SIM115 (closed in `close`)
        self._process = subprocess.Popen(
            [sys.executable, "-m", program, "--worker", json.dumps(request)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._log,
            text=True,
            env={**os.environ, **QUIET, **env},
            start_new_session=alone,
        )

    def go(self) -> None:
        """Has it measure once."""
        assert self._process.stdin is not None
        try:
            self._process.stdin.write("go\n")
            self._process.stdin.flush()
        except BrokenPipeError:
            self.fail()

    def messages(self) -> Iterator[dict[str, Any]]:
        """What it answers; its end is an error, as long as anything is waited for."""
        assert self._process.stdout is not None
        for line in self._process.stdout:
            yield json.loads(line)
        self.fail()

    def close(self) -> list[dict[str, Any]]:
        """Ends it; returns what it says at last."""
        assert self._process.stdin is not None and self._process.stdout is not None
        self._process.stdin.close()
        last = [json.loads(line) for line in self._process.stdout]
        if self._process.wait():
            self.fail()
        self._log.close()
        return last

    def fail(self) -> None:
        """Ends the run with what the process wrote last.

        Raises:
            SystemExit: Always.
        """
        self._process.wait()
        self._log.seek(0)
        tail = "".join(self._log.readlines()[-25:])
        raise SystemExit(f"{self.name} ended with code {self._process.returncode}:\n{tail}")


class Worker(Protocol):
    """A case at work."""

    name: str
    repeats: int
    result: dict[str, Any]

    def ready(self) -> bool:
        """Waits until it can measure; false where it cannot here, which `result["missing"]` says."""

    def repeat(self) -> None:
        """Has it measured once, and keeps what it found."""

    def close(self) -> None:
        """Ends it."""


def take_turns(starts: Sequence[Callable[[], Worker]], say: Callable[[str], None]) -> dict[str, dict[str, Any]]:
    """Measures all cases, repeat by repeat in turn, each round in the other direction than the last.

    Returns:
        The workers' results by name.
    """
    workers: list[Worker] = []
    ready: list[Worker] = []
    try:
        # One after the other, so that loading disturbs no warm-up.
        for start in starts:
            workers.append(start())
            if workers[-1].ready():
                ready.append(workers[-1])
            else:
                say(f"{workers[-1].name}: left out, {workers[-1].result['missing']}")
        for number in range(max((worker.repeats for worker in ready), default=0)):
            say(f"repeat {number + 1}")
            for worker in ready if number % 2 == 0 else reversed(ready):
                if number < worker.repeats:
                    worker.repeat()
    finally:
        for worker in workers:
            worker.close()
    return {worker.name: worker.result for worker in workers}


def summary(values: Sequence[float]) -> dict[str, float]:
    """Median, quartiles and extremes."""
    low, high = (values[0],) * 2 if len(values) < 2 else _quartiles(values)
    return {
        "median": statistics.median(values),
        "lower_quartile": low,
        "upper_quartile": high,
        "least": min(values),
        "most": max(values),
    }


def _quartiles(values: Sequence[float]) -> tuple[float, float]:
    found = statistics.quantiles(values, n=4, method="inclusive")
    return found[0], found[2]


def judged(values: Sequence[float], at_least: float | None, at_most: float | None) -> dict[str, Any]:
    """`summary` of a ratio over repeats, with what is asked of its median and whether it is met."""
    found = summary(values)
    met = None
    if at_least is not None:
        met = found["median"] >= at_least
    if at_most is not None:
        met = found["median"] <= at_most
    return {**found, "at_least": at_least, "at_most": at_most, "met": met}
