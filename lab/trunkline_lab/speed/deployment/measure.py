"""The worker's side: one case in a process of its own, which measures when it is told to."""

from __future__ import annotations

import json
import os
import statistics
import sys
import time
from collections.abc import Callable
from typing import Any

from trunkline_lab.speed.deployment.options import Options
from trunkline_lab.speed.side_by_side import Missing
from trunkline_lab.speed.training.gate import open_channel

ROUNDS = 3


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
        from trunkline_lab.speed.deployment.litert_worker import litert

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
