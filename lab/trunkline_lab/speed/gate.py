"""The worker's side: one case in a process of its own, which computes when it is told to and says what it took.

So repeats of several cases can take turns, while each case has its own peak of memory.
"""

from __future__ import annotations

import json
import os
import re
import sys
import time
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import IO, Any

_MEMORY = {"resident": "VmRSS", "peak": "VmHWM"}


def open_channel() -> IO[str]:
    """What the process printed to so far, for the worker's messages alone; what libraries print goes to stderr."""
    channel = os.fdopen(os.dup(1), "w", buffering=1, encoding="utf-8")
    os.dup2(2, 1)
    return channel


def memory() -> dict[str, int]:
    """Bytes of memory that the process has (`resident`), and had at most (`peak`)."""
    try:
        status = Path("/proc/self/status").read_text(encoding="utf-8")
    except OSError:
        import resource

        # Only the most that there was is known; in kilobytes but on macOS.
        most = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)
        return dict.fromkeys(_MEMORY, most)
    found = {name: re.search(rf"^{key}:\s+(\d+) kB", status, flags=re.M) for name, key in _MEMORY.items()}
    return {name: int(match[1]) * 1024 if match else 0 for name, match in found.items()}


def _bytes(kind: str) -> int:
    """Of `memory`; on a GPU, if torch is loaded, of its tensors."""
    torch = sys.modules.get("torch")
    if torch is not None and torch.cuda.is_available():
        return int(torch.cuda.memory_allocated() if kind == "resident" else torch.cuda.max_memory_allocated())
    return memory()[kind]


class Gate:
    """Stands between the repeats of a case: reports the last one, and waits to be told to begin the next.

    Args:
        channel: Where messages go, one JSON object a line.
        parts: Steps of the warm-up, then of each repeat.
    """

    def __init__(self, channel: IO[str], parts: Sequence[int]) -> None:
        self.channel = channel
        self.ends = [sum(parts[: number + 1]) for number in range(len(parts))]
        self.done = 0
        self.counts: Counter[str] = Counter()
        self._began = (0.0, 0.0)

    @property
    def total(self) -> int:
        """Steps of all parts."""
        return self.ends[-1]

    def add(self, **counts: float) -> None:
        """Counts work of the current part, such as `tokens`, `computed` (with padding), `pairs`, `waited` (seconds)."""
        self.counts.update(counts)

    def step(self, *_: Any) -> None:
        """To be called after each step."""
        self.done += 1
        if self.done not in self.ends:
            return
        if self.done == self.ends[0]:
            self._send({"ready": _bytes("resident")})
        else:
            _wait_for_device()
            seconds, cpu = (now - then for now, then in zip(_clocks(), self._began, strict=True))
            self._send({"seconds": seconds, "cpu_seconds": cpu, **self.counts})
        if self.done < self.total:
            self._pause()
        else:
            self._send({"peak": _bytes("peak")})

    def say(self, **content: Any) -> None:
        """Sends what else a case found; kept with its result."""
        self._send({"extra": content})

    def _pause(self) -> None:
        if sys.stdin.readline().strip() != "go":
            sys.exit(0)  # whoever started this one is gone, or has enough
        self.counts.clear()
        _wait_for_device()
        self._began = _clocks()

    def _send(self, content: dict[str, Any]) -> None:
        self.channel.write(json.dumps(content) + "\n")
        self.channel.flush()


def _clocks() -> tuple[float, float]:
    return time.perf_counter(), time.process_time()


def _wait_for_device() -> None:
    torch = sys.modules.get("torch")
    if torch is not None and torch.cuda.is_available():
        torch.cuda.synchronize()
