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

from deployment.cases import Case, Part
from deployment.options import Options

Result = dict[str, Any]
ONE_THREAD = dict.fromkeys(("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"), "1")
QUIET = {"TOKENIZERS_PARALLELISM": "false", "HF_HUB_OFFLINE": "1", "HF_HUB_DISABLE_TELEMETRY": "1"}


class Worker:
    """A case in a process of its own."""

    def __init__(self, case: Case, options: Options) -> None:
        self.case = case
        self.result: Result = {"says": case.says, "milliseconds": []}
        self._log = tempfile.TemporaryFile("w+", encoding="utf-8", errors="replace")  # noqa: SIM115 (closed in `close`)
        self._process = subprocess.Popen(
            [sys.executable, str(Path(__file__).parent), "--worker", json.dumps([case.as_dict(), asdict(options)])],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._log,
            text=True,
            env={**os.environ, **ONE_THREAD, **QUIET},
            # A session of its own has its own share of a busy machine.
            start_new_session=True,
        )

    def ready(self) -> bool:
        """Waits until it can measure; false where it cannot here, which its result says."""
        message = self._next()
        self.result |= {key: message[key] for key in ("missing",) if key in message}
        return "ready" in message

    def repeat(self) -> None:
        """Has the case measured once."""
        assert self._process.stdin is not None
        try:
            self._process.stdin.write("go\n")
            self._process.stdin.flush()
        except BrokenPipeError:
            self._fail()
        self.result["milliseconds"].append(self._next()["milliseconds"])

    def close(self) -> None:
        """Ends the process."""
        assert self._process.stdin is not None
        self._process.stdin.close()
        self._process.wait()
        self._log.close()

    def _next(self) -> dict[str, Any]:
        assert self._process.stdout is not None
        for line in self._process.stdout:
            message: dict[str, Any] = json.loads(line)
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
        By case: `says`, and `milliseconds` of each repeat, or `missing`, why it cannot run here.
    """
    workers, ready = [], []
    try:
        # One after the other, so that loading disturbs no warm-up.
        for case in part.cases:
            workers.append(Worker(case, options))
            if workers[-1].ready():
                ready.append(workers[-1])
            else:
                say(f"{case.name}: left out, {workers[-1].result['missing']}")
        for number in range(options.repeats):
            say(f"repeat {number + 1}")
            for worker in ready if number % 2 == 0 else reversed(ready):
                worker.repeat()
    finally:
        for worker in workers:
            worker.close()
    return {worker.case.name: worker.result for worker in workers}
