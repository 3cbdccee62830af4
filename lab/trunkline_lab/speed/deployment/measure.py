"""One case in a process of its own, which measures when it is told to: both sides of it."""

from __future__ import annotations

import json
import os
import statistics
import sys
import time
from collections.abc import Callable
from dataclasses import asdict
from functools import partial
from typing import Any

from trunkline_lab.speed.deployment.cases import Case, Options, Part
from trunkline_lab.speed.side_by_side import Missing, WorkerProcess, take_turns
from trunkline_lab.speed.training.gate import open_channel

Result = dict[str, Any]
ONE_THREAD = dict.fromkeys(("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"), "1")
ROUNDS = 3


class Worker:
    """A `side_by_side.Worker`: `result` has `says`, and `milliseconds` of each repeat or `missing`."""

    def __init__(self, case: Case, options: Options) -> None:
        self.name, self.repeats = case.name, options.repeats
        self.result: Result = {"says": case.says, "milliseconds": []}
        request = [case.as_dict(), asdict(options)]
        env = {**ONE_THREAD, "HF_HUB_OFFLINE": "1"}
        self._process = WorkerProcess(case.name, __package__ or "", request, env, alone=True)

    def ready(self) -> bool:
        """Waits until it can measure."""
        message = next(self._process.messages())
        self.result |= {key: message[key] for key in ("missing",) if key in message}
        return "ready" in message

    def repeat(self) -> None:
        """Has the case measured once."""
        self._process.go()
        self.result["milliseconds"].append(next(self._process.messages())["milliseconds"])

    def close(self) -> None:
        """Ends the process."""
        self._process.close()


def run_part(part: Part, options: Options, say: Callable[[str], None]) -> dict[str, Result]:
    """Runs all cases of a section in turn.

    Returns:
        By case: `says`, and `milliseconds` of each repeat, or `missing`, why it cannot run here.
    """
    return take_turns([partial(Worker, case, options) for case in part.cases], say)


def work(content: str) -> None:
    """Runs a case; `content` is a JSON list of the case and the options."""
    channel = open_channel()
    case, raw = json.loads(content)
    options = Options(**raw)
    pin(options.core)

    def send(**message: Any) -> None:
        channel.write(json.dumps(message) + "\n")
        channel.flush()

    try:
        milliseconds = _sampler(case["kind"], options, case["settings"])
    except Missing as error:
        send(missing=str(error))
        return
    send(ready=True)
    for line in sys.stdin:
        if line.strip() != "go":
            return
        send(milliseconds=milliseconds())


def pin(core: int) -> None:
    """Keeps the process, and those that it starts, on one core; the last one for -1."""
    if hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(0, {max(os.sched_getaffinity(0)) if core < 0 else core})


def _sampler(kind: str, options: Options, settings: dict[str, Any]) -> Callable[[], float]:
    """A function that measures once: milliseconds of processor time."""
    if kind == "litert":
        from trunkline_lab.speed.deployment.workers import litert

        return litert(options, **settings)
    if kind.startswith("torch_"):
        from trunkline_lab.speed.deployment import torch_workers as module
    else:
        from trunkline_lab.speed.deployment import workers as module  # type: ignore[no-redef]
    call = getattr(module, kind)(options, **settings)
    began = time.process_time()
    for _ in range(3):
        call()
    each = (time.process_time() - began) / 3
    count = max(3, round(options.seconds / ROUNDS / max(each, 1e-6)))
    return lambda: best_round(call, count)


def best_round(call: Callable[[], Any], count: int) -> float:
    """The least of several rounds' medians, in milliseconds of processor time."""
    best = float("inf")
    for _ in range(ROUNDS):
        times = []
        for _ in range(count):
            began = time.process_time()
            call()
            times.append(time.process_time() - began)
        best = min(best, statistics.median(times))
    return 1000 * best
