"""The side that starts a process for each case and lets their repeats take turns."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any

from training_speed.cases import Case, Options, Part

Result = dict[str, Any]


class Worker:
    """A case in a process of its own."""

    def __init__(self, case: Case, options: Options) -> None:
        self.case = case
        self.result: Result = {"says": case.says, "repeats": []}
        self._log = tempfile.TemporaryFile("w+", encoding="utf-8", errors="replace")  # noqa: SIM115 (closed in `close`)
        self._process = subprocess.Popen(
            [sys.executable, str(Path(__file__).parent), "--worker", json.dumps([case.as_dict(), asdict(options)])],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._log,
            text=True,
            env={**os.environ, "TOKENIZERS_PARALLELISM": "false", "HF_HUB_DISABLE_TELEMETRY": "1"},
        )

    def warm_up(self) -> bool:
        """Waits for the end of the warm-up; false where the case cannot run here, which its result says."""
        return "ready" in self._next("ready")

    def repeat(self) -> None:
        """Has the case run once, and takes its result; with the last repeat its peak of memory."""
        assert self._process.stdin is not None
        try:
            self._process.stdin.write("go\n")
            self._process.stdin.flush()
        except BrokenPipeError:
            self._fail()
        self.result["repeats"].append(self._next("seconds"))
        if len(self.result["repeats"]) == self.case.repeats:
            self._next("peak")

    def close(self) -> None:
        """Reads what the case says at its end, and ends the process."""
        assert self._process.stdin is not None and self._process.stdout is not None
        self._process.stdin.close()
        for line in self._process.stdout:
            self.result |= json.loads(line).get("extra", {})
        if self._process.wait():
            self._fail()
        self._log.close()

    def _next(self, key: str) -> dict[str, Any]:
        """The next message that has a key, or says that the case cannot run; what comes before is kept."""
        assert self._process.stdout is not None
        for line in self._process.stdout:
            message: dict[str, Any] = json.loads(line)
            if key in ("ready", "peak") or "missing" in message:
                self.result |= {name: message[name] for name in ("ready", "peak", "missing") if name in message}
            self.result |= message.get("extra", {})
            if key in message or "missing" in message:
                return message
        self._fail()
        raise AssertionError

    def _fail(self) -> None:
        self._process.wait()
        self._log.seek(0)
        tail = "".join(self._log.readlines()[-25:])
        raise SystemExit(f"{self.case.name} ended with code {self._process.returncode}:\n{tail}")


def run_part(part: Part, options: Options, say: Callable[[str], None]) -> dict[str, Result]:
    """Runs all cases of a section, repeat by repeat in turn, each round in the other direction than the last.

    Returns:
        By case: `says`, `repeats`, memory when `ready` and at its `peak` in bytes, and what else the case found; or
        `missing`, why it cannot run here.
    """
    ready = []
    workers = []
    try:
        # One after the other, so that loading disturbs no warm-up.
        for case in part.cases:
            workers.append(Worker(case, options))
            if workers[-1].warm_up():
                ready.append(workers[-1])
            else:
                say(f"{case.name}: left out, {workers[-1].result['missing']}")
        for number in range(max((worker.case.repeats for worker in ready), default=0)):
            say(f"repeat {number + 1}")
            for worker in ready if number % 2 == 0 else reversed(ready):
                if number < worker.case.repeats:
                    worker.repeat()
    finally:
        for worker in workers:
            worker.close()
    return {worker.case.name: worker.result for worker in workers}
