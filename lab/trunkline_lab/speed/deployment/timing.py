"""One case in its process: pinned to a core, it measures processor time when it is told to."""

from __future__ import annotations

import os
import statistics
import time
from collections.abc import Callable
from typing import Any

from trunkline_lab.speed.deployment.cases import Options
from trunkline_lab.speed.gate import Gate

ONE_THREAD = dict.fromkeys(("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"), "1")
ROUNDS = 3


def run_case(case: dict[str, Any], options: Options, channel: Any) -> None:
    """Runs a case, a step for its warm-up and for each repeat."""
    if hasattr(os, "sched_setaffinity"):
        core = options.core
        os.sched_setaffinity(0, {max(os.sched_getaffinity(0)) if core < 0 else core})
    measure = _sampler(case["kind"], options, case["settings"])
    gate = Gate(channel, [1] * (1 + case["repeats"]))
    gate.step()
    while gate.done < gate.total:
        gate.add(milliseconds=measure())
        gate.step()


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


def best_round(call: Callable[[], Any], repeats: int, rounds: int = ROUNDS) -> float:
    """The least of several rounds' medians, in milliseconds of processor time; other work on the machine only adds."""
    best = float("inf")
    for _ in range(rounds):
        taken = []
        for _ in range(repeats):
            began = time.process_time()
            call()
            taken.append(time.process_time() - began)
        best = min(best, statistics.median(taken))
    return 1000 * best
