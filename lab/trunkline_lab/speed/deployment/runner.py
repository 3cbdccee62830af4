"""A case of the deployment benchmark in a process of its own."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict
from functools import partial
from typing import Any

from trunkline_lab.speed.deployment.cases import Case, Part
from trunkline_lab.speed.deployment.options import Options
from trunkline_lab.speed.side_by_side import WorkerProcess, take_turns

Result = dict[str, Any]
ONE_THREAD = dict.fromkeys(("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"), "1")


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
