"""A case of the training benchmark in a process of its own."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict
from functools import partial
from typing import Any

from trunkline_lab.speed.side_by_side import WorkerProcess, take_turns
from trunkline_lab.speed.training.cases import Case, Options, Part

Result = dict[str, Any]


class Worker:
    """A `side_by_side.Worker`: `result` has `says`, `repeats` and what the case says beside them."""

    def __init__(self, case: Case, options: Options) -> None:
        self.name, self.repeats = case.name, case.repeats
        self.result: Result = {"says": case.says, "repeats": []}
        self._process = WorkerProcess(case.name, __package__ or "", [case.as_dict(), asdict(options)], {})

    def ready(self) -> bool:
        """Waits for the end of the warm-up; false where the case cannot run here, which its result says."""
        return "ready" in self._next("ready")

    def repeat(self) -> None:
        """Has the case run once, and takes its result; with the last repeat its peak of memory."""
        self._process.go()
        self.result["repeats"].append(self._next("seconds"))
        if len(self.result["repeats"]) == self.repeats:
            self._next("peak")

    def close(self) -> None:
        """Ends the process, and takes what the case says at its end."""
        for message in self._process.close():
            self.result |= message.get("extra", {})

    def _next(self, key: str) -> dict[str, Any]:
        """The next message that has a key, or says that the case cannot run; what comes before is kept."""
        for message in self._process.messages():
            if key in ("ready", "peak") or "missing" in message:
                self.result |= {name: message[name] for name in ("ready", "peak", "missing") if name in message}
            self.result |= message.get("extra", {})
            if key in message or "missing" in message:
                return message
        raise AssertionError


def run_part(part: Part, options: Options, say: Callable[[str], None]) -> dict[str, Result]:
    """Runs all cases of a section in turn.

    Returns:
        By case: `says`, `repeats`, memory when `ready` and at its `peak` in bytes, and what else the case found; or
        `missing`, why it cannot run here.
    """
    return take_turns([partial(Worker, case, options) for case in part.cases], say)
